// Package hostgw carries the overlay without a tunnel: each peer's subnet is routed through the peer's underlay address,
// out of the uplink. Packets keep the underlay's full size. In return all nodes have to be on one link: a router between
// them would have to deliver packets for pods, and it has no routes to pods.
package hostgw

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Type is the Backend.Type of configs that this package serves, and the BackendType of leases. Such a config has no
// other fields.
const Type = "host-gw"

type hostgw struct {
	families [2]bool // by subnet.Family
	underlay backend.Underlay
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

// Advertise implements backend.Backend. The address is all that a peer needs.
func (h *hostgw) Advertise() (endpoints [2]subnet.Endpoint) {
	for f, on := range h.families {
		if on {
			endpoints[f].PublicIP = h.underlay.PublicIP[f]
		}
	}
	return endpoints
}

// Device implements backend.Backend. There is none.
func (h *hostgw) Device([2]netip.Prefix) network.State { return network.State{} }

// Describe implements backend.Backend. Without a tunnel, packets have the underlay's full size.
func (h *hostgw) Describe() backend.Description { return backend.Description{MTU: h.underlay.MTU} }

// Peer implements backend.Backend. A peer that lacks a family is reached in the other.
func (h *hostgw) Peer(l subnet.Lease) (s network.State, err error) {
	if _, err := h.Check(l); err != nil {
		return s, err
	}
	for _, f := range subnet.Families() {
		if h.families[f] && l.Has(f) {
			s.Routes = append(s.Routes, h.underlay.Direct(l.Endpoints[f]))
		}
	}
	return s, nil
}

// Check implements backend.Backend. Nothing is unique but subnets.
func (h *hostgw) Check(l subnet.Lease) (unique []string, err error) {
	for _, f := range subnet.Families() {
		if a := l.Endpoints[f].PublicIP; h.families[f] && l.Has(f) && !h.underlay.Reaches(a) {
			return nil, fmt.Errorf("public IP %s is not on-link on %s (%s), and host-gw cannot reach a node behind a router; "+
				"use vxlan with DirectRouting", a, h.underlay.Link, list(h.underlay.OnLink[f]))
		}
	}
	return nil, nil
}

// list names prefixes.
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
