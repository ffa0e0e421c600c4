package node

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// setUp makes the backend, once config and uplink allow it. It reports whether there is one.
func (n *node) setUp(now time.Time) bool {
	if n.backend != nil {
		return true
	}
	if n.config == nil || !n.view.Synced() || now.Before(n.setupAt) {
		return false
	}
	if err := n.makeBackend(now); err != nil {
		n.sayOnce("start", err)
		n.setupAt = now.Add(waitAfterFailure)
		return false
	}
	n.forget("start")
	return true
}

// lookAgainAfter is how long after a start it is looked whether something has changed in the moment between the first look and the
// first notification.
const lookAgainAfter = 200 * time.Millisecond

// makeBackend does what comes first: who the node is, by which uplink it is reached, what backend follows from that.
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
	// The MAC address in our own lease is what peers know.
	own := n.view.ByInstance(id.InstanceID)
	if own == nil { // one that was flannel's is found by rules, without the backend's say yet
		n.view.SetRules(subnet.Rules{Config: *n.config, InstanceID: id.InstanceID, PublicIPs: choice.PublicIP})
		own = n.view.Own(subnet.Request{InstanceID: id.InstanceID, PublicIPs: choice.PublicIP})
	}
	b, err := newBackend(*n.config, n.underlay(choice, own))
	if err != nil {
		return err
	}
	if err := id.save(n.StateDir); err != nil {
		return err
	}
	n.sayUplink(choice)
	if fresh != "" {
		n.Log.WithField("instance", id.InstanceID).Info("this node has a new identity: " + fresh)
	}
	for _, l := range b.Device(noSubnets).Links {
		n.Log.WithFields(logrus.Fields{"device": l.Key, "vni": l.Value.VNI, "port": l.Value.Port, "mtu": l.Value.MTU, "mac": l.Value.MAC.String()}).Info("overlay device")
	}
	n.own.instanceID, n.own.advertise = id.InstanceID, n.lease
	n.assumeOwn()
	n.adopt(choice, b, now)
	n.sayQuarantined(subnet.Event{Type: subnet.Synced}, now)
	err = n.kernel.Observe() // all, now that it is known what is ours
	// Whether the uplink has changed meanwhile can wait until the node is up: it lists all routes.
	n.kernel.UplinkStale()
	n.uplinkAt = now.Add(lookAgainAfter)
	return err
}

// underlay is what a backend gets to know of the node.
func (n *node) underlay(choice uplink.Choice, own *subnet.Lease) backend.Underlay {
	return backend.Underlay{
		Link: choice.Name, MTU: choice.MTU, Local: choice.Local, PublicIP: choice.PublicIP, Own: own,
		OnLink: choice.OnLink, ReversePath: checksSources(choice.Name, readSysctl), TxChecksum: n.TxChecksum,
		InTunnel: time.Now().Before(n.directAt),
		Nexthops: n.kernel.HasNexthops(),
		MAC: func(device string, lease network.MAC) network.MAC {
			return n.identity.mac(device, n.kernel.VXLANAddress(device), lease)
		},
	}
}

// ownMember is the node's own lease as the store has it, or nil.
func (n *node) ownMember() *subnet.Lease {
	if m, ok, _ := n.view.Get(n.own.record.Key); ok {
		return &m.Lease
	}
	return nil
}

// reform adopts another backend while the node runs, and advertises what is new in it.
func (n *node) reform(choice uplink.Choice, b backend.Backend, now time.Time) {
	before := n.lease(noSubnets)
	n.adopt(choice, b, now)
	if n.lease(noSubnets) != before {
		n.own.update()
	}
}

// noSubnets stands for a node's subnets where they are not known, or do not matter.
var noSubnets [2]netip.Prefix

// adopt puts a backend, and the uplink it is for, in the place of the last one, if there was one.
func (n *node) adopt(choice uplink.Choice, b backend.Backend, now time.Time) {
	last := n.backend
	replace := func(o network.Owner, l *subnet.Lease) {
		n.tables.Replace(o, wanted(last, l), wanted(b, l))
	}
	for m := range n.view.Peers {
		replace(network.Owner{Name: m.Key, Age: m.Created}, &m.Lease)
	}
	for key, g := range n.grace {
		replace(network.Owner{Name: key, Grace: true}, &g.lease)
	}
	n.backend, n.uplink = b, choice
	n.sayWarning(b)
	n.kernel.Uplink(choice.Name)
	n.own.publicIPs = choice.PublicIP
	n.wantDevice()
	rules := subnet.Rules{
		Config: *n.config, InstanceID: n.identity.InstanceID, PublicIPs: choice.PublicIP,
		Check:    func(l subnet.Lease) error { return backend.Check(b, l) },
		Unique:   b.Unique,
		Underlay: n.ofUnderlay(choice),
	}
	n.peersChanged(n.view.SetRules(rules), n.PeerGrace, now)
	n.graceKept(rules, now)
}

