package node

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/vtepfilter"
)

// textLog returns a log that writes a line an entry, without the time.
func textLog(out *bytes.Buffer) logrus.FieldLogger {
	log := logrus.New()
	log.Out = out
	log.Formatter = &logrus.TextFormatter{DisableTimestamp: true, DisableQuote: true}
	return log
}

// fakeVTEPFilter is used under synctest, by one goroutine at a time.
type fakeVTEPFilter struct {
	port            uint16 // in force; 0: there are no rules
	broken          bool   // another process has changed the rules
	err             error  // of Ensure
	ensured         []time.Time
	removed, closed bool
	removeErr       error // of Remove
	peers           []netip.Addr
	changed         func()
}

func (f *fakeVTEPFilter) Ensure(c vtepfilter.Config, peers iter.Seq[netip.Addr]) (changed bool, err error) {
	f.ensured = append(f.ensured, time.Now())
	if f.err != nil {
		return false, f.err
	}
	changed = f.broken || f.port != c.Port
	f.port, f.broken, f.peers = c.Port, false, slices.Collect(peers)
	return changed, nil
}

func (f *fakeVTEPFilter) Watch(ctx context.Context, ready, changed func()) error {
	f.changed = changed
	ready()
	<-ctx.Done()
	return nil
}

func (f *fakeVTEPFilter) Remove() error {
	if f.removeErr != nil {
		return f.removeErr
	}
	f.removed, f.port = true, 0
	return nil
}

func (f *fakeVTEPFilter) Close() error { f.closed = true; return nil }

// vtepLoop drives a keeper as the node's loop does: it steps when it is woken and when the alarm goes off.
type vtepLoop struct {
	vtepKeeper
	fake     *fakeVTEPFilter
	openErr  error
	attached vtepFilter
	out      bytes.Buffer
	woken    chan struct{}
	port     uint16
	wanted   bool
}

var vtepPeers = []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}

func newVTEPLoop(t *testing.T) *vtepLoop {
	l := &vtepLoop{fake: &fakeVTEPFilter{}, woken: make(chan struct{}, 1), port: 8472, wanted: true}
	l.vtepKeeper = vtepKeeper{
		log:    textLog(&l.out),
		open:   func() (vtepFilter, error) { return l.fake, l.openErr },
		attach: func(f vtepFilter) error { l.attached = f; return nil },
		start:  func(f func()) { go f() },
		wake: func() {
			select {
			case l.woken <- struct{}{}:
			default:
			}
		},
	}
	return l
}

// run runs the loop for d.
func (l *vtepLoop) run(t *testing.T, d time.Duration) {
	t.Helper()
	end := time.After(d)
	for {
		a := alarm{now: time.Now()}
		l.step(t.Context(), &a, vtepfilter.Config{Port: l.port}, l.wanted, slices.Values(vtepPeers))
		var next <-chan time.Time
		if !a.at.IsZero() {
			next = time.After(time.Until(a.at))
		}
		select {
		case <-l.woken:
		case <-next:
		case <-end:
			return
		}
	}
}

func (l *vtepLoop) lines() []string { return strings.Split(strings.TrimSpace(l.out.String()), "\n") }

// TestVTEPKeeper: the filter is in force and attached, follows a new config, and an external change is repaired and
// logged.
func TestVTEPKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newVTEPLoop(t)
		l.run(t, time.Second)
		if !l.inForce || l.fake.port != 8472 || l.attached != l.fake || !slices.Equal(l.fake.peers, vtepPeers) {
			t.Fatalf("in force %t, %+v, attached %v", l.inForce, l.fake, l.attached)
		}
		if len(l.fake.ensured) != 2 { // the second time for what changed before the watch began
			t.Errorf("%d checks in the first second, want 2", len(l.fake.ensured))
		}
		l.port = 4789
		l.run(t, time.Second)
		if l.fake.port != 4789 {
			t.Errorf("port %d after a change of the config", l.fake.port)
		}
		l.fake.broken = true
		l.fake.changed()
		l.run(t, time.Second)
		if l.fake.broken {
			t.Error("an external change was not repaired")
		}
		l.fake.broken = true
		l.run(t, time.Second)
		if !l.fake.broken {
			t.Error("it noticed a change that was not reported")
		}
		l.resync()
		l.run(t, time.Second)
		if l.fake.broken {
			t.Error("a resync did not repair the filter")
		}
		want := []string{
			"level=info msg=VTEP filter in force: VXLAN packets are accepted from peers only allow=[] changed=true port=8472",
			"level=warning msg=repaired external changes to the VTEP filter",
		}
		if got := l.lines(); !slices.Equal(got, want) {
			t.Errorf("logged\n%s\nwant\n%s", l.out.String(), strings.Join(want, "\n"))
		}
		if err := l.close(); err != nil || !l.fake.closed || l.fake.removed {
			t.Errorf("close: %v, %+v", err, l.fake)
		}
	})
}

