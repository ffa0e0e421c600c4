package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

// manyPeers has tables want what so many peers need, up to 65,536.
func manyPeers(t *network.Tables, peers int, routes style) {
	for i := range peers {
		gateway := netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0})
		mac := network.MAC{0x0e, 0, 0, 1, byte(i >> 8), byte(i)}
		prefix := netip.PrefixFrom(gateway, 24)
		s := network.State{
			FDB: []network.Item[network.FDBKey, network.FDB]{{
				Key:   network.FDBKey{Link: device, MAC: mac},
				Value: network.FDB{Remote: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), Permanent: true},
			}},
			Neighbours: []network.Item[network.NeighbourKey, network.Neighbour]{{
				Key: network.NeighbourKey{Link: device, IP: gateway}, Value: network.Neighbour{MAC: mac, Permanent: true},
			}},
		}
		r := network.Route{Link: device, Gateway: gateway, OnLink: true, Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST}
		if routes != plain {
			r = s.Via(r)
		}
		s.Routes = []network.Item[network.RouteKey, network.Route]{{Key: network.RouteKey{Prefix: prefix}, Value: r}}
		t.Replace(network.Owner{Name: prefix.String()}, network.State{}, s)
	}
}

// benchmark runs f in a namespace that holds what a node with 5,000 peers wants.
func benchmark(b *testing.B, routes style, f func(n *node) error) {
	b.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		t := wanted(0, byID)
		manyPeers(t, 5000, routes)
		n, err := open(t)
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		b.ReportAllocs()
		return f(n)
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReplay deletes the device and puts back all that was on it.
func BenchmarkReplay(b *testing.B) {
	for _, routes := range []style{plain, byID} {
		b.Run(routes.String(), func(b *testing.B) { benchmark(b, routes, func(n *node) error { return replay(b, n) }) })
	}
}

func replay(b *testing.B, n *node) error {
	for b.Loop() {
		b.StopTimer()
		link, err := netlink.LinkByName(device)
		if err := errors.Join(err, netlink.LinkDel(link)); err != nil {
			return err
		}
		b.StartTimer()
		if err := n.Read(); err != nil {
			return err
		}
		if _, err := n.pass(); err != nil {
			return err
		}
		if left := n.rec.Tables.Pending(); left != 0 {
			return fmt.Errorf("%d entries pending", left)
		}
	}
	return nil
}

// BenchmarkRead reads everything where everything is right.
func BenchmarkRead(b *testing.B) {
	benchmark(b, byID, func(n *node) error {
		for b.Loop() {
			if err := n.Read(); err != nil {
				return err
			}
		}
		return nil
	})
}
