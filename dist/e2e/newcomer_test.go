package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// newcomer is a pod that sends from the first moment on, by sockets that are there before it has an address. It is
// allowed to reach friends, and denied to reach strangers.
type newcomer struct {
	name  string
	place *place
	first [2]*net.UDPConn // by family: for new connections, at once when ADD has returned
	early [2]*net.UDPConn // for flows that begin before that
	sink  *sink           // what reaches it
	round atomic.Uint64   // of the flows: the number in their packets
	added time.Duration   // when ADD returned, after the start of the test
	stop  chan struct{}
	group sync.WaitGroup

	mu         sync.Mutex
	addedRound uint64    // that in which ADD returned; 0: it has not
	answered   [2]int    // packets to strangers: of rounds before ADD returned, and after
	last       [2]uint64 // the last round with an answer, of a stranger and of a friend
	failures   []error
}

// place is where newcomers are.
type place struct {
	strangers, friends []*lab.Endpoint // of the node of the newcomers, and of another one
	heard              map[*lab.Endpoint]*sink
	began              time.Time
	next               atomic.Pointer[[2]netip.Addr] // the addresses that the next pod gets
}

// peers are the names of the pods that make a place.
func peers() []string { return []string{"stranger1", "stranger2", "friend1", "friend2"} }

// newPlace returns a place of pods that add adds.
func newPlace(t *testing.T, add func(i int, name string) *lab.Pod) *place {
	t.Helper()
	x := &place{heard: map[*lab.Endpoint]*sink{}, began: time.Now()}
	for i, name := range peers() {
		pod := add(i, name)
		x.heard[pod.Endpoint] = listen(t, pod.Endpoint)
		if strings.HasPrefix(name, "friend") {
			x.friends = append(x.friends, pod.Endpoint)
		} else {
			x.strangers = append(x.strangers, pod.Endpoint)
		}
	}
	return x
}

// expect notes the addresses of the pod after this one: host-local gives them in order.
func (x *place) expect(pod *lab.Pod) {
	x.next.Store(&[2]netip.Addr{pod.Addr(subnet.IPv4).Next(), pod.Addr(subnet.IPv6).Next()})
}

// add adds a pod to the node of the place, which sends at once, and returns when what is allowed has passed, and what
// is denied does not pass any more.
func (x *place) add(ctx context.Context, t *testing.T, l *lab.Lab, name string, before func()) *newcomer {
	t.Helper()
	n := &newcomer{name: name, place: x, stop: make(chan struct{})}
	pod, err := l.AddPodWith(ctx, l.Nodes()[0], lab.PodOptions{
		Name: name, Prepare: func(do func(func() error) error) (func(), error) { before(); return n.greet, n.begin(t, do) },
	})
	if err != nil {
		t.Fatal(err)
	}
	x.expect(pod)
	n.befriend(ctx, t)
	n.end()
	if err := pod.Do(forgetNeighbours); err != nil {
		t.Fatal(err)
	}
	return n
}

// forgetNeighbours removes the neighbour entries of a namespace: the kernel limits those of all namespaces together.
func forgetNeighbours() error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.NeighList(0, family)
		if err != nil {
			return err
		}
		for _, x := range list {
			if err := netlink.NeighDel(&x); err != nil && x.State != netlink.NUD_NOARP {
				return err
			}
		}
	}
	return nil
}

// begin opens the sockets of a new pod, and has its flows begin.
func (n *newcomer) begin(t *testing.T, do func(func() error) error) error {
	n.sink = listenAt(t, do, netip.Addr{})
	err := do(func() (err error) {
		for f, network := range [...]string{subnet.IPv4: "udp4", subnet.IPv6: "udp6"} {
			var errs [2]error
			n.first[f], errs[0] = net.ListenUDP(network, nil)
			n.early[f], errs[1] = net.ListenUDP(network, nil)
			err = errors.Join(err, errs[0], errs[1])
		}
		return err
	})
	if err != nil {
		return err
	}
	n.group.Go(n.flow)
	for _, c := range n.early {
		n.group.Go(func() { n.listen(c) })
	}
	return nil
}

// flow sends to the echo servers of all peers until stop is closed: one flow for each peer and family, which begins as
// soon as the pod has an address.
func (n *newcomer) flow() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		number := binary.BigEndian.AppendUint64(nil, n.round.Add(1))
		for _, to := range slices.Concat(n.place.strangers, n.place.friends) {
			for f, c := range n.early {
				_, _ = c.WriteToUDPAddrPort(number, to.Echo(subnet.Family(f))) // fails without an address
			}
		}
		select {
		case <-n.stop:
			return
		case <-tick.C:
		}
	}
}

// listen takes in the answers on the flows.
func (n *newcomer) listen(c *net.UDPConn) {
	b := make([]byte, 128)
	for {
		size, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return // it was closed
		}
		if size < 8 {
			continue
		}
		round, who := binary.BigEndian.Uint64(b), 1
		for _, s := range n.place.strangers {
			if a := from.Addr().Unmap(); s.Addr(subnet.FamilyOf(a)) == a {
				who = 0
			}
		}
		n.mu.Lock()
		n.last[who] = max(n.last[who], round)
		if late := n.addedRound > 0 && round > n.addedRound; who == 0 && late {
			n.answered[1]++
		} else if who == 0 {
			n.answered[0]++
		}
		n.mu.Unlock()
	}
}

