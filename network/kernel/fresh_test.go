package kernel

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network"
)

// TestNewDeviceIsNotReadAgain: of a device that has just been made, nothing can have disappeared while it was down. Of
// one that was up, it can.
func TestNewDeviceIsNotReadAgain(t *testing.T) {
	onHost(t, 10, func(h *host) error {
		const name = "flannel.1"
		h.tables.Replace(network.Owner{Name: "overlay"}, network.State{}, network.State{
			Links: []network.Item[string, network.Link]{{Key: name, Value: network.Link{
				Kind: network.KindVXLAN, MTU: 1450, MAC: network.MAC{0x0e, 1}, Alias: network.Alias, Up: true,
				Settings: network.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.1")},
			}}},
		})
		r := (&network.Reconciler{Tables: h.tables}).Pass(time.Now())
		if len(r.Failures) > 0 {
			return r.Failures[0].Err
		}
		requests := h.requests
		if err := h.settle(); err != nil {
			return err
		}
		if asked := h.requests - requests; asked > 0 {
			t.Errorf("%d reads after the device was made, want none", asked)
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		requests = h.requests
		if err := netlink.LinkSetDown(link); err != nil {
			return err
		}
		if err := h.settle(); err != nil {
			return err
		}
		if h.requests == requests {
			t.Error("no read after the device went down")
		}
		return nil
	})
}
