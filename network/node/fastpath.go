package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/filewatch"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// FastPathMode says when a node uses the fast path, see package network/fastpath.
type FastPathMode string

// The modes of the fast path.
const (
	FastPathOff  FastPathMode = "off"  // and remove what an earlier run has left; so is the zero value
	FastPathAuto FastPathMode = "auto" // if it can be used
	FastPathOn   FastPathMode = "on"   // it is a problem if it cannot be used
)

const (
	// fastLife is how long the fast path works after the last sign of life of the daemon, and fastBeat the interval of
	// these.
	fastLife = 30 * time.Second
	fastBeat = 5 * time.Second
	// fastCheck is the interval at which it is read what the kernel does not notify of: programs, their map of peers,
	// settings, and chains of single devices.
	fastCheck = 5 * time.Second
	// liberalCheck is how often beLiberal is read while the programs are loaded. It is also read when it is written,
	// but inotify(7) does not report all writes, see settingFiles, and connections stall until a change is found. A
	// read takes 20 µs, and that much again to wake the process.
	liberalCheck = time.Second
	// fastPeerCheck times the number of peers is the interval at which their map is read, if that is longer than
	// fastCheck: to read one peer takes some 2 µs. A wrong one makes packets slow and has no other effect.
	fastPeerCheck = 10 * time.Millisecond
	// fastRetry is how soon it is tried again to load the programs: a kernel module can be loaded meanwhile.
	fastRetry = time.Minute
)

// beLiberal is the setting without which conntrack takes packets for invalid after others of their connection were
// fast. It stays when the fast path ends, as connections go on.
const beLiberal = "net/netfilter/nf_conntrack_tcp_be_liberal"

// fastPathOwner owns what the fast path needs in the tables, but for peers.
func fastPathOwner() network.Owner { return network.Owner{Name: "fast path", Age: -1} }

// fastPath is the fast path as the loop keeps it. It belongs to the loop's goroutine, but for the atomic fields.
//
// What its programs have learned is void after every change of what the kernel decides by. Such changes are noticed at
// levels: the actual objects in the tables (see followFastPath), the kernel's routing (followRouting), and the packet
// filter, by the kernel's notifications (watchFilter) and by who changes it without one.
type fastPath struct {
	path    atomic.Pointer[fastpath.Path] // nil: it is not open
	flushes atomic.Uint64
	broken  atomic.Bool // a flush failed
	stale   atomic.Bool // settings may have changed

	pins    string          // where; see FastPathPins
	pinned  bool            // it uses them
	results chan fastOpened // size one
	opening bool
	openAt  time.Time // when to try again
	cleared bool      // nothing of an earlier run is left
	left    atomic.Pointer[problem]

	why       fastReason // why it is not in use; no code: it is
	since     time.Time  // since when
	devices   []string   // the VXLAN devices, one for each underlay; none with host-gw
	roles     map[string]fastpath.Role
	obstacles map[string]kernel.Obstacle
	state     network.State // in the tables
	checkAt   time.Time
	peersAt   time.Time         // when to read the map of peers
	liberal   bool              // the setting has been in force
	lasting   time.Duration     // conntrack's timeout of established connections
	ipv6MTU   int               // of the uplink: a router may advertise less than the uplink's MTU; 0: unknown
	configs   []fastpath.Config // of the programs, one for each way to peers
	beatAt    time.Time         // zero: they are stopped, unless inherited
	inherited bool              // the sign of life of an earlier run may be in force
	moves     uint64            // of the tables, at the last flush
}

// fastReason says why the fast path is not in use.
type fastReason struct {
	code status.Reason
	text string
}

// flush makes void what the programs have learned. Any goroutine may call it, after a change of what decides about
// packets was made.
func (f *fastPath) flush() {
	p := f.path.Load()
	if p == nil {
		return
	}
	f.flushes.Add(1)
	if p.Flush() != nil {
		f.broken.Store(true)
	}
}

// usesFastPath reports whether the node is to use the fast path, if it can.
func (o Options) usesFastPath() bool { return o.FastPath == FastPathAuto || o.FastPath == FastPathOn }

// runFastPath runs what the fast path needs beside the loop.
func (n *node) runFastPath(ctx context.Context) {
	if !n.usesFastPath() {
		n.background.Go(func() { n.removeFastPath(ctx) })
		return
	}
	n.background.Go(func() { n.watchFilter(ctx) })
	n.background.Go(func() { n.watchLiberal(ctx) })
}

