package node

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// setUp makes the backend, once config and uplink allow it. It reports whether there is one.
func (n *node) setUp(wake *alarm) bool {
	if n.backend != nil {
		return true
	}
	wake.set(n.setupAt)
	if n.config == nil || !n.view.Synced() && !n.introduced || wake.now.Before(n.setupAt) {
		return false
	}
	if err := n.makeBackend(wake.now); err != nil {
		n.journal.problem(topicSetup, err)
		n.setupAt = wake.now.Add(waitAfterFailure)
		wake.set(n.setupAt)
		return false
	}
	n.journal.resolved(topicSetup)
	return true
}

// settleTime is how long after a subscription began everything is checked again: something may have changed between the
// first look and the first notification.
const settleTime = 200 * time.Millisecond

// makeBackend decides what everything else rests on: who the node is, which uplink carries the overlay, and which
// backend follows from that.
func (n *node) makeBackend(now time.Time) error {
	choice, err := n.chooseUplink()
	if err != nil {
		return err
	}
	id, fresh, err := loadIdentity(n.StateDir, choice.HardwareAddr)
	if err != nil {
		return err
	}
	n.identity = id
	clear(n.secrets) // of another identity, after a failure
	n.holder.publicIPs = choice.PublicIP
	// The MAC address in our own lease is what peers know.
	own := n.view.ByInstance(id.InstanceID)
	if own == nil { // one that was flannel's is found by rules, before the backend can judge leases
		n.view.SetRules(subnet.Rules{Config: *n.config, InstanceID: id.InstanceID, PublicIPs: choice.PublicIP})
		own = n.view.Own(subnet.Request{InstanceID: id.InstanceID, PublicIPs: choice.PublicIP,
			Holder: n.holder.holderOf})
	}
	n.resume(own)
	if err := n.resumeRotation(); err != nil {
		return err
	}
	b, err := n.carrier(*n.config, n.underlay(choice, own), n.moving)
	if err != nil {
		return err
	}
	if err := id.save(n.StateDir); err != nil {
		return err
	}
	if err := n.takeScope(*n.config, b); err != nil {
		return err
	}
	n.logUplink(choice)
	if fresh != "" {
		n.Log.WithField("instance", id.InstanceID).Info("created a new node identity: " + fresh)
	}
	n.logDevices(b)
	n.holder.instanceID, n.holder.advertise = id.InstanceID, n.lease
	n.adoptCached()
	n.adopt(choice, b, now)
	n.journal.rejectedLeases(subnet.Event{Type: subnet.Synced}, n.view, now)
	err = n.kernel.Observe() // all, now that it is known what is ours
	// Whether the uplink has changed meanwhile can wait until the node is ready: that lists all routes.
	n.kernel.UplinkStale()
	n.uplinks.recheck(now.Add(settleTime))
	return err
}

// adoptCached makes the cached lease this node's, if it can be used.
func (n *node) adoptCached() {
	if m, ok := n.cache.takeOwn(n.identity.InstanceID); ok {
		n.holder.adopt(m)
		n.setSubnets(n.holder.subnets)
	}
}

// underlay is what a backend has to know of the node.
func (n *node) underlay(choice uplink.Choice, own *subnet.Lease) backend.Underlay {
	return backend.Underlay{
		Link: choice.Name, MTU: choice.MTU, Local: choice.Local, PublicIP: choice.PublicIP, Own: own,
		OnLink: choice.OnLink, ReversePath: checksSources(choice.Name, readSysctl), TxChecksum: n.TxChecksum,
		InTunnel: time.Now().Before(n.directAt),
		Nexthops: n.kernel.HasNexthops(), FastPath: n.usesFastPath(), Rotation: n.rotating.Rotation,
		Keep: n.keep(),
	}
}

// keep is what the node keeps for a backend.
func (n *node) keep() backend.Keeper {
	return remembering{keeper{n.identity, n.StateDir, n.kernel.DeviceMAC, n.keyFiles()}, n.secrets}
}

// logDevices logs the node's own devices with what a user knows them by.
func (n *node) logDevices(b backend.Backend) {
	tunnels := b.Describe().Tunnels
	for _, l := range b.Device(noSubnets).Links {
		fields := logrus.Fields{"device": l.Key, "mtu": l.Value.MTU}
		if l.Value.MAC != (network.MAC{}) {
			fields["mac"] = l.Value.MAC.String()
		}
		for _, t := range tunnels {
			if t.Device != l.Key {
				continue
			}
			if t.Port != 0 {
				fields["port"] = t.Port
			}
			for _, s := range t.Settings {
				fields[strings.ToLower(s.Name)] = s.Value
			}
		}
		n.Log.WithFields(fields).Info("overlay device")
	}
}

// ownMember is the node's own lease as the store has it, or nil.
func (n *node) ownMember() *subnet.Lease {
	if m, ok, _ := n.view.Get(n.holder.record.Name); ok {
		return &m.Lease
	}
	return nil
}

// reform replaces the backend while the node runs, and advertises what is new in it.
func (n *node) reform(choice uplink.Choice, b backend.Backend, now time.Time) {
	before := n.lease(noSubnets)
	n.adopt(choice, b, now)
	n.journal.rejectedLeases(subnet.Event{Type: subnet.Synced}, n.view, now)
	if n.lease(noSubnets) != before {
		n.holder.update()
	}
}

// noSubnets stands for a node's subnets where they are not known, or do not matter.
var noSubnets [2]netip.Prefix

