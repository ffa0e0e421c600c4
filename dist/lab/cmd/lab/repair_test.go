package main

import (
	"errors"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	nodestatus "github.com/selvage-net/selvage/network/node/status"
)

// TestJudge: the figures are those of the streams, and a fault that is said to need no repair must cost nothing.
func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	byItself, restarted := trials("etcd")[0], trials("etcd")[len(trials("etcd"))-1]
	notRepaired := errors.New("not repaired")
	whole := []lab.StreamReport{{Sent: 100}, {Sent: 100}}
	lossy := []lab.StreamReport{{Sent: 100, Lost: 2, Gap: 4 * ms}, {Sent: 100, Lost: 3, Gap: 6 * ms}}
	for _, tt := range []struct {
		name    string
		trial   trial
		before  error
		streams []lab.StreamReport
		lost    int
		outage  time.Duration
		failed  bool
	}{
		{"repaired", byItself, nil, lossy, 5, 6 * ms, false},
		{"repaired without loss", byItself, nil, whole, 0, 0, false},
		{"not repaired", byItself, notRepaired, lossy, 5, 6 * ms, true},
		{"no repair needed", restarted, nil, whole, 0, 0, false},
		{"no repair needed, but datagrams lost", restarted, nil, lossy, 5, 6 * ms, true},
	} {
		o := tt.trial.judge(outcome{err: tt.before}, tt.streams)
		if o.lost != tt.lost || o.outage != tt.outage || (o.err != nil) != tt.failed {
			t.Errorf("%s: %+v, want %d lost, an outage of %s, failed %t", tt.name, o, tt.lost, tt.outage, tt.failed)
		}
	}
}

// TestInSync: a node that is ready has repaired a fault only if its daemon reports a repair.
func TestInSync(t *testing.T) {
	var before, after nodestatus.Repairs
	before.Add("route", "missing", 3)
	after.Add("route", "missing", 3)
	ready := nodestatus.Status{State: nodestatus.Ready}
	if by := repairs(before, after); by != "" || inSync(ready, by) == nil {
		t.Errorf("without a repair: %q, %v", by, inSync(ready, by))
	}
	after.Add("route", "changed", 2)
	after.Add("link", "missing", 1)
	by := repairs(before, after)
	if by != "selvaged: 2 route, 1 link" || inSync(ready, by) != nil {
		t.Errorf("with repairs: %q, %v", by, inSync(ready, by))
	}
	degraded := nodestatus.Status{State: nodestatus.Degraded}
	pending := nodestatus.Status{State: nodestatus.Ready, Entries: map[string]nodestatus.Count{"route": {Pending: 1}}}
	if inSync(degraded, by) == nil || inSync(pending, by) == nil {
		t.Error("a node that is degraded, or has entries pending, is in sync")
	}
}
