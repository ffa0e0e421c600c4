package node

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Errors about the network config that are no error of its content.
var (
	errNoConfig      = errors.New("no network config in the store; waiting for it")
	errConfigDeleted = errors.New("the network config was deleted from the store; the current one stays in force")
)

// parseConfig decides what follows from a network config as the store has it, nil if it has none: a config that can be
// used, or why it cannot. current is the one in force, or nil.
func parseConfig(kind subnet.StoreKind, data []byte, current *subnet.Config) (c subnet.Config, err error) {
	switch {
	case data == nil && current == nil:
		return c, errNoConfig
	case data == nil:
		return c, errConfigDeleted
	}
	switch c, err = ParseConfig(kind, data); {
	case err == nil:
	case current == nil:
		err = fmt.Errorf("%w; waiting for a valid one", err)
	default:
		err = fmt.Errorf("%w; the current one stays in force", err)
	}
	return c, err
}

// ParseConfig reads and checks a network config as every node with a kind of store does, its Backend object included.
func ParseConfig(kind subnet.StoreKind, data []byte) (subnet.Config, error) {
	parse := subnet.ParseConfig
	if kind == subnet.StoreKubernetes { // which gives nodes their subnets
		parse = subnet.ParseAllocatedConfig
	}
	c, err := parse(data)
	if err != nil {
		return c, err
	}
	backend, err := backendKind(c)
	if err != nil {
		return c, err
	}
	if c.Encrypted && !backend.Encrypts {
		return c, fmt.Errorf("network config: Encryption is required, and the backend %s does not encrypt: "+
			"set Backend.Type to wireguard, or remove Encryption", c.Backend.Type)
	}
	return c, backend.Check(c)
}

// UnknownKeys returns the keys of a network config that have no effect, each with the key that may be meant. Of a
// backend that does not exist, the Backend object is not looked at.
func UnknownKeys(data []byte) []subnet.UnknownKey {
	return subnet.UnknownKeys(data, func(backendType string) ([]string, bool) {
		kind, ok := backends()[backendType]
		return kind.Keys, ok
	})
}

// configChanged takes in the network config, or its absence. One that cannot be used changes nothing.
func (n *node) configChanged(data []byte) {
	n.moving.next = nil
	n.journal.unknownKeys(UnknownKeys(data))
	c, err := parseConfig(n.storeKind, data, n.config)
	switch {
	case errors.Is(err, errNoConfig):
		n.journal.problem(topicConfig, fmt.Errorf("%w. %s", err, n.words.NoConfig))
	case err != nil:
		n.journal.problem(topicConfig, err)
	case n.config != nil && reflect.DeepEqual(c, *n.config):
		n.journal.resolved(topicConfig)
	case n.backend != nil:
		n.changeConfig(c, data)
	default:
		n.journal.resolved(topicConfig)
		n.config, n.configJSON = &c, data
		n.Log.WithFields(logrus.Fields{"networks": networks(c), "backend": c.Backend.Type}).Info("network config")
	}
}

// changeConfig applies a new config while the node runs, if one node after the other can apply it without losing each
// other. Otherwise the current one stays in force.
func (n *node) changeConfig(c subnet.Config, data []byte) {
	if n.moving.levels.Withdrawn && c.Backend.Type != n.config.Backend.Type {
		n.moving.next = data
		return
	}
	var b backend.Backend
	now := time.Now()
	err := sameFamilies(*n.config, c)
	m := n.moving.followed(n.config.Backend, c.Backend, n.lease(noSubnets))
	if err == nil {
		b, err = n.carrier(c, n.underlay(n.uplink, n.ownMember()), m)
	}
	if err == nil && direct(b) && !direct(n.backend) {
		// Every node has to accept packets by either path before the first one sends by the new one.
		n.directAt = now.Add(configSpread)
		b, err = n.carrier(c, n.underlay(n.uplink, n.ownMember()), m)
	}
	if err == nil {
		err = errors.Join(covers(c, n.subnets), apart(c, n.uplink.PublicIP), sameDevices(n.backend, b))
	}
	if err == nil {
		err = n.takeScope(c, b)
	}
	if err != nil {
		n.journal.problem(topicConfig, fmt.Errorf("the new network config cannot be applied while selvaged runs: %w; "+
			"the current one stays in force. Restore the old config, or restart selvaged on all nodes at about the "+
			"same time: pods on nodes with different configs cannot reach each other", err))
		return
	}
	n.journal.resolved(topicConfig)
	n.journal.few("config", now, func() {
		n.Log.WithFields(logrus.Fields{
			"networks": networks(c), "backend": c.Backend.Type, "mtu": b.Describe().MTU,
			"was_mtu": n.backend.Describe().MTU,
		}).Warn("network config changed; applying it")
	})
	if c.Backend.Type != n.config.Backend.Type {
		n.trials.close()
		n.journal.resolved(topicTrials)
	}
	n.moving, n.config, n.configJSON = m, &c, data
	if isMoving(b) { // its devices may be there, and were not ours
		n.kernel.RequestResync()
	}
	n.reform(n.uplink, b, now)
}

