package vtepfilter

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// watch runs the filter's Watch in the node of a lab until the test ends.
func (l *lab) watch(changed func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- l.node.Do(func() error { return l.filter.Watch(ctx, func() { close(ready) }, changed) })
	}()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patient):
		l.t.Fatal("Watch does not begin")
	}
}

// repair does what a node does when it is woken, and returns whether there was anything to be done.
func (l *lab) repair(c Config, want []netip.Addr) (structure, elements bool) {
	l.t.Helper()
	present, ok, err := l.filter.Read()
	if err != nil {
		l.t.Fatal(err)
	}
	if !ok {
		structure = l.ensure(c, want)
		if present, ok, err = l.filter.Read(); err != nil || !ok {
			l.t.Fatalf("after Ensure the table reads as %t, %v", ok, err)
		}
	}
	without := func(a, b []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(slices.Clone(a), func(x netip.Addr) bool { return slices.Contains(b, x) })
	}
	missing, extra := without(want, present), without(present, want)
	if err := l.filter.Apply(missing, extra); err != nil {
		l.t.Fatal(err)
	}
	return structure, len(missing)+len(extra) > 0
}

// TestRepair does to the table what others do, and looks that it is noticed and mended.
func TestRepair(t *testing.T) {
	l := newLab(t)
	f := newForeign(t, l.node)
	l.ensure(config(), peers())
	news := make(chan struct{}, 1)
	l.watch(func() {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	try := func(h harm, structure, elements bool) {
		t.Run(h.name, func(t *testing.T) {
			f.T, l.t = t, t
			h.do(f)
			f.Commit()
			select {
			case <-news:
			case <-time.After(patient):
				t.Fatal("it is not noticed")
			}
			if s, e := l.repair(config(), peers()); s != structure || e != elements {
				t.Errorf("Ensure had to do something: %t; Apply: %t", s, e)
			}
			if s, e := l.repair(config(), peers()); s || e {
				t.Errorf("again, Ensure had to do something: %t; Apply: %t", s, e)
			}
			l.whole()
		})
	}
	for _, h := range structural() {
		try(h, true, false)
	}
	for _, h := range ofPeers() {
		try(h, false, true)
	}
	f.T, l.t = t, t
}

// TestEnsureKeepsPeers repairs a table without being given any peer: those that are in it stay.
func TestEnsureKeepsPeers(t *testing.T) {
	ns := newNet(t)
	filter, f := newFilter(t, ns), newForeign(t, ns)
	ensure := func(t *testing.T, peers []netip.Addr) {
		t.Helper()
		if _, err := filter.Ensure(config(), slices.Values(peers)); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range structural() {
		t.Run(h.name, func(t *testing.T) {
			f.T = t
			if err := filter.Remove(); err != nil {
				t.Fatal(err)
			}
			ensure(t, peers())
			h.do(f)
			f.Commit()
			left, _ := read(t, filter)
			ensure(t, nil)
			if present, inSync := read(t, filter); !inSync || !slices.Equal(present, left) {
				t.Errorf("the peers were %v and are %v; the table is in sync: %t", left, present, inSync)
			}
		})
	}
	f.T = t
}

// TestFight has somebody else delete the table and its rules all the time.
func TestFight(t *testing.T) {
	l := newLab(t)
	f := newForeign(t, l.node)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			for _, harm := range []func(){func() { f.FlushTable(f.table) }, func() { f.DelTable(f.table) }} {
				if harm(); !absent(f.Flush()) {
					done <- errors.New("the table can neither be harmed nor is it gone")
					return
				}
			}
		}
	}()
	lost := 0
	for range 50 {
		if _, err := l.filter.Ensure(config(), slices.Values(peers())); errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		} else if err != nil {
			lost++
		}
		if err := l.filter.Apply(peers(), nil); err != nil && !errors.Is(err, ErrMissing) {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d of 50 times the other was faster", lost)
	l.ensure(config(), peers())
	l.whole()
}

// absent reports whether an error is none, or that there is nothing to do it to.
func absent(err error) bool { return err == nil || errors.Is(err, fs.ErrNotExist) }

// read is Read where it must not fail.
func read(t testing.TB, f *Filter) (present []netip.Addr, ok bool) {
	t.Helper()
	present, ok, err := f.Read()
	if err != nil {
		t.Fatal(err)
	}
	return present, ok
}
