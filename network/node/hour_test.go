package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/cache"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// hour calls f for a simulated hour: ten times a second, and after five minutes once a second, which takes less time.
func hour(t *testing.T, f func(i int, now time.Time)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		began, pause := time.Now(), 100*time.Millisecond
		for i := 0; time.Since(began) < time.Hour; i++ {
			if time.Since(began) == 5*time.Minute {
				pause = time.Second
			}
			f(i, time.Now())
			time.Sleep(pause)
		}
	})
}

// TestLinesOfAnHour: whatever another process does many times a second, each thing that the journal logs costs a bounded
// number of lines in an hour.
func TestLinesOfAnHour(t *testing.T) {
	const most = 80
	var out bytes.Buffer
	for name, f := range map[string]func(j *journal, i int, now time.Time){
		"a problem that changes": func(j *journal, i int, _ time.Time) {
			j.problem(topicConfig, fmt.Errorf("error %d", i))
		},
		"a problem that comes and goes": func(j *journal, i int, _ time.Time) {
			j.problem(topicSubnetFile, errors.New("no space"))
			j.resolved(topicSubnetFile)
		},
		"the subnet file": func(j *journal, _ int, now time.Time) { j.fileRepaired("subnet.env", "changed", now) },
		"kernel settings": func(j *journal, i int, now time.Time) {
			j.pass(now, network.Result{Sysctls: []string{fmt.Sprint("net/ipv4/ip_forward=", i)}}, nil)
		},
		"repairs": func(j *journal, i int, now time.Time) {
			j.pass(now, network.Result{Repaired: 1, Repairs: []network.Repair{{By: fmt.Sprint("pid ", i)}}}, nil)
		},
		"one conflict": func(j *journal, i int, now time.Time) {
			j.pass(now, network.Result{Conflicts: []network.Conflict{{Kind: "route", Key: "10.5.1.0/24"}}}, nil)
		},
		"many conflicts": func(j *journal, i int, now time.Time) {
			j.pass(now, network.Result{Conflicts: []network.Conflict{{Kind: "route", Key: fmt.Sprint(i)}}}, nil)
		},
		"a failure": func(j *journal, i int, now time.Time) {
			j.pass(now, network.Result{Failures: []network.Failure{{Kind: "route", Key: fmt.Sprint(i), Err: unix.EPERM}}}, nil)
		},
		"a failure that comes and goes": func(j *journal, i int, now time.Time) {
			j.pass(now, network.Result{Failures: []network.Failure{{Kind: "route", Key: "x", Err: unix.EPERM}}}, nil)
			j.pass(now, network.Result{}, nil)
		},
		"rejected leases": func(j *journal, i int, now time.Time) {
			j.rejectedLease(fmt.Sprint(i), errors.New("malformed"), func() int { return i }, now)
		},
		"shared public IPs": func(j *journal, i int, now time.Time) {
			var all iter.Seq2[netip.Addr, []string] = func(yield func(netip.Addr, []string) bool) {
				yield(ownIP, []string{fmt.Sprint(i), "other"})
			}
			j.sharedPublicIPs(all, now)
		},
		"paths": func(j *journal, i int, now time.Time) {
			j.pathsChanged([]pathProblem{{topic: topicRouting, text: fmt.Sprint(i)}}, now)
			j.pathsChanged(nil, now)
		},
		"a warning of the backend": func(j *journal, i int, _ time.Time) { j.warn(fmt.Sprint(i)) },
		"unknown keys": func(j *journal, i int, _ time.Time) {
			j.unknownKeys([]subnet.UnknownKey{{Key: fmt.Sprint(i)}})
		},
		"peers": func(j *journal, _ int, now time.Time) {
			j.churn.count(1, 0, 0)
			j.peersChanged(now)
		},
		"foreign routes": func(j *journal, i int, now time.Time) {
			shadow := network.Shadow{Of: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}
			j.shadowed([]network.Shadow{shadow}, func(x network.Shadow) string { return fmt.Sprint(x.Of) }, now)
			j.shadowed(nil, nil, now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			out.Reset()
			j := newJournal(textLog(&out))
			hour(t, func(i int, now time.Time) { f(j, i, now) })
			if n := strings.Count(out.String(), "\n"); n == 0 || n > most {
				t.Errorf("%d lines, want 1 to %d", n, most)
			}
		})
	}
}

// TestFilesOfAnHour: a file that another process keeps changing, or that cannot be written, is written again with
// backoff.
func TestFilesOfAnHour(t *testing.T) {
	const most = 150
	var out bytes.Buffer
	dir := t.TempDir()
	path := filepath.Join(dir, "subnet.env")
	for name, harm := range map[string]func() error{
		"removed": func() error { return errors.Join(os.RemoveAll(path), os.RemoveAll(subnetfile.StatusPath(path))) },
		"changed": func() error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.WriteFile(subnetfile.StatusPath(path), nil, 0o600))
		},
	} {
		out.Reset()
		p := publisher{path: path, journal: newJournal(textLog(&out))}
		writes := 0
		step := func(now time.Time) {
			before := p.content
			a := alarm{now: now}
			p.subnetFile(&a, ownFile(7))
			p.statusFile(&a, subnetfile.Status{Usable: true})
			if p.content != before {
				writes++
			}
		}
		hour(t, func(i int, now time.Time) {
			if i%50 == 0 { // real files: every five seconds will do
				if err := harm(); err != nil && writes > 0 {
					t.Fatal(err)
				}
				p.check(now)
			}
			step(now)
		})
		if lines := strings.Count(out.String(), "\n"); writes < 10 || writes > most || lines > 20 {
			t.Errorf("%s: %d writes and %d lines", name, writes, lines)
		}
	}
}