// direct reports whether a backend with a tunnel may send packets past it.
func direct(b backend.Backend) bool {
	m, ok := b.(backend.Mixed)
	return ok && m.Direct()
}

// sendsDirectly reports whether all or some peers are reached by the uplink, without a tunnel.
func (n *node) sendsDirectly() bool { return len(n.ownDevices()) == 0 || direct(n.backend) }

// configSpread is how long after a change of the network config every node that can reach the store has seen it.
const configSpread = time.Second

// goDirect ends what changeConfig began when it deferred direct routes.
func (n *node) goDirect(wake *alarm) {
	wake.set(n.directAt)
	if n.directAt.IsZero() || wake.now.Before(n.directAt) {
		return
	}
	n.directAt = time.Time{}
	b, err := n.carrier(*n.config, n.underlay(n.uplink, n.ownMember()), n.moving)
	if err != nil {
		n.journal.problem(topicConfig, err)
		return
	}
	n.reform(n.uplink, b, wake.now)
}

// covers returns which of the node's own subnets are not possible under c, or nil.
func covers(c subnet.Config, own [2]netip.Prefix) error {
	for _, f := range subnet.Families() {
		if r := c.Ranges[f]; r.Enabled() && own[f].IsValid() {
			if err := r.CheckPeer(own[f]); err != nil {
				return fmt.Errorf("this node's lease does not fit: %w", err)
			}
		}
	}
	return nil
}

// apart returns which of the node's public IPs would be inside subnets to be leased under c, or nil.
func apart(c subnet.Config, public [2]netip.Addr) error {
	for _, f := range subnet.Families() {
		if r := c.Ranges[f]; r.Leasable(public[f]) {
			return fmt.Errorf("this node's public IP %s would be inside the overlay %s, where subnets are leased",
				public[f], r.Network)
		}
	}
	return nil
}

func sameFamilies(have, want subnet.Config) error {
	for _, f := range subnet.Families() {
		if on := want.Ranges[f].Enabled(); on != have.Ranges[f].Enabled() {
			return fmt.Errorf("it turns %s %s", f, map[bool]string{true: "on", false: "off"}[on])
		}
	}
	return nil
}

// sameDevices returns which difference between the devices of two backends cannot be applied to a live device, or nil.
// A node that replaces its device, for example with another VNI, loses the nodes that have not done so yet. In a move
// to another backend, want has the devices of both.
func sameDevices(have, want backend.Backend) error {
	before, after := have.Device(noSubnets).Links, want.Device(noSubnets).Links
	moves := isMoving(have) || isMoving(want)
	if len(before) != len(after) && (!moves || len(after) == 0) {
		return errors.New("it needs other devices")
	}
	for i, was := range before {
		same := func(x network.Item[string, network.Link]) bool { return x.Key == was.Key }
		j := slices.IndexFunc(after, same)
		if j < 0 && isMoving(have) {
			continue // the move turns back
		}
		l := after[min(i, len(after)-1)]
		if j >= 0 {
			l = after[j]
		}
		if l.Key != was.Key || !l.Value.SameDevice(was.Value) {
			return fmt.Errorf("it turns device %s (%s) into device %s (%s)",
				was.Key, was.Value.Identity(), l.Key, l.Value.Identity())
		}
	}
	return nil
}
