package enforce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/nflog"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/recent"
)

// TestDrops: what is denied is reported, with its pods and the reason.
func TestDrops(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{LogGroup: 7, Reject: true})
	e.SetAttachments([]Attachment{attachmentAt(1)})
	apply(t, e, webAndClient(t))
	testctx.Eventually(t, func() string {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.reading {
			return "the engine reads what is logged"
		}
		return ""
	})
	apply(t, e, func(to policy.Objects) {
		p, err := policy.DecodeClusterPolicy([]byte(`{"metadata": {"name": "no-dns"}, "spec": {"tier": "Admin", "priority": 1,
			"subject": {"namespaces": {}}, "egress": [{"action": "Accept", "to": [{"networks": ["192.0.2.0/24"]}]},
			{"action": "Deny", "to": [{"networks": ["10.0.1.0/24"]}]}]}}`))
		if err != nil || len(p.Problems) > 0 {
			t.Fatal(err, p.Problems)
		}
		to.SetClusterPolicy(p)
	})
	borrowed := tcp(2, 0, 80)
	borrowed.from = endName(1)
	far := probe{Packet: policy.Packet{Source: podAddress(1, false), Destination: netip.MustParseAddr("10.0.1.1"),
		Protocol: policy.UDP, Port: 53}}
	seen := 0
	for _, tt := range []struct {
		probe probe
		want  Drop
	}{
		{tcp(2, 0, 80), Drop{Denial: ruleset.Denial{Direction: policy.Ingress, Reason: ruleset.Isolated},
			Isolated: []string{"red/web"}, Source: End{Pod: "red/port2", Node: thisNode}}},
		{far, Drop{Denial: ruleset.Denial{Direction: policy.Egress, Reason: ruleset.Denied, Policy: "no-dns", Rule: 1},
			Source: End{Pod: "red/port1", Node: thisNode}}},
		{borrowed, Drop{Denial: ruleset.Denial{Direction: policy.Egress, Reason: ruleset.Spoofed},
			Source: End{Pod: "red/port2", Node: thisNode}}},
	} {
		if got := l.send([]probe{tt.probe}); got[0] {
			t.Errorf("%+v arrived", tt.probe.Packet)
		}
		got := next(t, e, &seen)
		tt.want.Protocol = tt.probe.Protocol
		if tt.probe.Destination == podAddress(0, false) {
			tt.want.Destination = End{Pod: "red/port0", Node: thisNode}
		}
		if got.Source.Addr() != tt.probe.Source || got.Destination.Addr() != tt.probe.Destination ||
			got.Destination.Port() != tt.probe.Port || got.Source.Port() == 0 || got.At.IsZero() {
			t.Errorf("%+v: %+v", tt.probe.Packet, got)
		}
		got.At, got.Source.AddrPort, got.Destination.AddrPort = time.Time{}, tt.want.Source.AddrPort, tt.want.Destination.AddrPort
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: %+v, want %+v", tt.probe.Packet, got, tt.want)
		}
	}
}

// TestDropsUnread: while another process reads the log group, the state says so, and that is over with the other's end.
func TestDropsUnread(t *testing.T) {
	newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reading, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- nflog.Read(ctx, 7, func() { close(reading) }, func() {}, func(nflog.Packet) {})
	}()
	<-reading
	changed := make(chan struct{}, 1)
	e, stop := start(t, Options{LogGroup: 7, Changed: func() { notify(changed) }})
	apply(t, e, webAndClient(t))
	await(t, e, "unread drops in the state", func() bool { return errors.Is(e.state.DropsUnread, unix.EPERM) })
	<-changed // the node's loop looks at the state then
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	await(t, e, "drops that are read again", func() bool { return e.reading && e.state.DropsUnread == nil })
	stop()
	if err := e.Status().DropsUnread; err != nil {
		t.Errorf("after the end: %v", err)
	}
}

