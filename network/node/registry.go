package node

import (
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
