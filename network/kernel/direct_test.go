package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

// uplinkWith makes a bridge called eth0, up, with addresses.
func uplinkWith(addresses ...string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge))
	for _, a := range addresses {
		addr, parseErr := netlink.ParseAddr(a)
		if parseErr != nil {
			return nil, parseErr
		}
		addr.Flags = unix.IFA_F_NODAD
		err = errors.Join(err, netlink.AddrAdd(bridge, addr))
	}
	return bridge, err
}

// direct is s with its routes by an underlay address instead of the tunnel.
func direct(s network.State, gateway string) network.State {
	routes := slices.Clone(s.Routes)
	for i := range routes {
		routes[i].Value = network.Route{Link: "eth0", Gateway: netip.MustParseAddr(gateway), Protocol: network.RouteProtocol, Type: network.Unicast}
	}
	return network.State{Routes: routes}
}

// TestDirectAndTunnel changes a peer's route from tunnel to uplink and back: at no moment there is none.
func TestDirectAndTunnel(t *testing.T) {
	own6 := wanted6("fd00:31::1")
	peer6 := network.State{FDB: own6.FDB, Neighbours: own6.Neighbours, Routes: own6.Routes}
	own6.FDB, own6.Neighbours, own6.Routes = nil, nil, nil
	_, plain4 := peer(7, plain)
	_, byID4 := peer(7, byID)
	for _, tt := range []struct {
		name, gateway string
		own, tunnel   network.State
	}{
		{"IPv4", "192.0.2.7", ownState(), plain4},
		{"IPv4 by nexthop objects", "192.0.2.7", ownState(), byID4},
		{"IPv6", "fd00:31::7", own6, peer6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNamespace(t, func(ns *sandbox.Net) error {
				if _, err := uplinkWith("192.0.2.1/24", "fd00:31::1/64"); err != nil {
					return err
				}
				tables := network.NewTables()
				tables.Replace(nodeOwn, network.State{}, tt.own)
				tables.Replace(network.Owner{Name: "peer"}, network.State{}, tt.tunnel)
				n, err := open(tables)
				if err != nil {
					return err
				}
				defer n.Close()
				if _, err := n.pass(); err != nil {
					return err
				}
				gone, stop, err := routesGone()
				if err != nil {
					return err
				}
				last := tt.tunnel
				for _, next := range []network.State{direct(tt.tunnel, tt.gateway), tt.tunnel} {
					tables.Replace(network.Owner{Name: "peer"}, last, next)
					if _, err := n.pass(); err != nil {
						return err
					}
					if err := n.Read(); err != nil {
						return err
					}
					if pending := tables.Pending(); pending != 0 {
						t.Errorf("%d pending: %+v", pending, tables.Counts())
					}
					last = next
				}
				// A deletion that has to be told ends what is listened to.
				mark := &netlink.Route{Dst: dst("198.51.100.0/24"), Type: unix.RTN_BLACKHOLE}
				if err := errors.Join(netlink.RouteAdd(mark), netlink.RouteDel(mark)); err != nil {
					return err
				}
				for prefix := range gone {
					if prefix == mark.Dst.String() {
						break
					}
					if prefix == last.Routes[0].Key.Prefix.String() { // one to the gateway alone may have been of help
						t.Errorf("the route to %s was deleted on the way", prefix)
					}
				}
				stop()
				return nil
			})
		})
	}
}

// routesGone yields the destinations of routes that are deleted.
func routesGone() (gone chan string, stop func(), err error) {
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	if err := netlink.RouteSubscribe(updates, done); err != nil {
		return nil, nil, err
	}
	gone = make(chan string, 100)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for u := range updates {
			if u.Type == unix.RTM_DELROUTE {
				gone <- u.Dst.String()
			}
		}
	}()
	return gone, func() { close(done); <-finished }, nil
}

// TestBlackhole has a subnet's blackhole give way to the route to the pods' bridge, and come and go with the wish for
// it.
func TestBlackhole(t *testing.T) {
	for _, prefix := range []string{"10.5.1.0/24", "fd00:5:0:1::/64"} {
		t.Run(prefix, func(t *testing.T) {
			inNamespace(t, func(*sandbox.Net) error {
				p := netip.MustParsePrefix(prefix)
				want := network.State{Routes: []network.Item[network.RouteKey, network.Route]{{
					Key:   network.RouteKey{Prefix: p, Metric: network.LastMetric},
					Value: network.Route{Protocol: network.RouteProtocol, Type: network.Blackhole},
				}}}
				tables := network.NewTables()
				tables.Replace(nodeOwn, network.State{}, want)
				n, err := open(tables)
				if err != nil {
					return err
				}
				defer n.Close()
				settled := func(after string) error {
					if _, err := n.pass(); err != nil {
						return fmt.Errorf("%s: %w", after, err)
					}
					if err := n.Read(); err != nil {
						return err
					}
					if pending := tables.Pending(); pending != 0 {
						t.Errorf("%s: %d pending: %+v", after, pending, tables.Counts())
					}
					return nil
				}
				if err := settled("the first pass"); err != nil {
					return err
				}
				pod := p.Addr().Next().Next()
				if _, err := netlink.RouteGet(pod.AsSlice()); err == nil {
					t.Error("a packet for a pod that does not exist is routed")
				}
				bridge, err := uplinkWith(netip.PrefixFrom(p.Addr().Next(), p.Bits()).String())
				if err != nil {
					return err
				}
				if err := settled("a bridge of pods"); err != nil {
					return err
				}
				routes, err := netlink.RouteGet(pod.AsSlice())
				if err != nil || routes[0].LinkIndex != bridge.Attrs().Index {
					t.Errorf("the route to a pod is %v, %v, want one by the bridge", routes, err)
				}
				tables.Replace(nodeOwn, want, network.State{})
				if err := settled("no wish for it"); err != nil {
					return err
				}
				all, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
				for _, r := range all {
					if r.Type == unix.RTN_BLACKHOLE {
						t.Errorf("left over: %v", r)
					}
				}
				return err
			})
		})
	}
}

// TestTxChecksum has the offload of a device set, and set right again when somebody else changes it.
func TestTxChecksum(t *testing.T) {
	for _, want := range []network.Offload{network.Off, network.On} {
		inNamespace(t, func(*sandbox.Net) error {
			own := ownState()
			own.Links[0].Value.TxChecksum = want
			tables := network.NewTables()
			tables.Replace(nodeOwn, network.State{}, own)
			n, err := open(tables)
			if err != nil {
				return err
			}
			defer n.Close()
			features, err := ethtool.NewEthtool()
			if err != nil {
				return err
			}
			defer features.Close()
			const feature = "tx-checksum-ip-generic"
			set := func() bool {
				all, err := features.Features(device)
				if err != nil {
					t.Fatal(err)
				}
				return all[feature]
			}
			if _, err := n.pass(); err != nil {
				return err
			}
			if set() != (want == network.On) {
				t.Errorf("%s is %t, want %v", feature, set(), want)
			}
			if err := features.Change(device, map[string]bool{feature: want == network.Off}); err != nil {
				return err
			}
			if err := n.Read(); err != nil {
				return err
			}
			if r, err := n.pass(); err != nil || r.Repaired != 1 || set() != (want == network.On) {
				t.Errorf("somebody else set it: %+v, %v, and it is %t", r, err, set())
			}
			if err := n.Read(); err != nil {
				return err
			}
			if r := n.rec.Pass(time.Now()); r.Set != 0 {
				t.Errorf("a look at what is right set %d: %+v", r.Set, tables.Links.Get(device))
			}
			return nil
		})
	}
}