// watchLiberal has the loop read the settings again once beLiberal is wrong.
func (n *node) watchLiberal(ctx context.Context) {
	filewatch.Keep(ctx, liberalCheck, func() {
		if n.fast.path.Load() != nil && readSysctl(beLiberal) != "1" {
			n.fast.stale.Store(true)
			notify(n.kernelChanged)
		}
	}, settingFiles(beLiberal)...)
}

// watchFilter flushes after every change of nf_tables, whoever has made it. The kernel notifies when the change is in
// force.
func (n *node) watchFilter(ctx context.Context) {
	var logged seldom
	for ctx.Err() == nil {
		err := nft.Watch(ctx, n.fast.flush, n.fast.flush, func([]nft.Event) { n.fast.flush() })
		if err != nil && ctx.Err() == nil && logged.due(time.Now()) {
			n.Log.WithError(err).Warn("cannot watch the packet filter: after changes by another process, packets of " +
				"established connections can be fast for another second")
		}
		sleep(ctx, waitAfterFailure)
	}
}

// followFastPath brings what the fast path needs into the tables.
func (n *node) followFastPath(ctx context.Context, wake *alarm) {
	f := &n.fast
	if !n.usesFastPath() {
		return
	}
	if f.broken.Swap(false) {
		n.closeFastPath()
		f.openAt = wake.now.Add(waitAfterFailure)
	}
	if n.kernel.QueuesStale() {
		f.roles = nil // to be read again
	}
	why := fastReason{status.FastPathBackend, "only the backends vxlan and host-gw have a fast path"}
	f.devices = nil
	for _, l := range n.device.Links {
		if _, is := l.Value.Settings.(network.VXLAN); is {
			f.devices = append(f.devices, l.Key)
		}
	}
	switch {
	case len(f.devices) > 0 || n.sendsDirectly():
		if why = n.openFastPath(wake); why.code == "" {
			why = n.checkFastPath(wake)
		}
	case !f.cleared:
		f.cleared = true
		n.background.Go(func() { n.removeFastPath(ctx) })
	}
	n.fastPathState(why, wake.now)
	n.wantFastPath()
}

// fastPathState notes and logs whether the fast path is in use.
func (n *node) fastPathState(why fastReason, now time.Time) {
	f := &n.fast
	changed := why.code != f.why.code || f.since.IsZero()
	f.why = why
	if !changed {
		return
	}
	f.since = now
	n.journal.few("fast path", now, func() {
		switch log := n.Log.WithField("because", why.code); {
		case why.code == status.FastPathStarting:
		case why.code == "":
			n.Log.WithField("pinned", f.pinned).Info("fast path in use")
		case n.FastPath == FastPathOn:
			log.Error("fast path not in use, packets take the slow path: " + why.text)
		default:
			log.Info("fast path not in use, packets take the slow path: " + why.text)
		}
	})
}

// checkFastPath reads what the kernel does not notify of, and finds what fast packets would pass by. It says why the
// fast path cannot be used.
func (n *node) checkFastPath(wake *alarm) fastReason {
	f := &n.fast
	if f.stale.Swap(false) || !wake.now.Before(f.checkAt) {
		f.checkAt, f.roles = wake.now.Add(fastCheck), nil
		err := n.kernel.ReadFastPath()
		if err == nil && !wake.now.Before(f.peersAt) {
			err = n.kernel.ReadFastPeers()
			count := n.tables.FastPeers.Counts().Present
			f.peersAt = wake.now.Add(max(fastCheck, time.Duration(count)*fastPeerCheck))
		}
		if err != nil {
			f.broken.Store(true)
			notify(n.kernelChanged)
			return fastReason{status.FastPathFailed, err.Error()}
		}
		n.kernel.ReadSettings()
		seconds, _ := strconv.Atoi(readSysctl("net/netfilter/nf_conntrack_tcp_timeout_established"))
		f.lasting = time.Duration(seconds) * time.Second
		f.ipv6MTU, _ = strconv.Atoi(readSysctl("net/ipv6/conf/" + n.uplink.Name + "/mtu"))
	}
	wake.set(f.checkAt)
	roles := n.fastRoles()
	switch {
	case maps.Equal(roles, f.roles):
	case f.roles != nil && within(roles, f.roles): // nothing to look at that was not: a bridge was deleted, for instance
		f.roles = roles
	default:
		obstacles, err := n.kernel.Obstacles(roles)
		if err != nil {
			f.roles = nil
			return fastReason{status.FastPathFailed, err.Error()}
		}
		f.roles, f.obstacles = roles, obstacles
	}
	for _, link := range append([]string{n.uplink.Name}, f.devices...) {
		if o, is := f.obstacles[link]; is {
			return fastReason{obstacleReason(o), fmt.Sprintf("fast packets would pass by %s on %s",
				obstacleText(o), link)}
		}
	}
	c := n.tables.Sysctls.Get(beLiberal)
	if f.liberal = f.liberal || c.Wanted && c.Present && c.Have == c.Want; !f.liberal {
		return fastReason{status.FastPathStarting, strings.ReplaceAll(beLiberal, "/", ".") + " is not 1 yet"}
	}
	return fastReason{}
}