// next returns the first drop that was not there yet when it was called last: seen counts those.
func next(t *testing.T, e *Engine, seen *int) (drop Drop) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	found, number := errors.New("found"), 0
	err := e.Drops(ctx, true, func(d Drop) error {
		if number++; number <= *seen {
			return nil
		}
		drop = d
		return found
	})
	if !errors.Is(err, found) {
		t.Fatal("no drop is reported")
	}
	*seen = 0
	if err := e.Drops(ctx, false, func(Drop) error { *seen++; return nil }); err != nil {
		t.Fatal(err)
	}
	return drop
}

// TestKeptDrops: who follows gets each drop once, in order, and how many are missed.
func TestKeptDrops(t *testing.T) {
	e, _ := start(t, Options{})
	add := func(from, to int) {
		for i := from; i < to; i++ {
			e.drop(nflog.Packet{Prefix: ruleset.Denial{Reason: ruleset.Isolated}.Prefix(), Protocol: uint8(policy.TCP),
				Source:      netip.AddrPortFrom(podAddress(0, false), uint16(i)),
				Destination: netip.AddrPortFrom(podAddress(1, false), 80)})
		}
	}
	add(1, 10)
	stop := errors.New("stop")
	var ports []uint16
	missed := uint64(0)
	err := e.Drops(t.Context(), true, func(d Drop) error {
		ports = append(ports, d.Source.Port())
		missed += d.Missed
		if len(ports) == 9 {
			add(10, 10+recent.Kept+5)
		}
		if len(ports) == 9+recent.Kept {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || missed != 5 || ports[0] != 1 || ports[8] != 9 || ports[9] != 15 || ports[len(ports)-1] != 14+recent.Kept {
		t.Errorf("%v, missed %d, %v", err, missed, ports)
	}
	count := 0
	if err := e.Drops(t.Context(), false, func(d Drop) error { count++; return nil }); err != nil || count != recent.Kept {
		t.Errorf("%v, %d drops, want %d", err, count, recent.Kept)
	}
}

// TestDropCounts: drops are counted by namespace, direction, reason and policy, and no more kinds than a bound.
func TestDropCounts(t *testing.T) {
	t.Cleanup(func() { clearTables(t) }) // after the engine has ended
	e, _ := start(t, Options{})
	apply(t, e, webAndClient(t))
	drop := func(count int, why ruleset.Denial, from, to int) {
		for range count {
			e.drop(nflog.Packet{Prefix: why.Prefix(), Protocol: uint8(policy.TCP),
				Source:      netip.AddrPortFrom(podAddress(from, false), 1024),
				Destination: netip.AddrPortFrom(podAddress(to, false), 80)})
		}
	}
	drop(3, ruleset.Denial{Direction: policy.Ingress, Reason: ruleset.Isolated}, 2, 0)
	drop(2, ruleset.Denial{Direction: policy.Egress, Reason: ruleset.Denied, Policy: "no-dns", Rule: 1}, 1, 0)
	drop(1, ruleset.Denial{Direction: policy.Egress, Reason: ruleset.Denied, Policy: "no-dns", Rule: 2}, 1, 0)
	want := []DropCount{
		{DropKind{"red", policy.Ingress, ruleset.Isolated, "red/web"}, 3},
		{DropKind{"red", policy.Egress, ruleset.Denied, "no-dns"}, 3},
	}
	if got := e.DropCounts(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for i := range maxDropCounts {
		drop(1, ruleset.Denial{Direction: policy.Egress, Reason: ruleset.Denied, Policy: fmt.Sprint("p", i)}, 1, 0)
	}
	got := e.DropCounts()
	if other := (DropCount{DropKind{Direction: policy.Egress}, 2}); len(got) != maxDropCounts+1 || got[0] != other {
		t.Errorf("%d kinds, the first %+v; want %d, and %+v", len(got), got[0], maxDropCounts+1, other)
	}
}
