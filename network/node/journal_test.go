package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// logged returns the lines that a journal has written since the last call.
func logged(out *bytes.Buffer) []string {
	text := strings.TrimSpace(out.String())
	out.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// wantLogged compares the lines since the last call with texts that each has to contain.
func wantLogged(t *testing.T, what string, out *bytes.Buffer, want ...string) {
	t.Helper()
	got := logged(out)
	if len(got) != len(want) {
		t.Errorf("%s: logged\n%s\nwant %d lines", what, strings.Join(got, "\n"), len(want))
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%s: logged %q, want %q", what, got[i], want[i])
		}
	}
}

func newTestJournal() (*journal, *bytes.Buffer, time.Time) {
	out := &bytes.Buffer{}
	return newJournal(textLog(out)), out, time.Unix(1e9, 0)
}

// TestJournalProblem: an error of a topic is logged once, another one as well, and the end.
func TestJournalProblem(t *testing.T) {
	j, out, _ := newTestJournal()
	j.problem(topicSubnetFile, errors.New("no space"))
	since := j.open[topicSubnetFile].since
	j.problem(topicSubnetFile, errors.New("no space"))
	wantLogged(t, "the first", out, "no space")
	j.problem(topicSubnetFile, errors.New("no permission"))
	wantLogged(t, "another error", out, "no permission")
	if p := j.open[topicSubnetFile]; !p.since.Equal(since) || p.text != "no permission" {
		t.Errorf("the problem is %+v, want since the first error", p)
	}
	j.resolved(topicSubnetFile)
	j.resolved(topicSubnetFile)
	wantLogged(t, "the end", out, "subnet file: problem resolved")
	j.warn("MTU is small")
	j.warn("MTU is small")
	j.warn("")
	j.warn("MTU is small")
	wantLogged(t, "a warning", out, "MTU is small", "MTU is small")
}

// TestJournalRepairs: the first repair is logged at once, and those of the next seconds together, for which the loop is woken.
func TestJournalRepairs(t *testing.T) {
	j, out, now := newTestJournal()
	repair := func(n int, by string) network.Result {
		return network.Result{Repaired: n, Repairs: []network.Repair{{Kind: "route", Count: n, By: by}}}
	}
	j.pass(now, repair(1, ""), nil)
	wantLogged(t, "the first", out, "repaired external changes to managed kernel entries repaired=1")
	j.pass(now.Add(time.Second), repair(2, "ip (42)"), nil)
	j.pass(now.Add(2*time.Second), repair(3, "ip (43)"), nil)
	wantLogged(t, "soon after", out)
	a := alarm{now: now.Add(2 * time.Second)}
	if j.wake(&a); !a.at.Equal(now.Add(repairsLogged)) {
		t.Errorf("the alarm is at %v, want %v after the first", a.at, repairsLogged)
	}
	j.pass(a.at, network.Result{}, nil)
	wantLogged(t, "after the period", out, "by=[ip (42) ip (43)] repaired=5")
	a = alarm{now: a.at}
	if j.wake(&a); !a.at.IsZero() {
		t.Errorf("the alarm is at %v with nothing to log", a.at)
	}
}

// TestJournalSettings: changed kernel settings are logged, except those of our own devices.
func TestJournalSettings(t *testing.T) {
	j, out, now := newTestJournal()
	j.pass(now, network.Result{Sysctls: []string{"net/ipv4/conf/flannel.1/forwarding=1"}}, []string{"flannel.1"})
	wantLogged(t, "our own device", out)
	j.pass(now, network.Result{Sysctls: []string{"net/ipv4/conf/flannel.1/forwarding=1", "net/ipv4/ip_forward=1"}}, []string{"flannel.1"})
	wantLogged(t, "the node", out, "set=[net/ipv4/ip_forward=1]")
}

// TestJournalConflicts: each conflict is logged once a minute, with both values, and forgotten when it is over.
func TestJournalConflicts(t *testing.T) {
	j, out, now := newTestJournal()
	r := network.Result{Conflicts: []network.Conflict{{Kind: "sysctl", Key: "net/ipv4/ip_forward", Want: "1", Have: "0", By: "ip (42)"}}}
	for range 60 {
		j.pass(now, r, nil)
		now = now.Add(time.Second)
	}
	wantLogged(t, "a minute", out, "another process keeps changing sysctl net/ipv4/ip_forward; repairing it with backoff, find that process; last changed by ip (42) have=0 want=1")
	j.pass(now, r, nil)
	if got := logged(out); len(got) != 1 || len(j.conflicts) != 1 {
		t.Errorf("logged %q after a minute, conflicts %v", got, j.conflicts)
	}
	j.pass(now.Add(3*conflictLogged), network.Result{}, nil)
	if len(j.conflicts) != 0 {
		t.Errorf("conflicts %v long after the last", j.conflicts)
	}
}

