package vtepfilter

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// stream sends pings from a peer to the node's port until it is stopped, each as soon as the reply to the last one has
// arrived, and counts the replies. Before each, it may send a ping from a stranger, whose replies it counts too. So few
// packets are in flight that the kernel drops none for want of a buffer, however busy the machine is.
type stream struct {
	peer, stranger atomic.Int64 // replies
	stopped        atomic.Bool
}

func (l *lab) stream(a addresses, strangers bool) (s *stream, stop func()) {
	l.t.Helper()
	s = &stream{}
	dial := func(from string) (conn *net.UDPConn) {
		l.do(l.outside, func() (err error) {
			conn, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(a.node), Port: port})
			return err
		})
		return conn
	}
	peer, stranger := dial(a.peer), dial(a.stranger)
	l.waitForWay(peer)
	t := l.t
	var wait sync.WaitGroup
	wait.Go(func() {
		b := make([]byte, len(ping))
		for !s.stopped.Load() {
			if strangers {
				if _, err := stranger.Write(ping); err != nil {
					t.Errorf("from %s: %v", a.stranger, err)
					return
				}
			}
			_, err := peer.Write(ping)
			if err == nil {
				err = peer.SetReadDeadline(time.Now().Add(patient))
			}
			if err == nil {
				_, err = peer.Read(b)
			}
			if err != nil {
				t.Errorf("from %s, after %d: %v", a.peer, s.peer.Load(), err)
				return
			}
			s.peer.Add(1)
		}
	})
	var closed sync.WaitGroup
	closed.Go(func() {
		for b := make([]byte, len(ping)); ; s.stranger.Add(1) {
			if _, err := stranger.Read(b); err != nil {
				return
			}
		}
	})
	return s, func() {
		s.stopped.Store(true)
		wait.Wait()
		peer.Close()
		stranger.Close()
		closed.Wait()
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

// TestNoGap sends packets while the table is changed and recreated: all packets of a peer get through, and as long as the
// rules are in force before and after, none of a stranger's does.
func TestNoGap(t *testing.T) {
	const rounds, packets = 100, 5000
	l := newLab(t)
	f := newForeign(t, l.node)
	others := config()
	others.Networks, others.Allow, others.Devices = prefixes("10.6.0.0/16", "fd00:6::/32"), prefixes("203.0.113.0/24"), []string{"cni0"}
	harms := structural()
	named := func(name string) func(*foreign) {
		return harms[slices.IndexFunc(harms, func(h harm) bool { return h.name == name })].do
	}
	for _, tt := range []struct {
		name      string
		strangers bool // send too: the rules are always in force
		change    func(t *testing.T)
	}{
		{"configuration", true, func(t *testing.T) { l.ensure(others, peers()) }},
		{"rules replaced", true, func(t *testing.T) { named("rule without its comment")(f) }},
		{"table recreated", true, func(t *testing.T) { named("set added")(f) }},
		{"other peers added and removed", true, func(t *testing.T) {
			if err := errors.Join(l.filter.Apply(many(1000), nil), l.filter.Apply(nil, many(1000))); err != nil {
				t.Error(err)
			}
			named("rule without its comment")(f)
		}},
		{"from nothing", false, func(t *testing.T) { f.FlushRuleset() }},
		{"without a peer in the sets", false, func(t *testing.T) {
			// A packet that has met the rules as they were must not find the sets as they are.
			f.FlushTable(f.table)
			f.Commit()
			waitForPackets(t)
			f.FlushSet(f.set(peersSet(nft.Families()[0])))
			f.FlushSet(f.set(peersSet(nft.Families()[1])))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.t, f.T = t, t
			if err := l.filter.Remove(); err != nil { // with its counters
				t.Fatal(err)
			}
			l.ensure(config(), peers())
			var streams []*stream
			for _, a := range bothFamilies() {
				s, stop := l.stream(a, tt.strangers)
				defer stop()
				streams = append(streams, s)
			}
			enough := func() bool {
				return !slices.ContainsFunc(streams, func(s *stream) bool { return s.peer.Load() < packets })
			}
			for n := 0; (n < rounds || !enough()) && !t.Failed(); n++ {
				if d, err := l.filter.Dropped(); err != nil || !tt.strangers && d.Strangers > 0 {
					t.Errorf("round %d: %d packets of a peer's dropped, %v", n, d.Strangers, err)
				}
				tt.change(t)
				f.Commit()
				if !l.ensure(config(), peers()) {
					t.Fatal("there was nothing to change")
				}
			}
			for _, s := range streams {
				if n := s.stranger.Load(); n > 0 {
					t.Errorf("%d packets of a stranger's got through", n)
				}
			}
		})
	}
	l.t, f.T = t, t
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
