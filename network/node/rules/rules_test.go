package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/filter/blocking"
)

// fakeFilter holds the policy it was given. A test reads its fields after synctest.Wait.
type fakeFilter struct {
	mu       sync.Mutex
	held     filter.Policy
	broken   bool // another process has changed the rules
	err      error
	status   filter.Status
	notified bool
	watchErr error
	checks   []time.Time
	changed  func()
	activity func()
	closed   bool
}

func (f *fakeFilter) Ensure(_ context.Context, p filter.Policy) (changed []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks = append(f.checks, time.Now())
	f.status.Failed = f.err
	if f.err != nil {
		return nil, f.err
	}
	if f.broken || !reflect.DeepEqual(f.held, p) {
		changed = []string{"rules"}
	}
	f.held, f.broken = p, false
	return changed, nil
}

func (f *fakeFilter) Watch(ctx context.Context, ready, changed, activity func()) error {
	if f.watchErr != nil {
		return f.watchErr
	}
	f.mu.Lock()
	f.changed, f.activity = changed, activity
	f.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (f *fakeFilter) Status() filter.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *fakeFilter) Notified() bool { return f.notified }
func (f *fakeFilter) Close() error   { f.closed = true; return nil }

// external is a change by another process, which the kernel reports.
func (f *fakeFilter) external() {
	f.mu.Lock()
	f.broken = true
	activity, changed := f.activity, f.changed
	f.mu.Unlock()
	activity()
	changed()
}

// succeed ends the failure of Ensure.
func (f *fakeFilter) succeed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = nil
}

func logTo(out *bytes.Buffer) logrus.FieldLogger {
	log := logrus.New()
	log.Out = out
	log.Formatter = &logrus.TextFormatter{DisableTimestamp: true, DisableQuote: true}
	return log
}

// running starts a keeper of f with a first policy, and returns it with its log and how often it woke its caller.
func running(t *testing.T, f *fakeFilter, resync time.Duration) (k *Keeper, log *bytes.Buffer, woken *int) {
	log, woken = &bytes.Buffer{}, new(int)
	k = New(f, logTo(log), resync, func() { *woken++ })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if !f.closed {
			t.Error("the filter was not closed")
		}
	})
	return k, log, woken
}

var (
	first  = filter.Policy{Forward: true}
	second = filter.Policy{Forward: true, Masquerade: true}
)

// TestKeep: the first policy is applied, the caller is woken once, and a new policy and an external change are applied.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFilter{notified: true, status: filter.Status{Mode: filter.NFTables, Why: "supported"}}
		k, log, woken := running(t, f, time.Hour)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(f.checks) != 0 || k.InForce() {
			t.Fatal("it did something before a policy was set")
		}
		k.Set(first)
		time.Sleep(time.Second)
		synctest.Wait()
		if !reflect.DeepEqual(f.held, first) || !k.InForce() || *woken != 1 {
			t.Fatalf("holds %+v, in force %t, woken %d times", f.held, k.InForce(), *woken)
		}
		k.Set(second)
		k.Set(first)
		k.Set(second)
		time.Sleep(time.Second)
		synctest.Wait()
		if !reflect.DeepEqual(f.held, second) {
			t.Errorf("holds %+v, want the last policy that was set", f.held)
		}
		checks := len(f.checks)
		k.Set(second)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(f.checks) != checks {
			t.Error("the same policy led to a check")
		}
		f.external()
		time.Sleep(time.Second)
		synctest.Wait()
		if f.broken {
			t.Error("an external change was not repaired")
		}
		if *woken != 1 {
			t.Errorf("woken %d times, want once", *woken)
		}
		want := []string{
			"level=info msg=packet filter: nftables (supported)", "level=info msg=packet filter rules installed changed=[rules]",
			"level=info msg=packet filter rules installed changed=[rules]",
			"level=warning msg=repaired external changes to packet filter rules changed=[rules]",
		}
		if got := strings.Split(strings.TrimSpace(log.String()), "\n"); !reflect.DeepEqual(got, want) {
			t.Errorf("logged\n%s\nwant\n%s", log, strings.Join(want, "\n"))
		}
	})
}

// TestChanged: whoever asks for it is called after each change of the rules, and not after other checks.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, changes := &fakeFilter{notified: true}, 0
		k := New(f, logTo(&bytes.Buffer{}), time.Minute, func() {})
		k.Changed = func() { changes++ }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { k.Run(ctx); close(done) }()
		k.Set(first)
		for want, change := range []func(){func() {}, f.external, func() { k.Set(second) }} {
			change()
			time.Sleep(time.Hour)
			synctest.Wait()
			if changes != want+1 {
				t.Errorf("after %d changes it was called %d times", want+1, changes)
			}
		}
		cancel()
		<-done
	})
}

// TestPause: however often another process changes the rules, checks have a pause between them.
func TestPause(t *testing.T) {
	for mode, pause := range map[filter.Mode]time.Duration{filter.NFTables: nftablesPause, filter.IPTables: iptablesPause} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeFilter{notified: true, status: filter.Status{Mode: mode}}
			k, _, _ := running(t, f, time.Hour)
			k.Set(first)
			synctest.Wait()
			for range 100 {
				f.external()
				time.Sleep(pause / 10)
				synctest.Wait()
			}
			if len(f.checks) < 10 {
				t.Errorf("%s: only %d checks", mode, len(f.checks))
			}
			for i := range f.checks[1:] {
				if d := f.checks[i+1].Sub(f.checks[i]); d < pause {
					t.Errorf("%s: %v between two checks, want at least %v", mode, d, pause)
				}
			}
		})
	}
}

