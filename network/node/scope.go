package node

import (
	"net/netip"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
)

// scopeOf returns the scope of the network that a backend carries.
func scopeOf(prefix string, b backend.Backend) network.Scope {
	for _, l := range b.Device(noSubnets).Links {
		if v, ok := l.Value.Settings.(network.VXLAN); ok {
			return network.NewScope(prefix, v.VNI)
		}
	}
	return network.NewScope(prefix, 0)
}

// takeScope makes the network of a config and its backend this daemon's: it announces it to other daemons, notes it
// in the state directory, and says what belongs to it. It fails if another daemon on this node is in the way.
func (n *node) takeScope(c subnet.Config, b backend.Backend) error {
	scope := scopeOf(n.StorePrefix, b)
	if err := n.presence.announce(scope, networks(c)); err != nil {
		return err
	}
	if err := n.state.use(scope, networks(c)); err != nil {
		return err
	}
	o := network.Ownership{
		Scope: scope, Former: n.state.former(scope),
		Networks: append(without(n.state.binding.Networks, netip.Prefix{}), n.cachedNetworks...),
	}
	o.Plain = n.hasPlainNames(scope, b)
	n.formerTags = nil
	for _, s := range o.Former {
		n.formerTags = append(n.formerTags, s.Tag())
	}
	if o.Plain {
		n.formerTags = append(n.formerTags, network.Scope{}.Tag())
	}
	n.scope, n.settled = scope, false
	n.tables.Own(o)
	return nil
}

// hasPlainNames reports whether an earlier version, which gave the objects of every network the plain names, left
// such objects of this network behind. A device with the plain ifalias and this VNI is no other daemon's: that has
// the default VNI.
func (n *node) hasPlainNames(scope network.Scope, b backend.Backend) bool {
	if scope.IsDefault() {
		return false
	}
	others, _ := Neighbours() // without /proc, none is known
	for _, o := range others {
		if o.Tag == (network.Scope{}).Tag() {
			return false // they are that daemon's
		}
	}
	if n.state.unbound {
		return true
	}
	for _, l := range b.Device(noSubnets).Links {
		if scope.VNI != network.DefaultVNI && n.kernel.DeviceAlias(l.Key) == network.Alias {
			return true
		}
	}
	return false
}

// settle ends the transition from the names of earlier runs, once nothing has them any more.
func (n *node) settle() {
	if n.settled || n.pending() > 0 {
		return
	}
	n.settled = true
	if err := n.state.settle(n.scope, networks(*n.config)); err != nil {
		n.Log.WithError(err).Warn("cannot note that nothing of earlier runs is left; trying again at the next start")
	}
}

// retireVTEPs removes the VTEP filters of earlier runs under other names: they know no new peer.
func (n *node) retireVTEPs() error {
	for _, tag := range n.formerTags {
		f, err := vtepfilter.Open(network.Tagged(vtepfilter.Table, tag))
		if err == nil {
			err = f.Remove()
			f.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// logState logs which state directory is used, if that is not the one that was named.
func (n *node) logState() {
	if n.state.moved != "" {
		n.Log.WithFields(logrus.Fields{"state_dir": n.state.path, "network": n.state.binding.Prefix}).
			Warn("using a state directory of its own for this network: " + n.state.moved)
	}
}
