package reach

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// names returns the names of n leases.
func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("10.%d.%d.0-24", 5+i/256, i%256))
	}
	return all
}

// probedBy counts by how many others each node is probed, and returns how many each probes.
func probedBy(all []string) (in map[string]int, out []int) {
	in = map[string]int{}
	for _, self := range all {
		chosen := Choose(self, func(yield func(string) bool) {
			for _, name := range all {
				if name != self && !yield(name) {
					return
				}
			}
		})
		out = append(out, len(chosen))
		for _, c := range chosen {
			in[c]++
		}
	}
	return in, out
}

// TestCluster: in clusters of any size, each node probes a few others and is probed by a few.
func TestCluster(t *testing.T) {
	for _, n := range []int{2, 3, 5, 6, 10, 100, 1000} {
		all := names(n)
		in, out := probedBy(all)
		want := min(Degree, n-1)
		for _, x := range out {
			if x != want {
				t.Errorf("%d nodes: one probes %d, want %d", n, x, want)
			}
		}
		least, most, few := n, 0, 0
		for _, name := range all {
			least, most = min(least, in[name]), max(most, in[name])
			if in[name] < 2 {
				few++
			}
		}
		t.Logf("%d nodes: each is probed by %d to %d", n, least, most)
		if least < min(2, n-1) || most > 2*Degree {
			t.Errorf("%d nodes: each is probed by %d to %d others, %d by fewer than 2", n, least, most, few)
		}
	}
}

// TestLeave: when a node leaves, only those that probed it choose again.
func TestLeave(t *testing.T) {
	all := names(200)
	choose := func(self string, without string) []string {
		return Choose(self, func(yield func(string) bool) {
			for _, name := range all {
				if name != self && name != without && !yield(name) {
					return
				}
			}
		})
	}
	changed := 0
	for _, self := range all[1:] {
		before, after := choose(self, ""), choose(self, all[0])
		if !slices.Equal(before, after) {
			changed++
			if !slices.Contains(before, all[0]) {
				t.Errorf("%s chose %q, and %q after %s left", self, before, after, all[0])
			}
		}
	}
	if changed == 0 || changed > 2*Degree {
		t.Errorf("%d nodes chose again", changed)
	}
}

func BenchmarkChoose(b *testing.B) {
	all := names(5000)
	for b.Loop() {
		Choose("self", slices.Values(all))
	}
}

const interval = 10 * time.Second

// network answers probes, as a cluster would.
type network struct {
	t    *testing.T
	s    *Schedule
	now  time.Time
	down map[netip.Addr]bool
	sent map[netip.Addr]int
	woke int // how often there was something to do
}

func newNetwork(t *testing.T) *network {
	return &network{t: t, s: NewSchedule(interval), now: time.Unix(1e9, 0), down: map[netip.Addr]bool{}, sent: map[netip.Addr]int{}}
}

// run lets time pass.
func (n *network) run(d time.Duration) {
	for end := n.now.Add(d); ; {
		at := n.s.Next()
		if at.IsZero() || at.After(end) {
			n.now = end
			return
		}
		if at.Before(n.now) {
			n.t.Fatal("time goes backwards")
		}
		n.now = at
		n.woke++
		for _, p := range n.s.Due(n.now) {
			n.sent[p.Addr]++
			if !n.down[p.Addr] {
				n.s.Answered(p.Family, p.Seq, p.Addr, n.now.Add(time.Millisecond))
			}
		}
	}
}

func (n *network) expect(name string, f subnet.Family, want State) Result {
	n.t.Helper()
	r := n.s.Results(f)[name]
	if r.State != want {
		n.t.Errorf("%s, %s: %+v, want state %d", name, f, r, want)
	}
	return r
}

// peer returns a peer whose overlay address ends in n, and one behind it.
func peer(n byte) Peer {
	p := Peer{Name: fmt.Sprint(n)}
	for _, f := range subnet.Families() {
		a := [...]netip.Addr{netip.AddrFrom4([4]byte{10, 5, n, 0}), netip.AddrFrom16([16]byte{0: 0xfd, 7: n})}[f]
		s, _ := a.Prefix([...]int{24, 64}[f])
		p.Paths[f] = Path{
			Targets: [2]Target{{Addr: a}, {Addr: subnet.LastAddr(s).Prev(), Hops: 1}}, Subnet: s, PublicIP: netip.AddrFrom4([4]byte{192, 0, 2, n}),
		}
	}
	return p
}