// greet sends the first packets of new connections.
func (n *newcomer) greet() {
	n.mu.Lock()
	n.addedRound, n.added = n.round.Load(), time.Since(n.place.began)
	n.mu.Unlock()
	for _, to := range slices.Concat(n.place.strangers, n.place.friends) {
		n.send(to, "first")
	}
}

// send sends a datagram to a peer in each family.
func (n *newcomer) send(to *lab.Endpoint, what string) {
	for f, c := range n.first {
		f := subnet.Family(f)
		_, err := c.WriteToUDPAddrPort([]byte(n.says(what, f)), netip.AddrPortFrom(to.Addr(f), sinkPort))
		if err != nil {
			n.mu.Lock()
			n.failures = append(n.failures, err)
			n.mu.Unlock()
		}
	}
}

func (n *newcomer) says(what string, f subnet.Family) string {
	return fmt.Sprint(n.name, " ", what, " ", f)
}

// befriend waits until the friends have heard of the pod, on new connections, and answer on flows to which strangers do
// not answer any more.
func (n *newcomer) befriend(ctx context.Context, t *testing.T) {
	t.Helper()
	waitFor(ctx, t, n.name+" reaches its friends alone", func() error {
		var errs []error
		for _, to := range n.place.friends {
			for _, f := range subnet.Families() {
				if s := n.place.heard[to]; s.count(n.says("first", f))+s.count(n.says("again", f)) == 0 {
					n.send(to, "again")
					errs = append(errs, fmt.Errorf("%s has not heard of it over %s", to.Name(), f))
				}
			}
		}
		const enough = 50 // rounds without an answer of a stranger
		n.mu.Lock()
		defer n.mu.Unlock()
		if from := max(n.last[0], n.addedRound); n.last[1] < from+enough {
			errs = append(errs, fmt.Errorf("round %d: a stranger has answered in %d, a friend in %d", n.round.Load(), n.last[0], n.last[1]))
		}
		return errors.Join(errs...)
	})
}

// end ends the flows.
func (n *newcomer) end() {
	close(n.stop)
	for f := range n.early {
		n.early[f].Close()
		n.first[f].Close()
	}
	n.group.Wait()
}

// stalk sends from an endpoint to the addresses that the next pod gets, until the test ends.
func (x *place) stalk(t *testing.T, from *lab.Endpoint) {
	t.Helper()
	var conn *net.UDPConn
	if err := from.Do(func() (err error) { conn, err = net.ListenUDP("udp", nil); return err }); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			for _, a := range x.next.Load() {
				now := strconv.FormatInt(int64(time.Since(x.began)), 10)
				_, _ = conn.WriteToUDPAddrPort([]byte(now), netip.AddrPortFrom(a, sinkPort))
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done; conn.Close() })
}

// judge fails if anything has passed that is denied.
func (x *place) judge(t *testing.T, all []*newcomer) {
	t.Helper()
	passed := 0
	for _, to := range x.strangers {
		s := x.heard[to]
		s.mu.Lock()
		for what := range s.received {
			if strings.Contains(what, " first ") {
				passed++
				t.Errorf("%s heard of %q, which the policy denies", to.Name(), what)
			}
		}
		s.mu.Unlock()
	}
	heard, answered, lasting := 0, [2]int{}, uint64(0)
	reached := [2]int{} // packets to the new pods, sent before ADD returned, and after
	for _, n := range all {
		for _, err := range n.failures {
			t.Errorf("%s could not send: %v", n.name, err)
		}
		for _, to := range x.friends {
			for _, f := range subnet.Families() {
				heard += x.heard[to].count(n.says("first", f))
			}
		}
		answered[0], answered[1] = answered[0]+n.answered[0], answered[1]+n.answered[1]
		if n.last[0] > n.addedRound {
			lasting = max(lasting, n.last[0]-n.addedRound)
		}
		n.sink.mu.Lock()
		for what, number := range n.sink.received {
			sent, err := strconv.ParseInt(what, 10, 64)
			if late := time.Duration(sent) >= n.added; err != nil || late {
				t.Errorf("%s got %q %d times after ADD, which the policy denies", n.name, what, number)
				reached[1] += number
			} else {
				reached[0] += number
			}
		}
		n.sink.mu.Unlock()
	}
	t.Logf("%d pods began connections when ADD returned: of the first packets, %d of %d that are denied passed, and %d of %d "+
		"that are allowed", len(all), passed, len(all)*len(x.strangers)*2, heard, len(all)*len(x.friends)*2)
	t.Logf("sent before ADD returned: %d packets reached the new pods, and %d of theirs were answered; sent after: %d reached "+
		"them, and %d were answered on connections from before, until those were cut, at most %d packets later",
		reached[0], answered[0], reached[1], answered[1], lasting)
}
