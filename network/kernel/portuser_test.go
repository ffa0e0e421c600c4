package kernel_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
)

// TestPortInUse: the error of a device whose UDP port is in use names who has it.
func TestPortInUse(t *testing.T) {
	device := func(l netlink.Link) func() (func(), error) {
		return func() (func(), error) {
			if err := netlink.LinkAdd(l); err != nil {
				return nil, err
			}
			return func() {}, netlink.LinkSetUp(l)
		}
	}
	for _, tt := range []struct {
		name string
		take func() (release func(), err error)
		want string
	}{
		{"a device in external mode",
			device(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "cilium_vxlan"}, Port: 8472, FlowBased: true}),
			"UDP port 8472 is in use by device cilium_vxlan (vxlan, external): delete it (ip link delete cilium_vxlan), or set " +
				"another Backend.Port"},
		{"a process", func() (func(), error) {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 8472})
			if err != nil {
				return nil, err
			}
			return func() { c.Close() }, nil
		}, fmt.Sprintf("UDP port 8472 is in use by pid %d (", os.Getpid())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t, func(*sandbox.Net) error {
				release, err := tt.take()
				if err != nil {
					return err
				}
				defer release()
				tables := network.NewTables()
				tables.Replace(nodeOwn, network.State{}, ownState())
				k, err := kernel.Open(tables)
				if err != nil {
					return err
				}
				defer k.Close()
				if err := k.Read(); err != nil {
					return err
				}
				// Who it is is looked for beside the passes, and the change is tried again.
				rec := &network.Reconciler{Tables: tables}
				var errs []string
				for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
					for _, f := range rec.Pass(time.Now()).Failures {
						if errs = append(errs, f.Err.Error()); strings.Contains(f.Err.Error(), tt.want) {
							return nil
						}
					}
				}
				t.Errorf("failures %q, want one with %q", errs, tt.want)
				return nil
			})
		})
	}
}

// TestPermitted: without CAP_NET_ADMIN there is an error that names it.
func TestPermitted(t *testing.T) {
	inNamespace(t, func(*sandbox.Net) error {
		if err := kernel.Permitted(); err != nil {
			t.Errorf("with the capability: %v", err)
		}
		return nil
	})
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error { // on a thread that ends with this
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		return kernel.Permitted()
	})
	if err == nil || !strings.Contains(err.Error(), "needs CAP_NET_ADMIN") {
		t.Errorf("without the capability: %v", err)
	}
}