// adopt puts a backend, and the uplink it is for, in place of the last one, if there was one.
func (n *node) adopt(choice uplink.Choice, b backend.Backend, now time.Time) {
	n.peerSet.use(b)
	n.backend, n.uplink = b, choice
	warning := ""
	if w, ok := b.(backend.Warner); ok {
		warning = w.Warning()
	}
	n.journal.warn(warning)
	n.kernel.Uplink(choice.Name)
	n.holder.publicIPs = choice.PublicIP
	n.wantDevice()
	n.judging = subnet.Rules{
		Config: *n.config, InstanceID: n.identity.InstanceID, PublicIPs: choice.PublicIP,
		Check:    b.Check,
		Leaving:  leaving(b),
		Underlay: n.underlayPrefixes(choice),
	}
	n.peersChanged(n.view.SetRules(n.judging), n.PeerGrace, now)
	if n.view.Synced() {
		n.retainCached(now)
	}
}

// underlayPrefixes returns what no peer's subnet may contain: this node would lose its own network, or the store.
func (n *node) underlayPrefixes(choice uplink.Choice) (all []netip.Prefix) {
	for _, f := range subnet.Families() {
		all = append(all, choice.OnLink[f]...)
	}
	hosts := choice.Gateways
	if s, ok := n.Store.(subnet.Networked); ok {
		hosts = append(slices.Clone(hosts), s.Addresses()...)
	}
	for _, a := range hosts {
		if !a.IsLoopback() {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all
}

// wantDevice brings the node's own links and addresses, and the settings they need, into the tables.
func (n *node) wantDevice() {
	device := ownState(n.backend, *n.config, n.scope, n.uplink.Name, n.subnets, n.BlackholeRoute, readSysctl)
	n.tables.Replace(nodeOwner(), n.device, device)
	n.device = device
	n.kernel.Overlay(networks(*n.config))
	n.tables.OwnSubnets(n.subnets)
}

// ownState is what a node wants for itself in the kernel, once it has those subnets. read returns the current value of
// a kernel setting.
func ownState(
	b backend.Backend, c subnet.Config, scope network.Scope, uplink string, subnets [2]netip.Prefix, blackhole bool,
	read func(path string) string,
) network.State {
	s := b.Device(subnets)
	var families [2]bool
	for _, f := range subnet.Families() {
		families[f] = c.Ranges[f].Enabled()
	}
	var links []string
	for i, l := range s.Links {
		links = append(links, l.Key)
		s.Links[i].Value.Alias = scope.Alias()
	}
	s.Sysctls = append(s.Sysctls, forwarding(families, uplink, links, read)...)
	if blackhole {
		s.Routes = append(s.Routes, blackholes(subnets)...)
	}
	return s
}

// blackholes returns the routes for those of the node's own addresses that no pod has. Any other route to the same
// subnet, such as the one to the pods' bridge, takes precedence.
func blackholes(subnets [2]netip.Prefix) (routes []network.Item[network.RouteKey, network.Route]) {
	for _, s := range subnets {
		if s.IsValid() {
			routes = append(routes, network.Item[network.RouteKey, network.Route]{
				Key:   network.RouteKey{Prefix: s, Metric: network.LastMetric},
				Value: network.Route{Protocol: network.RouteProtocol, Type: network.Blackhole},
			})
		}
	}
	return routes
}

// nodeOwner owns what the node wants for itself in the tables. It takes precedence over every peer.
func nodeOwner() network.Owner { return network.Owner{Name: "", Age: -1} }

// lease is the lease that the node advertises with the given subnets.
func (n *node) lease(subnets [2]netip.Prefix) subnet.Lease {
	l := subnet.Lease{
		Endpoints: n.backend.Advertise(), BackendType: leaseType(n.backend, n.config.Backend.Type),
		InstanceID: n.identity.InstanceID, NodeName: n.NodeName, MeshKey: n.Mesh.Key(),
	}
	for _, f := range subnet.Families() {
		l.Endpoints[f].Subnet = subnets[f]
	}
	return l
}

func (n *node) chooseUplink() (uplink.Choice, error) {
	o := n.Uplink
	o.Families, o.Overlay, o.Beside = nil, networks(*n.config), n.besideOverlay
	for _, f := range subnet.Families() {
		if n.config.Ranges[f].Enabled() {
			o.Families = append(o.Families, f)
		}
	}
	n.takeAdvice(&o)
	if o.Current = n.uplink.Local; n.uplink.Name == "" { // at the start
		if id, err := InstanceID(n.StateDir); err == nil {
			if own := n.view.Own(subnet.Request{InstanceID: id}); own != nil {
				for _, f := range subnet.Families() {
					o.Current[f] = own.Endpoints[f].PublicIP
				}
			}
		}
	}
	s, err := uplink.Read(n.kernel, o)
	if err != nil {
		return uplink.Choice{}, err
	}
	return uplink.Choose(o, s)
}

// besideOverlay reports whether an address inside the overlay's Network is not one of the overlay's: no subnet with it
// may be leased or is this node's, and none of an older config is leased to a peer.
func (n *node) besideOverlay(a netip.Addr) bool {
	f := subnet.FamilyOf(a)
	if n.config.Ranges[f].Leasable(a) || n.subnets[f].Contains(a) || n.holder.previous[f].Contains(a) {
		return false
	}
	return !slices.ContainsFunc(n.view.Lookup(a), func(found subnet.Found) bool { return found.Why == nil })
}

// ownDevices are the names of the overlay's devices on this node.
func (n *node) ownDevices() (names []string) {
	for _, l := range n.device.Links {
		names = append(names, l.Key)
	}
	return names
}

func networks(c subnet.Config) (out []netip.Prefix) {
	for _, r := range c.Ranges {
		if r.Enabled() {
			out = append(out, r.Network)
		}
	}
	return out
}

func addresses(byFamily [2]netip.Addr) (out []string) {
	for _, a := range byFamily {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	return out
}
