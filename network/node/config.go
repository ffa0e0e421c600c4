package node

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/subnet"
)

// configNews takes in the network config, or its absence. What cannot be used changes nothing: the config in force stays.
func (n *node) configNews(data []byte) {
	if data == nil {
		if n.config == nil {
			n.sayOnce("config", errors.New("there is no network config in the store yet, waiting for it; write one, such as {\"Network\": \"10.5.0.0/16\"}, to <etcd-prefix>/config"))
		} else {
			n.sayOnce("config", errors.New("the network config was deleted from the store; the one in force stays"))
		}
		return
	}
	c, err := subnet.ParseConfig(data)
	if err == nil {
		if _, known := backends()[c.Backend.Type]; !known {
			_, err = newBackend(c, backend.Underlay{}) // for its error
		}
	}
	switch {
	case err != nil && n.config == nil:
		n.sayOnce("config", fmt.Errorf("%w; waiting for a better one", err))
	case err != nil:
		n.sayOnce("config", fmt.Errorf("%w; the one in force stays", err))
	case n.config != nil && reflect.DeepEqual(c, *n.config):
		n.forget("config")
	case n.backend != nil:
		n.changeConfig(c, data)
	default:
		n.forget("config")
		n.config, n.configJSON = &c, data
		n.Log.WithFields(logrus.Fields{"networks": networks(c), "backend": c.Backend.Type}).Info("network config")
	}
}

// changeConfig follows a new config while the node runs, if it can be followed by one node after the other without their
// losing each other. One that cannot is refused, and the one in force stays.
func (n *node) changeConfig(c subnet.Config, data []byte) {
	var b backend.Backend
	err := sameFamilies(*n.config, c)
	if err == nil {
		b, err = newBackend(c, n.underlay(n.uplink, n.ownMember()))
	}
	now := time.Now()
	if err == nil && direct(b) && !direct(n.backend) {
		// Every node is to take what comes by either way before the first one sends by another.
		n.directAt = now.Add(settlingTime)
		b, err = newBackend(c, n.underlay(n.uplink, n.ownMember()))
	}
	if err == nil {
		err = errors.Join(n.covers(c), sameDevices(n.backend, b))
	}
	if err != nil {
		n.sayOnce("config", fmt.Errorf("the network config changed to one that this node cannot follow while it runs: %w; the one in force stays. "+
			"Write the old one back, or restart selvaged on all nodes at about the same time: pods on nodes that differ cannot reach each other", err))
		return
	}
	n.forget("config")
	n.Log.WithFields(logrus.Fields{"networks": networks(c), "backend": c.Backend.Type, "mtu": b.MTU(), "was_mtu": n.backend.MTU()}).
		Warn("the network config changed; following it")
	n.config, n.configJSON = &c, data
	n.reform(n.uplink, b, now)
}

// direct reports whether a backend with a tunnel may send past it.
func direct(b backend.Backend) bool {
	m, ok := b.(backend.Mixed)
	return ok && m.Direct()
}

// settlingTime is how long after a change of the network config all nodes have seen it that are going to.
const settlingTime = time.Second

// goDirect ends what changeConfig began when it put off direct routes.
func (n *node) goDirect(now time.Time) {
	if n.directAt.IsZero() || now.Before(n.directAt) {
		return
	}
	n.directAt = time.Time{}
	b, err := newBackend(*n.config, n.underlay(n.uplink, n.ownMember()))
	if err != nil {
		n.sayOnce("config", err)
		return
	}
	n.reform(n.uplink, b, now)
}

// covers says which of the node's own subnets could not be had under c, or nil.
func (n *node) covers(c subnet.Config) error {
	for _, f := range subnet.Families() {
		if r := c.Ranges[f]; r.Enabled() && n.subnets[f].IsValid() {
			if err := r.CheckPeer(n.subnets[f]); err != nil {
				return fmt.Errorf("this node's own lease does not fit: %w", err)
			}
		}
	}
	return nil
}

func sameFamilies(have, want subnet.Config) error {
	for _, f := range subnet.Families() {
		if on := want.Ranges[f].Enabled(); on != have.Ranges[f].Enabled() {
			return fmt.Errorf("it switches %s %s", f, map[bool]string{true: "on", false: "off"}[on])
		}
	}
	return nil
}

// sameDevices says in what the devices of two backends differ that cannot be changed on a live device, or nil. A node that
// makes its device anew with another VNI, say, is lost to those that have not yet.
func sameDevices(have, want backend.Backend) error {
	before, after := have.Device(noSubnets), want.Device(noSubnets)
	if len(before.Links) != len(after.Links) {
		return errors.New("it makes other devices")
	}
	for i, l := range after.Links {
		if was := before.Links[i]; l.Key != was.Key || !l.Value.SameDevice(was.Value) {
			return fmt.Errorf("it makes of device %s (VNI %d, port %d, GBP %t) device %s (VNI %d, port %d, GBP %t)",
				was.Key, was.Value.VNI, was.Value.Port, was.Value.GBP, l.Key, l.Value.VNI, l.Value.Port, l.Value.GBP)
		}
	}
	return nil
}