// TestJournalFailures: of each kind the first failure is logged, once a minute; one that a device coming or going explains only if it
// lasts; and the end of all.
func TestJournalFailures(t *testing.T) {
	j, out, now := newTestJournal()
	failed := func(err error, keys ...string) (r network.Result) {
		for _, k := range keys {
			r.Failures = append(r.Failures, network.Failure{Kind: "route", Key: k, Err: err})
		}
		return r
	}
	j.pass(now, failed(unix.EPERM, "10.5.1.0/24", "10.5.2.0/24", "10.5.3.0/24"), nil)
	wantLogged(t, "the first", out, "route 10.5.1.0/24: operation not permitted (and 2 more of its kind)")
	j.pass(now.Add(59*time.Second), failed(unix.EPERM, "10.5.1.0/24"), nil)
	wantLogged(t, "within a minute", out)
	j.pass(now.Add(time.Minute), failed(unix.EPERM, "10.5.2.0/24"), nil)
	wantLogged(t, "after a minute", out, "route 10.5.2.0/24: operation not permitted")
	if f := j.failures["route"]; !f.since.Equal(now) || f.key != "10.5.2.0/24" || !errors.Is(f.err, unix.EPERM) {
		t.Errorf("the failure is %+v", f)
	}
	j.pass(now.Add(time.Minute), network.Result{}, nil)
	wantLogged(t, "the end", out, "route: problem resolved")

	now = now.Add(time.Hour)
	j.pass(now, failed(unix.ENODEV, "10.5.1.0/24"), nil)
	j.pass(now.Add(transientTime/2), network.Result{}, nil)
	wantLogged(t, "a transient failure", out)
	now = now.Add(time.Hour)
	j.pass(now, failed(unix.ENODEV, "10.5.1.0/24"), nil)
	j.pass(now.Add(transientTime), failed(unix.ENODEV, "10.5.1.0/24"), nil)
	wantLogged(t, "one that lasts", out, "no such device")

	j.pass(now, network.Result{Failures: []network.Failure{{Kind: "sysctl", Key: "net/ipv4/conf/eth0/forwarding", Err: fs.ErrNotExist}}}, nil)
	wantLogged(t, "a setting of an uplink that is gone", out)
}

// TestJournalRejectedLeases: each rejected lease is named once a reason, and only manyLeases in a period.
func TestJournalRejectedLeases(t *testing.T) {
	j, out, now := newTestJournal()
	total := func() int { return 99 }
	for range 2 {
		j.rejectedLease("10.5.1.0-24", errors.New("no MAC"), total, now)
	}
	j.rejectedLease("10.5.1.0-24", errors.New("no public IP"), total, now)
	j.rejectedLease("10.5.1.0-24", nil, total, now)
	j.rejectedLease("10.5.1.0-24", errors.New("no public IP"), total, now)
	wantLogged(t, "one lease", out, "lease rejected error=no MAC lease=10.5.1.0-24", "error=no public IP", "error=no public IP")
	for i := range 50 {
		j.rejectedLease(fmt.Sprintf("10.5.2.%d-32", i), errors.New("too long"), total, now)
	}
	if got := logged(out); len(got) != manyLeases-3+1 || !strings.Contains(got[len(got)-1], "quarantined=99") {
		t.Errorf("logged %d lines, the last %q", len(got), got[len(got)-1])
	}
	j.rejectedLease("10.5.3.0-24", errors.New("no MAC"), total, now.Add(leasesLogged))
	wantLogged(t, "the next period", out, "10.5.3.0-24")
}

