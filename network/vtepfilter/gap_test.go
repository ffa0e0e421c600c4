package vtepfilter

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// stream sends pings to the node's port until it is stopped, each as soon as the last one has come back, or, if none is to,
// one after the other. It counts those that came back.
type stream struct {
	back    atomic.Int64
	stopped atomic.Bool
}

func (l *lab) stream(from, to string, passes bool) (s *stream, stop func()) {
	l.t.Helper()
	s = &stream{}
	var conn *net.UDPConn
	l.do(l.outside, func() (err error) {
		conn, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: port})
		return err
	})
	patience := patient
	if !passes {
		patience = 100 * time.Microsecond
	}
	if passes {
		l.waitForWay(conn)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		b := make([]byte, len(ping))
		for !s.stopped.Load() {
			if _, err := conn.Write(ping); err != nil {
				l.t.Errorf("from %s: %v", from, err)
				return
			}
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				l.t.Error(err)
				return
			}
			switch _, err := conn.Read(b); {
			case err == nil:
				s.back.Add(1)
			case !passes && errors.Is(err, os.ErrDeadlineExceeded):
			default:
				l.t.Errorf("from %s, after %d: %v", from, s.back.Load(), err)
				return
			}
		}
	})
	return s, func() {
		s.stopped.Store(true)
		wait.Wait()
		conn.Close()
	}
}

// waitForWay sends until the first answer: an interface that has just come up drops what is sent, for up to a second on a
// busy machine (net/core/link_watch.c).
func (l *lab) waitForWay(conn *net.UDPConn) {
	l.t.Helper()
	b := make([]byte, len(ping))
	for began := time.Now(); ; {
		_, err := conn.Write(ping)
		if err == nil {
			err = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		}
		if err == nil {
			_, err = conn.Read(b)
		}
		switch {
		case err == nil:
			return
		case time.Since(began) > patient:
			l.t.Fatalf("from %s: no way to the node: %v", conn.LocalAddr(), err)
		}
	}
}

// TestNoGap sends packets as fast as it can while the table is changed and made anew: a peer's get through, every single
// one, and as long as the rules are in force before and after, no stranger's does.
func TestNoGap(t *testing.T) {
	const rounds, packets = 100, 5000
	others := config()
	others.Networks, others.Allow, others.Devices = prefixes("10.6.0.0/16", "fd00:6::/32"), prefixes("203.0.113.0/24"), []string{"cni0"}
	harms := structural()
	named := func(name string) func(*foreign) {
		return harms[slices.IndexFunc(harms, func(h harm) bool { return h.name == name })].do
	}
	for _, tt := range []struct {
		name      string
		strangers bool // send too: the rules are never out of force
		change    func(t *testing.T, l *lab, f *foreign)
	}{
		{"configuration", true, func(t *testing.T, l *lab, f *foreign) { l.ensure(others, peers()) }},
		{"rules set anew", true, func(t *testing.T, l *lab, f *foreign) { named("rule without its comment")(f) }},
		{"table made anew", true, func(t *testing.T, l *lab, f *foreign) { named("set added")(f) }},
		{"other peers come and go", true, func(t *testing.T, l *lab, f *foreign) {
			if err := errors.Join(l.filter.Apply(many(1000), nil), l.filter.Apply(nil, many(1000))); err != nil {
				t.Error(err)
			}
			named("rule without its comment")(f)
		}},
		{"from nothing", false, func(t *testing.T, l *lab, f *foreign) { f.FlushRuleset() }},
		{"without a peer in the sets", false, func(t *testing.T, l *lab, f *foreign) {
			// A packet that has met the rules as they were must not find the sets as they are.
			f.FlushTable(f.table)
			f.Commit()
			waitForPackets(t)
			f.FlushSet(f.set(peersSet(nft.Families()[0])))
			f.FlushSet(f.set(peersSet(nft.Families()[1])))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			f := newForeign(t, l.node)
			l.ensure(config(), peers())
			var streams, strangers []*stream
			for _, a := range bothFamilies() {
				s, stop := l.stream(a.peer, a.node, true)
				defer stop()
				streams = append(streams, s)
				if tt.strangers {
					s, stop := l.stream(a.stranger, a.node, false)
					defer stop()
					strangers = append(strangers, s)
				}
			}
			enough := func() bool {
				return !slices.ContainsFunc(streams, func(s *stream) bool { return s.back.Load() < packets })
			}
			for n := 0; (n < rounds || !enough()) && !t.Failed(); n++ {
				if d, err := l.filter.Dropped(); err != nil || !tt.strangers && d.Strangers > 0 {
					t.Errorf("round %d: %d packets of a peer's dropped, %v", n, d.Strangers, err)
				}
				tt.change(t, l, f)
				f.Commit()
				if !l.ensure(config(), peers()) {
					t.Fatal("there was nothing to change")
				}
			}
			for _, s := range strangers {
				if n := s.back.Load(); n > 0 {
					t.Errorf("%d packets of a stranger's got through", n)
				}
			}
		})
	}
}

// waitForPackets returns when the kernel is done with all packets that it was working on: it makes the kernel wait for a
// grace period of RCU.
func waitForPackets(t *testing.T) {
	t.Helper()
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
}
