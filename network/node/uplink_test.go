package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/uplink"
)

// TestUplinkFollower: a change is applied when it has lasted, and an uplink that is gone is reported when it stays
// away.
func TestUplinkFollower(t *testing.T) {
	eth0, renumbered, eth1 := uplink.Choice{Name: "eth0", Index: 2, MTU: 1500}, uplink.Choice{Name: "eth0", Index: 2, MTU: 9000}, uplink.Choice{Name: "eth1", Index: 3, MTU: 1500}
	gone := errors.New("no interface has a default route")
	start := time.Unix(1e9, 0)
	type look struct {
		at     time.Duration
		stale  bool
		choice uplink.Choice // zero: none
		apply  bool
		next   time.Duration // of the alarm; 0: none
	}
	for _, x := range []struct {
		name  string
		looks []look
		log   []string
	}{
		{"unchanged", []look{{0, true, eth0, false, 0}, {time.Second, false, eth1, false, 0}}, nil},
		{"address or MTU", []look{{0, true, renumbered, false, sameUplinkDelay}, {sameUplinkDelay, false, renumbered, true, 0}}, nil},
		{"another interface", []look{
			{0, true, eth1, false, otherUplinkDelay}, {time.Second, true, eth1, false, otherUplinkDelay}, {otherUplinkDelay, false, eth1, true, 0},
		}, nil},
		{"a flap", []look{{0, true, eth1, false, otherUplinkDelay}, {time.Second, true, eth0, false, 0}, {otherUplinkDelay, false, eth1, false, 0}}, nil},
		{"a reload", []look{{0, true, uplink.Choice{}, false, transientTime}, {100 * time.Millisecond, true, eth0, false, 0}}, nil},
		{"lost", []look{
			{0, true, uplink.Choice{}, false, transientTime}, {transientTime, false, uplink.Choice{}, false, 0},
			{time.Hour, true, uplink.Choice{}, false, 0}, {time.Hour + 1, true, eth0, false, 0},
		}, []string{"level=error msg=" + gone.Error(), "level=info msg=uplink: problem resolved"}},
	} {
		var out bytes.Buffer
		u := uplinkFollower{journal: newJournal(textLog(&out))}
		for i, l := range x.looks {
			a := alarm{now: start.Add(l.at)}
			next, apply := u.step(&a, l.stale, eth0, func() (uplink.Choice, error) {
				if l.choice.Name == "" {
					return l.choice, gone
				}
				return l.choice, nil
			})
			if apply != l.apply || apply && !next.Equal(l.choice) {
				t.Errorf("%s, look %d: apply %t %+v", x.name, i, apply, next)
			}
			if want := start.Add(l.next); l.next == 0 != a.at.IsZero() || l.next != 0 && !a.at.Equal(want) {
				t.Errorf("%s, look %d: alarm at %v, want %v", x.name, i, a.at.Sub(start), l.next)
			}
		}
		if got := strings.TrimSpace(out.String()); got != strings.Join(x.log, "\n") {
			t.Errorf("%s: logged\n%s\nwant\n%s", x.name, got, strings.Join(x.log, "\n"))
		}
	}
}