// TestJournalSharedIPs: leases that share a public IP are named once, shortened if they are many.
func TestJournalSharedIPs(t *testing.T) {
	j, out, now := newTestJournal()
	keys := []string{"10.5.1.0-24", "10.5.2.0-24"}
	all := func(yield func(netip.Addr, []string) bool) { yield(ownIP, keys) }
	j.sharedPublicIPs(all, now)
	j.sharedPublicIPs(all, now)
	wantLogged(t, "two", out, "several leases share one public IP")
	for i := range manyLeases {
		keys = append(keys, fmt.Sprintf("10.5.%d.0-24", 3+i))
	}
	j.sharedPublicIPs(all, now)
	wantLogged(t, "many", out, "and 2 more")
	for i := range 20 {
		keys = []string{"10.5.1.0-24", fmt.Sprintf("10.5.%d.0-24", 100+i)}
		j.sharedPublicIPs(all, now)
	}
	if got := logged(out); len(got) != manyLeases-2+1 || !strings.Contains(got[len(got)-1], "not listed for now") {
		t.Errorf("logged %d lines, the last %q", len(got), got[len(got)-1])
	}
}

// TestJournalChurn: the first change among the peers is logged at once, and what follows in ever fewer lines.
func TestJournalChurn(t *testing.T) {
	j, out, now := newTestJournal()
	total := 0
	for end := now.Add(time.Minute); now.Before(end); now = now.Add(100 * time.Millisecond) {
		j.churn.count(1, 0, 0)
		total++
		j.peersChanged(now)
	}
	if got := logged(out); len(got) < 4 || len(got) > 8 || !strings.Contains(got[0], "added=1 changed=0 removed=0") {
		t.Errorf("logged in a minute of changes:\n%s", strings.Join(got, "\n"))
	}
	a := alarm{now: now}
	if j.wake(&a); a.at.IsZero() {
		t.Fatal("no alarm for the changes that were not logged")
	}
	j.peersChanged(a.at)
	if got := logged(out); len(got) != 1 || j.churn.any() {
		t.Errorf("logged %q at the alarm", got)
	}
	j.peersChanged(a.at.Add(time.Hour))
	wantLogged(t, "at rest", out)
	j.churn.count(0, 1, 0)
	j.peersChanged(a.at.Add(time.Hour))
	wantLogged(t, "after a rest", out, "removed=1")
}

// TestJournalShadows: each foreign route is named once, manyShadows in a period, and the end of all.
func TestJournalShadows(t *testing.T) {
	j, out, now := newTestJournal()
	describe := func(x network.Shadow) string { return describeShadow(x, "node2") }
	var all []network.Shadow
	for i := range manyShadows + 2 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 25)
		all = append(all, network.Shadow{Key: network.RouteKey{Prefix: p}, Of: netip.PrefixFrom(p.Addr(), 24), Owner: "x"})
	}
	j.shadowed(all[:1], describe, now)
	j.shadowed(all[:1], describe, now.Add(time.Second))
	wantLogged(t, "one", out, "takes precedence over the overlay's route to node2, 10.5.0.0/24: remove it unless it is intended")
	if since := j.shadows.since[all[0]]; !since.Equal(now) {
		t.Errorf("known since %v, want %v", since, now)
	}
	j.shadowed(all, describe, now.Add(2*time.Second))
	if got := logged(out); len(got) != manyShadows || !strings.Contains(got[manyShadows-1], "not listed for now") {
		t.Errorf("logged %q", got)
	}
	j.shadowed(nil, describe, now)
	j.shadowed(nil, describe, now)
	wantLogged(t, "none any more", out, "no foreign route takes precedence")
	if got := describeShadow(all[0], ""); !strings.Contains(got, "to another node") {
		t.Errorf("%q for a node without a name", got)
	}
}

// TestRejectedAfterSnapshot: a snapshot names all that are rejected, and a deleted lease is forgotten.
func TestRejectedAfterSnapshot(t *testing.T) {
	j, out, now := newTestJournal()
	p := newPeersOn(t)
	p.event(subnet.Changed, []subnet.Lease{leaseOf(otherID, "10.9.7.0/24", 7)}, nil, 0)
	key := leaseOf(otherID, "10.9.7.0/24", 7).Key()
	j.rejectedLeases(subnet.Event{Type: subnet.Synced}, p.all, now)
	wantLogged(t, "a snapshot", out, "lease rejected")
	j.rejectedLeases(subnet.Event{Type: subnet.Changed, Deleted: []string{key}}, p.all, now)
	if len(j.rejected.reasons) != 0 {
		t.Errorf("reasons %v after it was deleted", j.rejected.reasons)
	}
}