// TestUnwatchableFilesOfAnHour: files that cannot be watched are tried again seldom, and that is logged seldom.
func TestUnwatchableFilesOfAnHour(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		watchFiles(ctx, textLog(&out), time.Minute, func() {}, filepath.Join(file, "dir", "subnet.env"))
		if n := strings.Count(out.String(), "\n"); n == 0 || n > 10 {
			t.Errorf("%d lines:\n%s", n, out.String())
		}
	})
}

// TestCacheOfAnHour: cached leases that change all the time and cannot be written are logged seldom, and tried again
// every [cacheInterval].
func TestCacheOfAnHour(t *testing.T) {
	for name, fails := range map[string]func(n int) bool{
		"always":           func(int) bool { return true },
		"every other time": func(n int) bool { return n%2 == 0 },
		"never":            func(int) bool { return false },
	} {
		var out bytes.Buffer
		writes := 0
		c := newLeaseCache(t.TempDir(), false, 24*time.Hour, time.Now(), newJournal(textLog(&out)), func(func()) {})
		hour(t, func(_ int, now time.Time) {
			c.changed(now)
			own := ownLease{final: true, expires: true, at: now.Add(24 * time.Hour)}
			if c.step(&alarm{now: now}, own, func() cache.Snapshot { return cache.Snapshot{} }) {
				writes++
				var err error
				if fails(writes) {
					err = fmt.Errorf("error %d", writes)
				}
				c.writeEnded(err, now)
			}
		})
		lines := strings.Count(out.String(), "\n")
		if writes < 100 || writes > int(time.Hour/cacheInterval)+1 || lines > 80 || (lines > 0) != fails(2) {
			t.Errorf("it fails %s: %d writes and %d lines", name, writes, lines)
		}
	}
}

// TestPodProblemsOfAnHour: problems with pods that are added and removed are logged seldom.
func TestPodProblemsOfAnHour(t *testing.T) {
	var out bytes.Buffer
	n := &node{Options: Options{Log: textLog(&out)}, tables: network.NewTables()}
	n.journal = newJournal(n.Log)
	hour(t, func(i int, now time.Time) {
		n.ownSide.damaged = []error{fmt.Errorf("record %d is damaged", i)}
		n.podProblems(now, true)
	})
	if n := strings.Count(out.String(), "\n"); n == 0 || n > 80 {
		t.Errorf("%d lines", n)
	}
}

// flapping is a VTEP filter that another process changes before each check.
type flapping struct{ ensured int }

func (f *flapping) Ensure(vtepfilter.Config, iter.Seq[netip.Addr]) (bool, error) {
	if f.ensured++; f.ensured%2 == 0 {
		return false, fmt.Errorf("error %d", f.ensured)
	}
	return true, nil
}

func (f *flapping) Watch(ctx context.Context, ready, _ func()) error { <-ctx.Done(); return nil }
func (f *flapping) Remove() error                                    { return nil }
func (f *flapping) Close() error                                     { return nil }

// TestVTEPFilterOfAnHour: repairs and failures of the VTEP filter are logged seldom.
func TestVTEPFilterOfAnHour(t *testing.T) {
	var out bytes.Buffer
	v := vtepKeeper{
		log: textLog(&out), open: func() (vtepFilter, error) { return &flapping{}, nil },
		attach: func(vtepFilter) error { return nil }, start: func(func()) {}, wake: func() {},
	}
	hour(t, func(_ int, now time.Time) {
		v.resync()
		v.step(context.Background(), &alarm{now: now}, vtepfilter.Config{}, true, func(func(netip.Addr) bool) {})
	})
	if n := strings.Count(out.String(), "\n"); n < 2 || n > 20 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

// TestUplinkOfAnHour: an uplink that changes all the time is followed more and more slowly.
func TestUplinkOfAnHour(t *testing.T) {
	var out bytes.Buffer
	u := uplinkFollower{journal: newJournal(textLog(&out))}
	current, applied := uplink.Choice{Name: "eth0", Index: 2, MTU: 1500}, 0
	hour(t, func(i int, now time.Time) {
		next := current
		if i%4 < 2 { // for 200 ms
			next.MTU = 10500 - current.MTU
		}
		got, changed := u.step(&alarm{now: now}, true, current, func() (uplink.Choice, error) { return next, nil })
		if changed {
			current = got
			applied++
		}
	})
	if applied < 5 || applied > 150 {
		t.Errorf("%d changes applied", applied)
	}
}

// TestKernelNotificationsFail: while the kernel's notifications are not received, that is a problem since the first
// failure, and one line in the log; a subscription that begins again ends it.
func TestKernelNotificationsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		n := &node{Options: Options{Log: textLog(&out)}}
		ctx, cancel := context.WithCancel(t.Context())
		var works atomic.Bool
		go n.watchKernel(ctx, func(ctx context.Context, begun func()) error {
			if !works.Load() {
				return errors.New("no buffer")
			}
			begun()
			<-ctx.Done()
			return nil
		})
		time.Sleep(30 * time.Second)
		p := n.watchProblems(time.Now())
		if len(p) != 1 || p[0].Warning || !strings.Contains(string(p[0].Text), "no buffer") ||
			time.Since(p[0].Since) != 30*time.Second {
			t.Errorf("problems %+v", p)
		}
		works.Store(true)
		time.Sleep(2 * time.Minute)
		if p := n.watchProblems(time.Now()); len(p) > 0 {
			t.Errorf("problems %+v after it began again", p)
		}
		cancel()
		synctest.Wait()
		if lines := strings.Count(out.String(), "\n"); lines != 1 {
			t.Errorf("logged\n%s", out.String())
		}
	})
}
