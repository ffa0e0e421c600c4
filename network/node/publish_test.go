package node

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

func ownFile(last byte) (f subnetfile.File) {
	f.MTU = 1450
	f.Networks[subnet.IPv4] = []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}
	f.Subnets[subnet.IPv4] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, last, 1}), 24)
	return f
}

// TestPublisher: files are written once, again when they change or another process touches them, and readiness is
// reported once.
func TestPublisher(t *testing.T) {
	var out bytes.Buffer
	ready := 0
	path := filepath.Join(t.TempDir(), "subnet.env")
	p := publisher{path: path, journal: newJournal(textLog(&out)), onReady: func() { ready++ }}
	now := time.Unix(1e9, 0)
	a := alarm{now: now}
	read := func() string {
		data, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	noLease := subnetfile.Status{Reason: "no lease"}
	p.statusFile(&a, noLease)
	if _, err := os.Stat(subnetfile.StatusPath(path)); err == nil {
		t.Error("a status before there is a subnet file")
	}
	first := ownFile(7)
	p.subnetFile(&a, first)
	p.statusFile(&a, noLease)
	if read() != string(first.Marshal()) || !p.ready || ready != 1 {
		t.Fatalf("the file is %q, ready %d times", read(), ready)
	}
	if s, err := subnetfile.ReadStatus(path); err != nil || s != noLease {
		t.Errorf("status %+v, %v", s, err)
	}
	if got := previousSubnets(path, textLog(&out)); got[subnet.IPv4].String() != "10.5.7.0/24" {
		t.Errorf("the next run reads %v", got)
	}
	if cause := p.check(now); cause != "" || p.content == "" {
		t.Errorf("found %q in an untouched file", cause)
	}
	for i, x := range []struct {
		harm  func() error
		cause string
	}{
		{func() error { return os.Remove(path) }, "missing"},
		{func() error { return os.WriteFile(path, []byte("FLANNEL_MTU=1\n"), 0o644) }, "changed"},
	} {
		if err := x.harm(); err != nil {
			t.Fatal(err)
		}
		if cause := p.check(now.Add(time.Duration(i) * time.Hour)); cause != x.cause {
			t.Errorf("found %q, want %q", cause, x.cause)
		}
		a = alarm{now: now.Add(time.Duration(i) * time.Hour)}
		p.subnetFile(&a, first)
		if read() != string(first.Marshal()) {
			t.Errorf("%s: not written again: %q", x.cause, read())
		}
	}
	if err := os.Remove(subnetfile.StatusPath(path)); err != nil {
		t.Fatal(err)
	}
	p.check(now)
	p.statusFile(&a, noLease)
	if s, err := subnetfile.ReadStatus(path); err != nil || s != noLease {
		t.Errorf("status %+v, %v after it was removed", s, err)
	}
	p.statusFile(&a, subnetfile.Status{Usable: true})
	if s, err := subnetfile.ReadStatus(path); err != nil || !s.Usable {
		t.Errorf("status %+v, %v", s, err)
	}
	second := ownFile(8)
	a = alarm{now: now.Add(5 * time.Hour)}
	p.subnetFile(&a, second)
	if read() != string(second.Marshal()) || ready != 1 || !a.at.IsZero() {
		t.Errorf("the file is %q, ready %d times, alarm %v", read(), ready, a.at)
	}
	if got := strings.Count(out.String(), "repaired external change to the subnet file"); got != 2 {
		t.Errorf("%d repairs logged, want 2:\n%s", got, out.String())
	}
}

// TestPublisherPolicies: before the first subnet file of a run, the status file says whether and where pods wait for the
// rules of network policies, and all else of it stays as an earlier run wrote it.
func TestPublisherPolicies(t *testing.T) {
	var out bytes.Buffer
	const socket = "/run/selvage/selvaged.sock"
	limited := subnetfile.Status{Limited: true, Reason: "of an earlier run"}
	held := func(s subnetfile.Status) subnetfile.Status { s.PolicySocket = socket; return s }
	usable := subnetfile.Status{Usable: true}
	for _, x := range []struct{ before, written, want subnetfile.Status }{
		{usable, held(subnetfile.Status{Reason: "no lease"}), held(usable)}, // without a file
		{limited, held(usable), held(limited)},
		{held(limited), held(usable), held(limited)},
		{held(limited), usable, limited}, // policies are not enforced any more
		{held(usable), subnetfile.Status{Reason: "no lease"}, usable},
	} {
		p := publisher{path: filepath.Join(t.TempDir(), "subnet.env"), journal: newJournal(textLog(&out))}
		if err := subnetfile.WriteStatus(p.path, x.before); err != nil {
			t.Fatal(err)
		}
		a := alarm{now: time.Unix(1e9, 0)}
		for range 2 {
			p.statusFile(&a, x.written)
			if s, err := subnetfile.ReadStatus(p.path); err != nil || s != x.want || p.status != x.want {
				t.Errorf("%+v before, writing %+v: the file is %+v, %v", x.before, x.written, s, err)
			}
		}
		p.subnetFile(&a, ownFile(7))
		p.statusFile(&a, x.written)
		if s, err := subnetfile.ReadStatus(p.path); err != nil || s != x.written {
			t.Errorf("after the subnet file, the status is %+v, %v", s, err)
		}
	}
	// A damaged file is replaced if pods have to wait.
	p := publisher{path: filepath.Join(t.TempDir(), "subnet.env"), journal: newJournal(textLog(&out))}
	if err := os.WriteFile(subnetfile.StatusPath(p.path), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := alarm{now: time.Unix(1e9, 0)}
	p.statusFile(&a, usable)
	if _, err := subnetfile.ReadStatus(p.path); err == nil {
		t.Error("a status before there is a subnet file")
	}
	p.statusFile(&a, held(usable))
	if s, err := subnetfile.ReadStatus(p.path); err != nil || s != held(usable) {
		t.Errorf("status %+v, %v", s, err)
	}
}

// TestPublisherFails: a file that cannot be written is a problem until it can, and is tried again.
func TestPublisherFails(t *testing.T) {
	var out bytes.Buffer
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(dir, []byte("x"), 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	p := publisher{path: filepath.Join(dir, "subnet.env"), journal: newJournal(textLog(&out))}
	a := alarm{now: time.Unix(1e9, 0)}
	p.subnetFile(&a, ownFile(7))
	if want := a.now.Add(publishBackoff.Min); p.ready || !a.at.Equal(want) || p.journal.open[topicSubnetFile].err == nil {
		t.Fatalf("ready %t, alarm %v, problems %v", p.ready, a.at, p.journal.open)
	}
	p.ready = true // the directory was lost later
	p.statusFile(&a, subnetfile.Status{Reason: "no lease"})
	if p.journal.open[topicStatusFile].err == nil {
		t.Errorf("problems %v", p.journal.open)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	a = alarm{now: a.at}
	p.subnetFile(&a, ownFile(7))
	p.statusFile(&a, subnetfile.Status{Reason: "no lease"})
	if len(p.journal.open) != 0 {
		t.Errorf("problems %v after a success", p.journal.open)
	}
}

func TestPluginStatus(t *testing.T) {
	for _, x := range []struct{ outOfSync, leased, usable, limited bool }{
		{false, true, true, false}, {false, false, false, false}, {true, true, false, true}, {true, false, false, true},
	} {
		if s := pluginStatus(x.outOfSync, x.leased); s.Usable != x.usable || s.Limited != x.limited || s.Usable != (s.Reason == "") {
			t.Errorf("out of sync %t, leased %t: %+v", x.outOfSync, x.leased, s)
		}
	}
}

func TestPreviousSubnets(t *testing.T) {
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "subnet.env")
	if got := previousSubnets(path, textLog(&out)); got != noSubnets || out.Len() != 0 {
		t.Errorf("%v without a file, logged %s", got, out.String())
	}
	if err := os.WriteFile(path, []byte("FLANNEL_SUBNET=nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := previousSubnets(path, textLog(&out)); got != noSubnets || !strings.Contains(out.String(), "ignoring the subnet file") {
		t.Errorf("%v from nonsense, logged %s", got, out.String())
	}
}

// TestWatchFiles: a change is reported, and the watch ends with its context.
func TestWatchFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	changed, done := make(chan struct{}, 100), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		watchFiles(ctx, textLog(&bytes.Buffer{}), time.Hour, func() { changed <- struct{}{} }, path)
		close(done)
	}()
	<-changed // the watch has begun
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-changed
	cancel()
	<-done
}
