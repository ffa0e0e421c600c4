package paths

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach"
	"github.com/selvage-net/selvage/network/reach/echo"
	"github.com/selvage-net/selvage/subnet"
)

const (
	// checkPause is the shortest time between two checks of the routing. Each takes some 0.2 ms, and much longer if the
	// kernel rejects packets by a table with many routes: the pause is at least ten times as long as the last check.
	checkPause = time.Second
	// openPause is how long after a failure the sockets are opened again.
	openPause = time.Minute
)

// Keeper watches the paths. Its methods are safe for concurrent use, except that Set is for one goroutine.
type Keeper struct {
	interval time.Duration
	log      logrus.FieldLogger
	wake     func()

	desired *Order
	orders  chan Order    // size one: the latest order
	stale   chan struct{} // size one: the kernel's routing may have changed
	answers chan answer
	noted   atomic.Bool // stale was sent, and the routing has not been checked since

	mu     sync.Mutex
	status Status

	// Only Run's goroutine uses what follows.
	order    Order
	ordered  bool // an order has been received
	schedule *reach.Schedule
	sockets  [2]*echo.Socket
	openAt   time.Time // when to open the sockets; zero: they are open, or not needed
	off      status.Reason
	offLog   string    // why, as logged
	checkAt  time.Time // when to check the routing; zero: nothing has changed
	rested   time.Time // no check before that
	lookup   func() (*kernel.Lookup, error)
}

// answer is an answer to a probe.
type answer struct {
	family subnet.Family
	seq    uint16
	from   netip.Addr
	at     time.Time
}

// New returns a keeper that probes each chosen peer once an interval; 0: never. It calls wake, which must not block,
// when the result of a path or the faults have changed.
func New(interval time.Duration, log logrus.FieldLogger, wake func()) *Keeper {
	k := &Keeper{
		interval: interval, log: log, wake: wake,
		orders: make(chan Order, 1), stale: make(chan struct{}, 1), answers: make(chan answer, 64),
		schedule: reach.NewSchedule(max(interval, time.Millisecond)),
		lookup:   kernel.OpenLookup,
	}
	if interval <= 0 {
		k.off = status.ProbesOff
		k.status.Off = k.off
	}
	return k
}

// Set says what to watch from now on. It does not block, and does nothing if o is the order already set.
func (k *Keeper) Set(o Order) {
	if k.desired != nil && reflect.DeepEqual(*k.desired, o) {
		return
	}
	k.desired = &o
	select {
	case <-k.orders: // an older order
	default:
	}
	k.orders <- o
}

// RoutingChanged has the kernel's routing checked again soon. It does not block.
func (k *Keeper) RoutingChanged() {
	if k.noted.Swap(true) {
		return // as a rule, where much changes
	}
	select {
	case k.stale <- struct{}{}:
	default:
	}
}

// Status returns the results. The caller must not change them.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Run watches the paths until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer k.closeSockets()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-k.orders:
			k.take(o, time.Now())
		case <-k.stale:
			if k.checkAt.IsZero() && k.ordered {
				k.checkAt = time.Now()
			}
		case a := <-k.answers:
			k.schedule.Answered(a.family, a.seq, a.from, a.at)
		case <-timer.C:
		}
		k.open(ctx, &receiving)
		k.probe(time.Now())
		k.check(time.Now())
		timer.Reset(max(0, time.Until(k.next())))
	}
}

