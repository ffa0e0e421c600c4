package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/pods"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// ownSide is what this node's pods depend on: desired as the records of the CNI plugin say, and repaired like the
// node's own entries. It belongs to the loop's goroutine.
type ownSide struct {
	reader   attachment.Reader
	due      bool                 // records may have changed
	pods     []pods.Pod           // of all records that are well-formed, the oldest first
	damaged  []error              // the others
	known    bool                 // the records were read once
	node     pods.Node            // as Desired was last called with
	state    network.State        // in the tables
	problems []status.Problem     // with what the tables cannot repair, see podProblems
	begun    map[string]time.Time // since when, by what identifies a problem
	logged   backoff.Limiter
	checkAt  time.Time            // when to look again whether pods without a link have ended; zero: there are none
	since    map[string]time.Time // since when a bridge is out of sync
	// duplicates are addresses that were, see [kernel.Kernel.Duplicates].
	duplicates map[network.AddressKey]time.Time
}

// podsOwner owns what pods depend on in the tables. Only the node's own claims take precedence.
func podsOwner() network.Owner { return network.Owner{Name: "pods", Age: -1} }

// topicPods is the topic of problems on the node's own side.
const topicPods = "pods"

const (
	// endedCheck is how often it is checked whether a pod whose link is gone has ended.
	endedCheck      = 5 * time.Second
	manyPodProblems = 5
	podsLogged      = 10 * time.Minute
	// duplicateShown is how long a gateway address that was a duplicate stays in the status after its repair: nothing
	// reports when the other host has given it up.
	duplicateShown = 10 * time.Minute
)

// newOwnSide returns an ownSide for the records beside a subnet file. It makes their directory: one that does not exist
// cannot be watched.
func newOwnSide(subnetFile string) ownSide {
	dir := attachment.Dir(subnetFile)
	_ = wholefile.MakeDir(dir, 0o700) // else the plugin makes it
	return ownSide{reader: attachment.Reader{Dir: dir}, due: true, since: map[string]time.Time{}}
}

// followPods brings what the pods depend on into the tables.
func (n *node) followPods(wake *alarm) {
	o := &n.ownSide
	read := n.readPods(wake)
	around := pods.Node{Networks: networks(*n.config), Own: n.subnets, HasLink: n.kernel.HasLink,
		LinkLocal: n.hasLinkLocal}
	for _, f := range subnet.Families() {
		around.Families[f] = n.config.Ranges[f].Enabled()
	}
	moved := around.Own != o.node.Own || around.Families != o.node.Families ||
		!slices.Equal(around.Networks, o.node.Networks)
	recheck := !o.checkAt.IsZero() && !wake.now.Before(o.checkAt)
	stale := n.kernel.TendedStale()
	if read || moved || stale {
		o.node = around
		n.wantPods(read)
		n.reportAttachments()
		n.pathFollower.stale = true
	}
	o.duplicates = n.kernel.Duplicates(wake.now.Add(-duplicateShown))
	for _, at := range o.duplicates {
		wake.set(at.Add(duplicateShown + time.Second))
	}
	if read || moved || stale || recheck || len(o.pods) > 0 {
		n.podProblems(wake.now, read || moved || stale || recheck)
	}
	wake.set(o.checkAt)
	if len(o.pods) > 0 {
		wake.set(wake.now.Add(arpCheck))
	}
}

// hasLinkLocal reports whether a device of pods has an IPv6 link-local address other than one.
func (n *node) hasLinkLocal(link string, but netip.Addr) bool {
	for key, c := range n.tables.Addresses.All {
		a := key.Prefix.Addr()
		if c.Present && key.Link == link && a.Is6() && a.IsLinkLocalUnicast() && a != but {
			return true
		}
	}
	return false
}

// readPods reads the records if they may have changed, and reports whether they have.
func (n *node) readPods(wake *alarm) bool {
	o := &n.ownSide
	if !o.due {
		return false
	}
	records, damaged, changed, err := o.reader.Read()
	if err != nil {
		n.journal.problem(topicPods, err)
		wake.set(wake.now.Add(waitAfterFailure))
		return false
	}
	n.journal.resolved(topicPods)
	first := !o.known
	o.due, o.known = false, true
	if !changed && !first {
		return false
	}
	o.pods, o.damaged = o.pods[:0], damaged
	for _, r := range records {
		if p, err := pods.Parse(r); err != nil {
			o.damaged = append(o.damaged, err)
		} else {
			o.pods = append(o.pods, p)
		}
	}
	return true
}

// wantPods replaces the desired state. The devices that were not desired before, or otherwise, are read: nothing of
// theirs was observed. Bridges are read when pods were added or removed, as that can change their MAC addresses.
func (n *node) wantPods(changed bool) {
	o := &n.ownSide
	n.kernel.Tend(pods.Devices(o.pods))
	n.kernel.FindPorts(n.missingPorts())
	last, next := o.state, pods.Desired(o.pods, o.node)
	n.tables.Replace(podsOwner(), last, next)
	o.state = next
	var names []string
	for _, x := range next.Bridges {
		if changed || !slices.Contains(last.Bridges, x) {
			names = append(names, x.Key)
		}
	}
	before := map[string]network.Port{}
	for _, x := range last.Ports {
		before[x.Key] = x.Value
	}
	for _, x := range next.Ports {
		if v, was := before[x.Key]; !was || v != x.Value {
			names = append(names, x.Key)
		}
	}
	for _, x := range next.Sysctls {
		if !slices.Contains(last.Sysctls, x) {
			names = append(names, network.SettingDevice(x.Key))
		}
	}
	slices.Sort(names)
	if err := n.kernel.ReadTended(slices.Compact(names)); err != nil {
		n.kernel.RequestResync() // which reads them, too
		notify(n.kernelChanged)
	}
	// Of a device that was not desired before, it is known only now whether it has a link-local address.
	if slices.ContainsFunc(next.Addresses, func(x network.Item[network.AddressKey, network.Address]) bool {
		return x.Key.Prefix.Addr().IsLinkLocalUnicast() && !n.tables.Addresses.Get(x.Key).Present
	}) {
		o.state = pods.Desired(o.pods, o.node)
		n.tables.Replace(podsOwner(), next, o.state)
	}
}