// TestVTEPConflict: a process that keeps changing the filter is met with growing pauses and one log line a minute.
func TestVTEPConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newVTEPLoop(t)
		l.run(t, time.Second)
		before := len(l.fake.ensured)
		for range 2900 {
			l.fake.broken = true
			l.fake.changed()
			l.run(t, 20*time.Millisecond)
		}
		repairs := len(l.fake.ensured) - before
		if repairs < 60 || repairs > 180 { // a pause of half a second, and fewer of less
			t.Errorf("%d repairs in a minute", repairs)
		}
		if got := strings.Count(l.out.String(), "repaired external changes"); got != 1 {
			t.Errorf("logged %d times in a minute, want once", got)
		}
		l.run(t, time.Second)
		if l.fake.broken {
			t.Error("not repaired after the conflict ended")
		}
	})
}

// TestVTEPFailure: a failure is retried with backoff, and logged once a minute.
func TestVTEPFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newVTEPLoop(t)
		l.fake.err = errors.New("no buffer space")
		l.run(t, 59*time.Second)
		if n := len(l.fake.ensured); n < 100 || n > 140 {
			t.Errorf("%d attempts in a minute, want about two a second", n)
		}
		if want := []string{"level=error msg=cannot apply the VTEP filter; retrying error=no buffer space"}; !slices.Equal(l.lines(), want) {
			t.Errorf("logged\n%s\nwant\n%s", l.out.String(), want)
		}
		l.fake.err = nil
		l.run(t, time.Second)
		if !l.inForce || l.attached != l.fake {
			t.Error("not in force after the failure was over")
		}
	})
}

// TestVTEPUnsupported: where there is no nf_tables the node runs without the filter, and says so once if one is wanted.
func TestVTEPUnsupported(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newVTEPLoop(t)
			l.wanted, l.openErr = wanted, vtepfilter.ErrUnsupported
			l.run(t, time.Hour)
			if l.inForce || !l.done || l.attached != nil || len(l.fake.ensured) != 0 {
				t.Errorf("wanted %t: in force %t, done %t", wanted, l.inForce, l.done)
			}
			if got := strings.Count(l.out.String(), "VTEP filter unavailable"); (got == 1) != wanted || len(l.lines()) != 1 {
				t.Errorf("wanted %t: logged\n%s", wanted, l.out.String())
			}
		})
	}
}

// TestVTEPNotWanted: the filter of an earlier run is removed. When the network gets a backend that needs one, it is made
// again, and watched.
func TestVTEPNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newVTEPLoop(t)
		l.wanted = false
		l.run(t, time.Minute)
		if !l.fake.removed || !l.fake.closed || l.inForce || len(l.fake.ensured) != 0 {
			t.Errorf("%+v", l.fake)
		}
		l.wanted, l.fake = true, &fakeVTEPFilter{}
		l.run(t, time.Minute)
		before := len(l.fake.ensured)
		if !l.inForce || l.attached != l.fake || before == 0 || l.fake.changed == nil {
			t.Fatalf("in force %t, %+v", l.inForce, l.fake)
		}
		l.fake.broken = true
		l.fake.changed()
		l.run(t, time.Minute)
		if len(l.fake.ensured) == before {
			t.Error("an external change is not repaired")
		}
		l.wanted = false
		l.run(t, time.Minute)
		if !l.fake.removed || l.inForce || l.unwatch != nil {
			t.Errorf("in force %t, %+v", l.inForce, l.fake)
		}
	})
}

// TestVTEPKeeperLeftovers: a filter that is not attached, or one of an earlier run that cannot be removed, drops packets
// of new peers. It is tried again, and is a problem until then.
func TestVTEPKeeperLeftovers(t *testing.T) {
	refused := errors.New("refused")
	for name, x := range map[string]func(l *vtepLoop, err error){
		"a filter of an earlier run under another name": func(l *vtepLoop, err error) {
			l.retire = func() error { return err }
		},
		"a filter that is not attached": func(l *vtepLoop, err error) {
			l.attach = func(f vtepFilter) error { l.attached = f; return err }
		},
		"a filter that is not enabled": func(l *vtepLoop, err error) {
			l.wanted, l.fake.removeErr = false, err
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newVTEPLoop(t)
			x(l, refused)
			l.run(t, 10*time.Second)
			if p := l.problems(time.Now()); len(p) != 1 || !strings.Contains(string(p[0].Text), "refused") ||
				time.Since(p[0].Since) < 9*time.Second || p[0].Warning {
				t.Errorf("%s: problems %+v", name, p)
			}
			x(l, nil)
			l.run(t, 10*time.Second)
			if p := l.problems(time.Now()); len(p) > 0 || l.wanted && l.attached != l.fake || !l.wanted && !l.fake.removed {
				t.Errorf("%s: in the end problems %+v, attached %v, removed %t", name, p, l.attached, l.fake.removed)
			}
			if n := len(l.lines()); n > 3 {
				t.Errorf("%s: %d lines:\n%s", name, n, l.out.String())
			}
		})
	}
}