// ofUnderlay returns what no peer's subnet may hold: this node would lose its own network, or the store.
func (n *node) ofUnderlay(choice uplink.Choice) (all []netip.Prefix) {
	for _, f := range subnet.Families() {
		all = append(all, choice.OnLink[f]...)
	}
	hosts := choice.Gateways
	if s, ok := n.Store.(interface{ Addresses() []netip.Addr }); ok {
		hosts = append(slices.Clone(hosts), s.Addresses()...)
	}
	for _, a := range hosts {
		if !a.IsLoopback() {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all
}

// newMACs gives the node's devices other MAC addresses, as another node has one of them: a clone of a machine, of which the
// older keeps it.
func (n *node) newMACs(now time.Time) {
	if n.own.duplicate == 0 || n.own.duplicate == n.renewed {
		return
	}
	_, _, why := n.view.Get(n.own.record.Key)
	u := n.underlay(n.uplink, nil)
	u.MAC = func(device string, _ network.MAC) network.MAC { return n.identity.another(device) }
	b, err := newBackend(*n.config, u)
	if err == nil {
		err = n.identity.save(n.StateDir)
	}
	if err != nil {
		n.sayOnce("MAC address", err)
		n.setupAt = now.Add(waitAfterFailure) // to wake up and try again
		return
	}
	n.forget("MAC address")
	n.renewed = n.own.duplicate
	n.Log.WithError(why).Warn("another node has the MAC address of this node's device, as a clone of a machine has; taking another")
	n.reform(n.uplink, b, now)
}

// wantDevice brings the node's own links and addresses, and the settings they need, into the tables.
func (n *node) wantDevice() {
	device := ownState(n.backend, *n.config, n.uplink.Name, n.subnets, n.BlackholeRoute, readSysctl)
	n.tables.Replace(nodeOwner(), n.device, device)
	n.device = device
	n.kernel.Overlay(networks(*n.config), n.subnets)
}

// ownState is what a node wants for itself in the kernel, once it has those subnets. read returns what a setting is now.
func ownState(b backend.Backend, c subnet.Config, uplink string, subnets [2]netip.Prefix, blackhole bool, read func(path string) string) network.State {
	s := b.Device(subnets)
	var families [2]bool
	for _, f := range subnet.Families() {
		families[f] = c.Ranges[f].Enabled()
	}
	var links []string
	for _, l := range s.Links {
		links = append(links, l.Key)
	}
	s.Sysctls = append(s.Sysctls, forwarding(families, uplink, links, read)...)
	if blackhole {
		s.Routes = append(s.Routes, blackholes(subnets)...)
	}
	return s
}

// blackholes returns the routes for those of the node's own addresses that no pod has. Whatever else there is for the same
// subnet, such as the route to the pods' bridge, goes first.
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

// nodeOwner owns what the node wants for itself in the tables: it goes before every peer.
func nodeOwner() network.Owner { return network.Owner{Name: "", Age: -1} }

// lease is what the node advertises with the given subnets.
func (n *node) lease(subnets [2]netip.Prefix) subnet.Lease {
	l := subnet.Lease{
		Endpoints: n.backend.Advertise(), BackendType: n.config.Backend.Type,
		InstanceID: n.identity.InstanceID, NodeName: n.NodeName,
	}
	for _, f := range subnet.Families() {
		l.Endpoints[f].Subnet = subnets[f]
	}
	return l
}

func (n *node) chooseUplink() (uplink.Choice, error) {
	o := n.Uplink
	o.Families, o.Overlay = nil, networks(*n.config)
	for _, f := range subnet.Families() {
		if n.config.Ranges[f].Enabled() {
			o.Families = append(o.Families, f)
		}
	}
	if o.Current = n.uplink.Local; n.uplink.Name == "" { // at the start
		if id, err := InstanceID(n.StateDir); err == nil {
			if own := n.view.Own(subnet.Request{InstanceID: id}); own != nil {
				for _, f := range subnet.Families() {
					o.Current[f] = own.Endpoints[f].PublicIP
				}
			}
		}
	}
	s, err := uplink.Read(n.kernel.Handle(), o)
	if err != nil {
		return uplink.Choice{}, err
	}
	return uplink.Choose(o, s)
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
