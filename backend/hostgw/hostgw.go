// Package hostgw implements the overlay without a tunnel: the route to each peer's subnet has the peer's underlay
// address as gateway, on the uplink. Packets have the underlay's full size. In return, all nodes must be on one link: a
// router between them has no routes to pods.
package hostgw

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Type is the Backend.Type of configs for this backend, and the BackendType of its leases. Such a config has no other
// fields.
const Type = "host-gw"

type hostgw struct {
	families [2]bool // by subnet.Family
	underlay backend.Underlay
}

// Kind returns this kind of backend.
func Kind() backend.Kind {
	return backend.Kind{New: New, Check: func(subnet.Config) error { return nil }}
}

// New is this package's [backend.Factory].
func New(c subnet.Config, u backend.Underlay) (backend.Backend, error) {
	h := &hostgw{underlay: u}
	for _, f := range subnet.Families() {
		if h.families[f] = c.Ranges[f].Enabled(); h.families[f] && !u.Local[f].IsValid() {
			return nil, fmt.Errorf("uplink %s has no %s address to carry the %s overlay; "+
				"add one, or choose another uplink with --iface", u.Link, f, f)
		}
	}
	return h, nil
}

// Advertise implements backend.Backend. A peer needs the public IP only.
func (h *hostgw) Advertise() (endpoints [2]subnet.Endpoint) {
	for f, on := range h.families {
		if on {
			endpoints[f].PublicIP = h.underlay.PublicIP[f]
		}
	}
	return endpoints
}

// Device implements backend.Backend. This backend has no device.
func (h *hostgw) Device([2]netip.Prefix) network.State { return network.State{} }

// Describe implements backend.Backend. Without a tunnel, packets have the underlay's full size.
func (h *hostgw) Describe() backend.Description { return backend.Description{MTU: h.underlay.MTU} }

// Peer implements backend.Backend. A peer that lacks a family gets a route in the other one only.
func (h *hostgw) Peer(l subnet.Lease) (s network.State, err error) {
	if _, err := h.Check(l); err != nil {
		return s, err
	}
	for _, f := range subnet.Families() {
		if h.families[f] && l.Has(f) {
			h.underlay.Direct(&s, l.Endpoints[f])
		}
	}
	return s, nil
}

// Check implements backend.Backend. Only subnets must be unique.
func (h *hostgw) Check(l subnet.Lease) (unique []string, err error) {
	for _, f := range subnet.Families() {
		if a := l.Endpoints[f].PublicIP; h.families[f] && l.Has(f) && !h.underlay.Reaches(a) {
			return nil, fmt.Errorf("public IP %s is not on-link on %s (%s), "+
				"and host-gw cannot reach a node behind a router; "+
				"use vxlan with DirectRouting", a, h.underlay.Link, list(h.underlay.OnLink[f]))
		}
	}
	return nil, nil
}

// list returns prefixes as text, for errors.
func list(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return "which has no on-link prefix"
	}
	names := make([]string, len(prefixes))
	for i, p := range prefixes {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}