func TestSchedule(t *testing.T) {
	n := newNetwork(t)
	a, b := peer(1), peer(2)
	b.Paths[subnet.IPv6] = Path{}
	n.s.Set([]Peer{a, b}, n.now)
	n.expect("1", subnet.IPv4, Unknown)
	n.run(time.Second)
	r := n.expect("1", subnet.IPv6, Reachable)
	n.expect("2", subnet.IPv4, Reachable)
	if r.RTT != time.Millisecond || len(n.s.Results(subnet.IPv6)) != 1 {
		t.Errorf("%+v, %v", r, n.s.Results(subnet.IPv6))
	}
	n.run(10 * time.Minute)
	first := a.Paths[0].Targets[0].Addr
	if got := n.sent[first]; got < 55 || got > 67 {
		t.Errorf("%d probes in 10 minutes", got)
	}

	// One fails: it is probed faster, and is unreachable after four misses.
	cut := n.now
	for _, x := range a.Paths[subnet.IPv4].Targets {
		n.down[x.Addr] = true
	}
	n.run(11*time.Second + Misses*Timeout)
	r = n.expect("1", subnet.IPv4, Unreachable)
	n.expect("1", subnet.IPv6, Reachable)
	if r.Since.Before(cut) || r.Since.After(cut.Add(11*time.Second)) {
		t.Errorf("unreachable since %s after the cut", r.Since.Sub(cut))
	}
	before := n.s.Totals()[0]
	n.run(10 * time.Minute)
	if sent := n.s.Totals()[0].Sent - before.Sent; sent > 140 {
		t.Errorf("%d probes to two peers in 10 minutes", sent)
	}
	clear(n.down)
	n.run(12 * time.Second)
	if r = n.expect("1", subnet.IPv4, Reachable); r.Since.Before(n.now.Add(-12 * time.Second)) {
		t.Errorf("%+v", r)
	}

	// It leaves, and returns with another address: nothing is known of it.
	n.s.Set([]Peer{b}, n.now)
	if len(n.s.Results(subnet.IPv4)) != 1 {
		t.Errorf("%v", n.s.Results(subnet.IPv4))
	}
	n.s.Set([]Peer{a, b}, n.now)
	n.expect("1", subnet.IPv4, Unknown)
	n.expect("2", subnet.IPv4, Reachable)
	n.run(time.Second)
	n.expect("1", subnet.IPv4, Reachable)
	a.Paths[0].PublicIP = a.Paths[0].PublicIP.Next()
	n.s.Set([]Peer{a, b}, n.now)
	n.expect("1", subnet.IPv4, Unknown)
	n.expect("1", subnet.IPv6, Reachable)
	n.s.Set(nil, n.now)
	if !n.s.Next().IsZero() {
		t.Error("something is due without peers")
	}
}

// TestFilteredEcho: a peer that does not answer echo requests answers that the hop limit is exceeded, and is asked for
// that from then on.
// TestTogether: probes that are due at about the same time are sent at once, each path once an interval all the same.
func TestTogether(t *testing.T) {
	n := newNetwork(t)
	n.s.Set([]Peer{peer(1), peer(2), peer(3), peer(4)}, n.now)
	n.run(time.Minute)
	gone := peer(3).Paths[subnet.IPv4].Targets
	n.down[gone[0].Addr], n.down[gone[1].Addr] = true, true // its probes leave the others' rhythm
	n.run(time.Minute)
	clear(n.sent)
	n.woke = 0
	n.run(time.Hour)
	if least, most := 360, 2*420; n.woke < least || n.woke > most { // a timeout is one too
		t.Errorf("woken %d times in an hour, want %d to %d", n.woke, least, most)
	}
	n.sent[gone[0].Addr] += n.sent[gone[1].Addr] // tried in turn
	delete(n.sent, gone[1].Addr)
	for a, sent := range n.sent {
		if sent < 360 || sent > 420 {
			t.Errorf("%s was probed %d times in an hour", a, sent)
		}
	}
}

func TestFilteredEcho(t *testing.T) {
	n := newNetwork(t)
	a := peer(1)
	first, second := a.Paths[0].Targets[0].Addr, a.Paths[0].Targets[1].Addr
	n.down[first] = true
	n.s.Set([]Peer{a}, n.now)
	n.run(time.Minute)
	n.expect("1", subnet.IPv4, Reachable)
	if n.sent[first] != 1 || n.sent[second] < 5 {
		t.Errorf("%d and %d probes", n.sent[first], n.sent[second])
	}
}

// TestForgedAnswers: an answer by another host, a late or an unasked one changes nothing.
func TestForgedAnswers(t *testing.T) {
	n := newNetwork(t)
	a := peer(1)
	n.s.Set([]Peer{a}, n.now)
	p := n.s.Due(n.now)[0]
	n.s.Answered(p.Family, p.Seq+1, p.Addr, n.now)
	n.s.Answered(1-p.Family, p.Seq, p.Addr, n.now)
	n.s.Answered(p.Family, p.Seq, netip.MustParseAddr("198.51.100.1"), n.now)
	n.expect("1", p.Family, Unknown)
	n.s.Due(n.now.Add(Timeout))
	n.s.Answered(p.Family, p.Seq, p.Addr, n.now)
	n.expect("1", p.Family, Unknown)
}