// within reports whether all of a map is in another one.
func within[K, V comparable](a, b map[K]V) bool {
	for k, v := range a {
		if w, is := b[k]; !is || w != v {
			return false
		}
	}
	return true
}

// fastRoles returns what devices are to the fast path.
func (n *node) fastRoles() map[string]fastpath.Role {
	roles := map[string]fastpath.Role{}
	for _, bridge := range n.podBridges() {
		for _, port := range n.kernel.VethsOn(bridge) {
			roles[port] = fastpath.Port
		}
	}
	roles[n.uplink.Name] = fastpath.Uplink
	for _, device := range n.fast.devices {
		roles[device] = fastpath.Device
	}
	return roles
}

// wantFastPath replaces the desired state.
func (n *node) wantFastPath() {
	f := &n.fast
	var next network.State
	if f.path.Load() != nil {
		next.Sysctls = []network.Item[string, network.Sysctl]{{Key: beLiberal, Value: "1"}}
		// Attached while it starts, too: without a sign of life the programs do nothing, and with that of an earlier
		// run, what that has attached is to stay.
		if f.why.code == "" || f.why.code == status.FastPathStarting {
			for _, link := range slices.Sorted(maps.Keys(f.roles)) {
				if _, is := f.obstacles[link]; is {
					continue
				}
				for _, program := range f.roles[link].Programs() {
					key := network.ProgramKey{Link: link, Program: string(program)}
					next.Programs = append(next.Programs, network.Item[network.ProgramKey, network.Program]{
						Key: key, Value: network.InForce(),
					})
				}
			}
		}
	}
	added := !slices.Equal(next.Sysctls, f.state.Sysctls)
	if added || !slices.Equal(next.Programs, f.state.Programs) {
		n.tables.Replace(fastPathOwner(), f.state, next)
		f.state = next
	}
	if added {
		n.kernel.ReadSettings()
		notify(n.kernelChanged) // once the pass has set it
	}
}

// beatFastPath flushes what has changed, and gives the programs a sign of life.
func (n *node) beatFastPath(wake *alarm) {
	f := &n.fast
	p := f.path.Load()
	if p == nil {
		return
	}
	if moves := n.tables.Moves(); moves != f.moves {
		f.moves = moves
		f.flush()
	}
	configs := n.fastConfigs()
	if f.why.code != "" || len(configs) == 0 || !n.programmed {
		// What an earlier run has left works on until this one has come as far, or knows that it must not.
		inherited := f.inherited && f.why.code != "" && f.why.code != status.FastPathStarting
		if (!f.beatAt.IsZero() || inherited) && p.Beat(0) == nil {
			f.beatAt, f.inherited = time.Time{}, false
		}
		return
	}
	if !slices.Equal(configs, f.configs) || !wake.now.Before(f.beatAt) {
		if err := errors.Join(p.Configure(configs...), p.Beat(fastLife)); err != nil {
			f.broken.Store(true)
			notify(n.kernelChanged)
			return
		}
		f.configs, f.beatAt = configs, wake.now.Add(fastBeat)
	}
	wake.set(f.beatAt)
}

// fastConfigs returns the configuration of the programs for each VXLAN device that is as desired, and for the uplink if
// peers are reached without a tunnel.
func (n *node) fastConfigs() (all []fastpath.Config) {
	for _, device := range n.fast.devices {
		l := n.tables.Links.Get(device)
		if v, is := l.Have.Settings.(network.VXLAN); is && l.Present && l.Have == l.Want {
			all = append(all, fastpath.Config{
				Local: v.Local, Port: v.Port, VNI: v.VNI, Device: n.kernel.Index(device), MAC: l.Have.MAC,
				MTU: l.Have.MTU, Established: n.fast.lasting,
			})
		}
	}
	if index := n.kernel.Index(n.uplink.Name); index != 0 && n.sendsDirectly() {
		mtu := n.uplink.MTU
		if n.fast.ipv6MTU > 0 && n.config.Ranges[subnet.IPv6].Enabled() {
			mtu = min(mtu, n.fast.ipv6MTU)
		}
		all = append(all, fastpath.Config{Direct: true, Device: index, MTU: mtu, Established: n.fast.lasting})
	}
	return all
}
