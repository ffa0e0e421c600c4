package node

import (
	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/backend/hostgw"
	"github.com/selvage-net/selvage/backend/vxlan"
)

// backends returns all backends, by the network config's Backend.Type.
func backends() map[string]backend.Factory {
	return map[string]backend.Factory{
		vxlan.Type:  vxlan.New,
		hostgw.Type: hostgw.New,
	}
}