// TestSendErrors: a probe that cannot be sent is a miss, and is not repeated at once.
func TestSendErrors(t *testing.T) {
	n := newNetwork(t)
	n.s.Set([]Peer{peer(1)}, n.now)
	for i := range Misses {
		for _, p := range n.s.Due(n.now) {
			n.s.Failed(p.Family, p.Seq, "network is unreachable", n.now)
		}
		if again := n.s.Due(n.now); len(again) != 0 {
			t.Fatalf("sent again at once after %d failures", i+1)
		}
		n.now = n.now.Add(Timeout)
	}
	if r := n.expect("1", subnet.IPv4, Unreachable); r.Error != "network is unreachable" || !r.Since.Equal(time.Unix(1e9, 0)) {
		t.Errorf("%+v", r)
	}
}

func TestAllUnreachable(t *testing.T) {
	at := time.Unix(1e9, 0)
	bad, later, good := Result{State: Unreachable, Since: at}, Result{State: Unreachable, Since: at.Add(1)}, Result{State: Reachable, Since: at}
	for _, x := range []struct {
		results []Result
		since   time.Time
		all     bool
	}{
		{nil, time.Time{}, false}, {[]Result{bad}, at, true}, {[]Result{bad, later}, at.Add(1), true},
		{[]Result{bad, good}, time.Time{}, false}, {[]Result{bad, {}}, time.Time{}, false},
	} {
		if since, all := AllUnreachable(x.results); all != x.all || !since.Equal(x.since) {
			t.Errorf("%v: %v, %v", x.results, since, all)
		}
	}
}

// TestLossy: a path is lossy once probes were lost three times among the latest 32, and until 32 in a row are answered.
// A lost probe, two of them, and an outage are no such loss.
func TestLossy(t *testing.T) {
	n := newNetwork(t)
	a := peer(1)
	a.Paths[subnet.IPv6] = Path{}
	addr := a.Paths[subnet.IPv4].Targets[0].Addr
	a.Paths[subnet.IPv4].Targets[1] = Target{}
	n.s.Set([]Peer{a}, n.now)
	lossy := func(what string, want bool) {
		t.Helper()
		if r := n.s.Results(subnet.IPv4)["1"]; r.Lossy != want || r.Lossy == r.LossySince.IsZero() {
			t.Errorf("%s: %+v, want lossy: %t", what, r, want)
		}
	}
	lose := func(probes int) { // so many, and then one is answered
		n.down[addr] = true
		for before := n.s.Totals()[subnet.IPv4].Lost; n.s.Totals()[subnet.IPv4].Lost < before+uint64(probes); {
			n.run(time.Second)
		}
		clear(n.down)
		n.run(12 * time.Second)
	}
	n.run(time.Minute)
	lossy("none is lost", false)
	lose(1)
	lossy("one is lost", false)
	lose(20)
	lossy("an outage", false)
	n.run(10 * time.Minute)
	before := n.s.Totals()[subnet.IPv4].Lost
	lose(2)
	lose(2)
	lossy("two times", false)
	began := n.now
	lose(1)
	lossy("three times", true)
	r := n.s.Results(subnet.IPv4)["1"]
	if lost := n.s.Totals()[subnet.IPv4].Lost - before; r.Lost != int(lost) || r.LossySince.Before(began) || r.State != Reachable {
		t.Errorf("%+v, want %d lost and lossy since %s at the earliest", r, lost, began)
	}
	n.run(4 * time.Minute)
	lossy("not yet 32 in a row", true)
	n.run(2 * time.Minute)
	lossy("more than 32 in a row", false)
}

// TestLossyAtRandom: a path with a loss of 10 % is taken for lossy in minutes, and one with 0.1 % hardly ever.
func TestLossyAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	hours := func(loss float64, n int) (lossy time.Duration, found int) {
		for range n {
			p := progress{}
			now := time.Unix(0, 0)
			first := true
			for now.Before(time.Unix(0, 0).Add(time.Hour)) {
				now = now.Add(interval)
				lost := uint32(0)
				if random.Float64() < loss {
					lost = 1
				}
				if p.note(lost, now); p.Lossy {
					lossy += interval
					if first {
						found++
					}
					first = false
				}
			}
		}
		return lossy / time.Duration(n), found
	}
	if lossy, found := hours(0.1, 1000); found < 990 || lossy < 40*time.Minute {
		t.Errorf("with a loss of 10 %%: found in %d of 1000 hours, lossy %s in an hour", found, lossy)
	}
	if _, found := hours(0.001, 1000); found > 2 {
		t.Errorf("with a loss of 0.1 %%: found in %d of 1000 hours", found)
	}
}