// TestResync counts the checks of an undisturbed keeper in ten times idleRounds.
func TestResync(t *testing.T) {
	const resync = time.Minute
	for _, x := range []struct {
		name  string
		fake  *fakeFilter
		every int // rounds
	}{
		{"all changes are reported", &fakeFilter{notified: true}, idleRounds},
		{"some changes are not reported", &fakeFilter{}, 1},
		{"no change is reported", &fakeFilter{notified: true, watchErr: errors.New("no permission")}, 1},
		{"the last check failed", &fakeFilter{notified: true, err: errors.New("no such module")}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := x.fake
			k, _, woken := running(t, f, resync)
			k.Set(first)
			time.Sleep(10*idleRounds*resync + time.Second)
			synctest.Wait()
			if got, want := len(f.checks), 1+10*idleRounds/x.every; got != want {
				t.Errorf("%s: %d checks, want %d", x.name, got, want)
			}
			if inForce := f.err == nil; k.InForce() != inForce || (*woken == 1) != inForce {
				t.Errorf("%s: in force %t, woken %d times", x.name, k.InForce(), *woken)
			}
		})
	}
}

// halting is a filter that changes something with each check, and then fails, in another mode each time.
type halting struct {
	fakeFilter
	n int
}

func (f *halting) Ensure(ctx context.Context, p filter.Policy) ([]string, error) {
	f.mu.Lock()
	watched := f.changed != nil
	f.mu.Unlock()
	if watched {
		f.external()
	}
	f.n++
	f.status.Mode = filter.NFTables
	if f.n%2 == 0 {
		f.status.Mode = filter.IPTables
	}
	return []string{fmt.Sprint("rule ", f.n)}, fmt.Errorf("error %d", f.n)
}

// TestLinesOfAnHour: rules that another process undoes all the time, and that cannot be made as a whole, are logged
// seldom.
func TestLinesOfAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &halting{fakeFilter: fakeFilter{notified: true}}
		var log bytes.Buffer
		k := New(f, logTo(&log), time.Minute, func() {})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		k.Set(first)
		k.Run(ctx)
		if lines := strings.Count(log.String(), "\n"); f.n < 1000 || lines == 0 || lines > 200 {
			t.Errorf("%d lines of %d checks", lines, f.n)
		}
	})
}

// TestActivity: if others change the packet filter anywhere, the next resync checks.
func TestActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFilter{notified: true}
		k, _, _ := running(t, f, time.Minute)
		k.Set(first)
		time.Sleep(time.Second)
		synctest.Wait()
		f.activity()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(f.checks) != 2 {
			t.Errorf("%d checks, want one more after a minute", len(f.checks))
		}
	})
}

// TestFailure: a failure is logged once, and so is its end.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFilter{notified: true, err: errors.New("no such module"), status: filter.Status{Mode: filter.IPTables, Why: "asked for"}}
		k, log, _ := running(t, f, time.Minute)
		k.Set(first)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		f.succeed()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want := "level=info msg=packet filter: iptables (asked for)\n" +
			"level=error msg=cannot apply packet filter rules; retrying error=no such module\n" +
			"level=info msg=packet filter rules installed changed=[rules]\n" +
			"level=info msg=packet filter rules applied again\n"
		if log.String() != want {
			t.Errorf("logged\n%s\nwant\n%s", log, want)
		}
	})
}

// TestLogStatus logs what is new in a status, once, and its end.
func TestLogStatus(t *testing.T) {
	var out bytes.Buffer
	k := New(&fakeFilter{}, logTo(&out), time.Minute, nil)
	here := func(change func(*filter.Status)) filter.Status {
		s := filter.Status{Mode: filter.NFTables, Why: "supported"}
		change(&s)
		return s
	}
	drop := func(table string) blocking.Drop {
		return blocking.Drop{Table: table, Chain: "x", Commands: []string{"undo " + table}}
	}
	info, warning, problem := "level=info msg=packet filter: ", "level=warning msg=packet filter: ", "level=error msg=packet filter: "
	for _, step := range []struct {
		what   string
		status filter.Status
		want   []string // lines
	}{
		{"the mode", here(func(*filter.Status) {}), []string{info + "nftables (supported)"}},
		{"the same", here(func(*filter.Status) {}), nil},
		{"another reason", here(func(s *filter.Status) { s.Why = "asked for" }), []string{info + "nftables (asked for)"}},
		{"two who drop", here(func(s *filter.Status) { s.Drops = []blocking.Drop{drop("a"), drop("b")} }),
			[]string{info + "nftables (supported)", warning + drop("a").Report(), warning + drop("b").Report()}},
		{"one of them, and another", here(func(s *filter.Status) { s.Drops = []blocking.Drop{drop("b"), drop("c")} }),
			[]string{warning + drop("c").Report()}},
		{"none any more", here(func(*filter.Status) {}), []string{info + "problem resolved: " + drop("b").Report() + "; " + drop("c").Report()}},
		{"another mode than asked for", filter.Status{Mode: filter.IPTables, Why: "unsupported", Unmet: &filter.Unmet{Text: "no kernel for it", Advice: "boot another"}},
			[]string{info + "iptables (unsupported)", problem + "no kernel for it (boot another)"}},
		{"leftovers, and missing permission", filter.Status{
			Mode: filter.IPTables, Why: "unsupported", Unmet: &filter.Unmet{Text: "no kernel for it", Advice: "boot another"}, Leftover: []string{"x is left"}, Unseen: errors.New("no permission"),
		}, []string{warning + "no permission", warning + "x is left"}},
	} {
		out.Reset()
		k.logStatus(step.status)
		want := strings.Join(step.want, "\n")
		if want != "" {
			want += "\n"
		}
		if out.String() != want {
			t.Errorf("%s: logged\n%s\nwant\n%s", step.what, out.String(), want)
		}
	}
}
