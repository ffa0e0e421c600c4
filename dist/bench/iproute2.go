package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

func deviceOf(f subnet.Family) string {
	return map[subnet.Family]string{subnet.IPv4: "flannel.1", subnet.IPv6: "flannel-v6.1"}[f]
}

// makeDevices makes the overlay's devices without a daemon.
func (n *node) makeDevices(families []subnet.Family) error {
	return n.host.Do(func() error {
		for _, f := range families {
			local := net.ParseIP("172.30.255.254")
			if f == subnet.IPv6 {
				local = net.ParseIP("fd00:30::ffff")
			}
			link := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: deviceOf(f), MTU: 1430}, VxlanId: 1, Port: 8472, SrcAddr: local}
			if err := errors.Join(netlink.LinkAdd(link), netlink.LinkSetUp(link)); err != nil {
				return fmt.Errorf("make %s: %w", deviceOf(f), err)
			}
		}
		return nil
	})
}

// iproute2 puts the entries of so many leases into the kernel with ip -batch and bridge -batch, and returns how long the two
// took together, from their start to their end. With nexthops, routes over IPv4 go by nexthop objects, as selvage has them.
func (b *bench) iproute2(ctx context.Context, leases int, families []subnet.Family, nexthops bool) (time.Duration, error) {
	n, err := b.node()
	if err != nil {
		return 0, err
	}
	defer func() { _ = n.close() }()
	if err := n.makeDevices(families); err != nil {
		return 0, err
	}
	var ip, bridge bytes.Buffer
	for i := range leases {
		l := absent(i, families, 0)
		for _, f := range families {
			e, dev := l.Endpoints[f], deviceOf(f)
			gateway := e.Subnet.Addr()
			fmt.Fprintf(&bridge, "fdb replace %s dev %s dst %s self permanent\n", mac(i, 0), dev, e.PublicIP)
			fmt.Fprintf(&ip, "neigh replace %s lladdr %s dev %s nud permanent\n", gateway, mac(i, 0), dev)
			if nexthops && f == subnet.IPv4 {
				id := network.NexthopIDOf(gateway)
				fmt.Fprintf(&ip, "nexthop replace id %d via %s dev %s onlink proto 83\nroute replace %s nhid %d proto 83\n", id, gateway, dev, e.Subnet, id)
			} else {
				fmt.Fprintf(&ip, "route replace %s via %s dev %s onlink proto 83\n", e.Subnet, gateway, dev)
			}
		}
	}
	const ipFile, bridgeFile = "/run/ip.batch", "/run/bridge.batch"
	err = n.host.Do(func() error {
		return errors.Join(os.WriteFile(ipFile, ip.Bytes(), 0o644), os.WriteFile(bridgeFile, bridge.Bytes(), 0o644))
	})
	if err != nil {
		return 0, err
	}
	complete := n.listen.expect(entries(0, leases, families, 0))
	began := time.Now()
	if _, err := n.run("bridge", "-batch", bridgeFile); err != nil {
		return 0, err
	}
	if _, err := n.run("ip", "-batch", ipFile); err != nil {
		return 0, err
	}
	took := time.Since(began)
	select {
	case <-complete:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(patience):
		return 0, fmt.Errorf("iproute2: %w", n.listen.missing())
	}
	return took, nil
}