// next returns when there is something to do without being asked.
func (k *Keeper) next() time.Time {
	next := time.Now().Add(time.Hour)
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if k.off == "" {
		earlier(k.schedule.Next())
	}
	earlier(k.openAt)
	if !k.checkAt.IsZero() {
		earlier(later(k.checkAt, k.rested))
	}
	return next
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// take follows an order.
func (k *Keeper) take(o Order, now time.Time) {
	k.order, k.ordered = o, true
	if k.checkAt.IsZero() {
		k.checkAt = now
	}
	if k.interval <= 0 {
		return
	}
	if k.sockets == [2]*echo.Socket{} && k.openAt.IsZero() {
		k.openAt = now
	}
	k.schedule.Set(o.probed(), now)
}

// probed returns the peers as package reach has them.
func (o Order) probed() (all []reach.Peer) {
	for _, p := range o.Peers {
		one := reach.Peer{Name: p.Key}
		for _, f := range subnet.Families() {
			if x := p.Paths[f]; x.Subnet.IsValid() {
				one.Paths[f] = reach.Path{Targets: o.targets(x), Subnet: x.Subnet, PublicIP: x.PublicIP}
			}
		}
		all = append(all, one)
	}
	return all
}

// targets returns the addresses at which a peer is probed. With tunnels, a node has the first address of its subnet.
// Where its firewall drops echo requests, it answers that the hop limit is exceeded, which happens before FORWARD.
//
// Without tunnels a node may have no address in its subnet: then the address of its pods' bridge is probed, with a hop
// limit that makes it answer even if it has no bridge yet; and, where it drops such packets, its public IP.
func (o Order) targets(p Path) [2]reach.Target {
	if o.Tunnels {
		return [2]reach.Target{{Addr: p.Subnet.Addr()}, {Addr: subnet.LastAddr(p.Subnet).Prev(), Hops: 1}}
	}
	return [2]reach.Target{{Addr: subnet.Gateway(p.Subnet).Addr(), Hops: 1}, {Addr: p.PublicIP}}
}

// open opens the sockets when that is due, and reads them until they are closed.
func (k *Keeper) open(ctx context.Context, receiving *sync.WaitGroup) {
	if k.openAt.IsZero() || time.Now().Before(k.openAt) {
		return
	}
	k.openAt = time.Time{}
	for _, f := range subnet.Families() {
		s, err := echo.Open(ctx, f)
		if err != nil && f == subnet.IPv6 && errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel without IPv6
		}
		if err != nil {
			k.closeSockets()
			k.off, k.openAt = status.NotPermitted, time.Now().Add(openPause)
			if k.offLog != err.Error() {
				k.offLog = err.Error()
				k.log.WithError(err).Warn("other nodes are not probed (silence with --peer-probe-interval=0)")
			}
			k.publish(func(s *Status) { s.Off = k.off })
			return
		}
		k.sockets[f] = s
		receiving.Go(func() {
			s.Receive(func(seq uint16, from netip.Addr, _ int) {
				select {
				case k.answers <- answer{f, seq, from, time.Now()}:
				case <-ctx.Done():
				}
			})
		})
	}
	k.off, k.offLog = "", ""
	k.publish(func(s *Status) { s.Off = "" })
}

func (k *Keeper) closeSockets() {
	for f, s := range k.sockets {
		if s != nil {
			s.Close()
			k.sockets[f] = nil
		}
	}
}

// probe sends the probes that are due, and publishes the results.
func (k *Keeper) probe(now time.Time) {
	if k.off != "" || k.sockets == [2]*echo.Socket{} {
		return
	}
	for _, p := range k.schedule.Due(now) {
		err := error(unix.EAFNOSUPPORT)
		if s := k.sockets[p.Family]; s != nil {
			err = s.Send(p.Addr, p.Hops, p.Seq)
		}
		if err != nil {
			k.schedule.Failed(p.Family, p.Seq, err.Error(), now)
		}
	}
	results := [2]map[string]reach.Result{}
	for _, f := range subnet.Families() {
		results[f] = k.schedule.Results(f)
	}
	k.publish(func(s *Status) { s.Results, s.Totals = results, k.schedule.Totals() })
}

// check asks the kernel about the routing if something may have changed.
func (k *Keeper) check(now time.Time) {
	if k.checkAt.IsZero() || now.Before(k.rested) {
		return
	}
	k.checkAt = time.Time{}
	k.noted.Store(false)
	lookup, err := k.lookup()
	if err == nil {
		defer lookup.Close()
		found, blocked := judge{k.order, lookup, readSetting}.faults()
		k.publish(func(s *Status) {
			s.Faults, s.Blocked = keepTimes(s.Faults, found, now), blocked
			s.Unread, s.Since = nil, time.Time{}
		})
	} else {
		k.checkAt = now
		k.publish(func(s *Status) {
			if s.Unread == nil {
				s.Since = now
			}
			s.Unread = err
		})
	}
	k.rested = now.Add(max(checkPause, 10*time.Since(now)))
}

// keepTimes sets since when each fault has been there.
func keepTimes(before, found []Fault, now time.Time) []Fault {
	for i := range found {
		f := &found[i]
		f.Since = now
		same := func(b Fault) bool { return b.Code == f.Code && b.Family == f.Family }
		if j := slices.IndexFunc(before, same); j >= 0 {
			f.Since = before[j].Since
		}
	}
	return found
}

// publish changes the status, and wakes the loop if something else than a number has changed.
func (k *Keeper) publish(change func(*Status)) {
	k.mu.Lock()
	before := k.status
	change(&k.status)
	changed := before.Off != k.status.Off || !reflect.DeepEqual(before.Faults, k.status.Faults) ||
		!maps.Equal(before.Blocked, k.status.Blocked) || (before.Unread == nil) != (k.status.Unread == nil)
	for _, f := range subnet.Families() {
		same := func(a, b reach.Result) bool { return a.State == b.State && a.Error == b.Error && a.Lossy == b.Lossy }
		changed = changed || !maps.EqualFunc(before.Results[f], k.status.Results[f], same)
	}
	k.mu.Unlock()
	if changed {
		k.wake()
	}
}

func readSetting(path string) string {
	data, _ := os.ReadFile("/proc/sys/" + path) // what is not there says nothing
	return strings.TrimSpace(string(data))
}