// missingPorts returns the ends on the node of running pods' links that have no device of their name.
func (n *node) missingPorts() (all []kernel.MissingPort) {
	for _, p := range n.ownSide.pods {
		if p.Managed && !n.kernel.HasLink(p.Port) && isNamespace(p.NetNS) {
			all = append(all, kernel.MissingPort{Name: p.Port, MAC: p.PortMAC, Bridge: p.Bridge, NetNS: p.NetNS})
		}
	}
	return all
}

// notePods notes after a pass since when bridges of pods are out of sync.
func (n *node) notePods(now time.Time) {
	if len(n.ownSide.since) == 0 && n.tables.Holds(n.ownSide.state) {
		return // as a rule
	}
	since := map[string]time.Time{}
	for _, b := range n.podGroups() {
		switch at, known := n.ownSide.since[b.Name]; {
		case b.InSync:
		case known:
			since[b.Name] = at
		default:
			since[b.Name] = now
		}
	}
	n.ownSide.since = since
}

// podName names a pod for people.
func podName(p pods.Pod) string {
	id := p.Container
	if len(id) > 12 { // as runtimes shorten IDs
		id = id[:12]
	}
	return fmt.Sprintf("container %s (%s)", id, p.Interface)
}

// isNamespace reports whether path leads to a namespace: a file that was mounted on can stay when the namespace ended.
func isNamespace(path string) bool {
	var info unix.Statfs_t
	return path != "" && unix.Statfs(path, &info) == nil && info.Type == unix.NSFS_MAGIC
}

// podAt returns the pod with an address, and the objects that it depends on.
func (n *node) podAt(a netip.Addr) (p pods.Pod, depends network.State, ok bool) {
	o := &n.ownSide
	for _, x := range slices.Backward(o.pods) { // the newest: the record of one that has ended may be left
		if slices.ContainsFunc(x.Prefixes, func(x netip.Prefix) bool { return x.Addr() == a }) {
			p, ok = x, true
			break
		}
	}
	if !ok {
		return p, depends, false
	}
	is := func(link string) bool { return link != "" && (link == p.Port || link == p.Bridge) }
	for _, x := range o.state.Bridges {
		if is(x.Key) {
			depends.Bridges = append(depends.Bridges, x)
		}
	}
	for _, x := range o.state.Ports {
		if x.Key == p.Port {
			depends.Ports = append(depends.Ports, x)
		}
	}
	for _, x := range o.state.Addresses {
		if is(x.Key.Link) && x.Key.Prefix.Addr().Is4() == a.Is4() {
			depends.Addresses = append(depends.Addresses, x)
		}
	}
	for _, x := range o.state.Routes {
		if is(x.Value.Link) && x.Key.Prefix.Contains(a) {
			depends.Routes = append(depends.Routes, x)
		}
	}
	for _, x := range o.state.Sysctls {
		if is(strings.Split(x.Key, "/")[3]) {
			depends.Sysctls = append(depends.Sysctls, x)
		}
	}
	return p, depends, true
}

// shadows are the foreign routes that take precedence over ours, without those to pods that were started before the
// plugin stored records: a route out of a pod's link to one address.
func (n *node) shadows() []network.Shadow {
	all := n.tables.Shadows()
	if !slices.ContainsFunc(all, n.leadsToUnrecorded) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), n.leadsToUnrecorded)
}

// leadsToUnrecorded reports whether a foreign route leads to a pod without a record, by the pod's own link.
func (n *node) leadsToUnrecorded(x network.Shadow) bool {
	if !x.Own || !x.Key.Prefix.IsSingleIP() || x.Route.Type != network.Unicast || x.Route.Gateway.IsValid() {
		return false
	}
	_, _, recorded := n.podAt(x.Key.Prefix.Addr())
	return !recorded && n.kernel.IsVeth(x.Route.Link)
}

// unrecorded counts the links of pods that have no record: those of flannel's plugin, or of a version of ours that
// stored none.
func (n *node) unrecorded() int {
	recorded, links := map[string]struct{}{}, map[string]struct{}{}
	for _, p := range n.ownSide.pods {
		recorded[p.Port] = struct{}{}
	}
	for _, bridge := range n.podBridges() {
		for _, veth := range n.kernel.VethsOn(bridge) {
			links[veth] = struct{}{}
		}
	}
	for _, x := range n.tables.Shadows() {
		if n.leadsToUnrecorded(x) {
			links[x.Route.Link] = struct{}{}
		}
	}
	maps.DeleteFunc(links, func(veth string, _ struct{}) bool { _, is := recorded[veth]; return is })
	return max(0, len(links)-len(n.ownSide.damaged)) // each damaged record is that of one of them
}
