package node

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach"
	"github.com/selvage-net/selvage/subnet"
)

// TestLossProblem: peers that answer, but not all probes, are a warning with figures. It is logged when it begins, when
// other peers have it, and when it ends; not when a figure changes.
func TestLossProblem(t *testing.T) {
	at := time.Unix(1e9, 0)
	lossy := reach.Result{
		State: reach.Reachable, RTT: 201 * time.Millisecond, Recent: 32, Lost: 4, Lossy: true, LossySince: at.Add(time.Minute),
	}
	older, gone := lossy, lossy
	older.LossySince, older.Lost = at, 8
	gone.State = reach.Unreachable
	one := reach.Result{State: reach.Reachable, Recent: 32, Lost: 1}
	name := func(key string) string { return key + " (192.0.2.1)" }
	for _, x := range []struct {
		results map[string]reach.Result
		want    string // empty: no problem
		since   time.Time
	}{
		{map[string]reach.Result{}, "", time.Time{}},
		{map[string]reach.Result{"a": one, "b": gone, "c": {}}, "", time.Time{}},
		{map[string]reach.Result{"a": one, "b": lossy, "c": older, "d": gone},
			"probes of 2 of 4 nodes over IPv6 are lost: b (192.0.2.1): 4 of the latest 32 (12 %), the latest round trip took 201ms; " +
				"c (192.0.2.1): 8 of the latest 32 (25 %), the latest round trip took 201ms; selvaged doctor finds out where", at},
	} {
		p, found := lossProblem(x.results, subnet.IPv6, name)
		s := p.status()
		if found != (x.want != "") || found && (string(s.Text) != x.want || !s.Since.Equal(x.since) || !s.Warning ||
			s.Code != status.PacketLoss || len(s.Cuts) > 0) {
			t.Errorf("%+v, %t, want %q since %s", s, found, x.want, x.since)
		}
	}

	var out bytes.Buffer
	j := newJournal(textLog(&out))
	step := func(results map[string]reach.Result, lines int, text string) {
		t.Helper()
		out.Reset()
		var all []pathProblem
		if p, found := lossProblem(results, subnet.IPv4, name); found {
			all = append(all, p)
		}
		j.pathsChanged(all, at)
		if got := out.String(); strings.Count(got, "\n") != lines || !strings.Contains(got, text) {
			t.Errorf("logged %q, want %d lines with %q", got, lines, text)
		}
	}
	step(map[string]reach.Result{"a": one, "b": lossy}, 1, "level=warning msg=loss: probes of 1 of 2 nodes")
	step(map[string]reach.Result{"a": one, "b": older}, 0, "")
	step(map[string]reach.Result{"a": lossy, "b": lossy}, 1, "probes of 2 of 2 nodes")
	step(map[string]reach.Result{"a": one, "b": one}, 1, "level=info msg=loss: problem resolved")
}
