package node

import (
	"slices"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/backend/hostgw"
	"github.com/selvage-net/selvage/backend/vxlan"
	"github.com/selvage-net/selvage/backend/wireguard"
)

// backends returns all backends, by the network config's Backend.Type.
func backends() map[string]backend.Kind {
	return map[string]backend.Kind{
		vxlan.Type:     vxlan.Kind(),
		hostgw.Type:    hostgw.Kind(),
		wireguard.Type: wireguard.Kind(),
	}
}

// movable reports whether a network can move from one backend to another while its nodes run: a node can have the
// devices of both, and host-gw has none.
func movable(from, to string) bool {
	types := []string{vxlan.Type, wireguard.Type}
	return from != to && slices.Contains(types, from) && slices.Contains(types, to)
}
