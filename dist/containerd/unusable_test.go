package containerd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// testUnusable takes the overlay's device from a node that is ready, and keeps the daemon from making it again. The subnet file
// stays, so it is the daemon's status beside it by which the plugin tells the runtime, and the runtime the kubelet.
func testUnusable(t *testing.T, c *cluster) {
	r := c.At[0]
	c.Ready(t, r, true)
	c.Eventually(t, "a device in the way", func() error { // the daemon may be quicker
		return r.Node.Do(func() error {
			if own, err := netlink.LinkByName("flannel.1"); err == nil {
				if err := netlink.LinkDel(own); err != nil {
					return err
				}
			}
			return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "foreign"}, VxlanId: 1, Port: 8472})
		})
	})
	if c.asking {
		c.Eventually(t, "NetworkReady", func() error {
			ready, why, err := r.NetworkReady(c.Ctx)
			if err == nil && (ready || !strings.Contains(why, "the overlay's device")) {
				err = fmt.Errorf("it is %t (%s), want false, and what is wrong", ready, why)
			}
			return err
		})
	} else {
		c.Ready(t, r, true) // containerd 1.6 asks nobody
	}
	err := r.Node.Do(func() error {
		foreign, err := netlink.LinkByName("foreign")
		if err != nil {
			return err
		}
		return netlink.LinkDel(foreign)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Eventually(t, "the overlay's device", func() error {
		return r.Node.Do(func() error { _, err := netlink.LinkByName("flannel.1"); return err })
	})
	c.Ready(t, r, true)
	c.Reach(t)
}
