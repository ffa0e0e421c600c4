package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// foreignPods is how many pods of another network are added and removed for one sample. The kernel counts CPU time in
// units of 10 ms, more than one pod takes.
const foreignPods = 100

// foreign adds and removes pods of another network on a node with a growing number of foreign routes and devices, and
// measures the CPU time of the daemon.
func foreign(ctx context.Context, b *bench) error {
	c, err := b.cluster(ctx, few, ipv4())
	if err != nil {
		return err
	}
	p := b.programs()[0]
	_, err = b.start(ctx, p, c, settle, func(n *node, d *daemon) error {
		var alone []float64
		for _, x := range []struct {
			name, what    string
			routes, veths int // in all
		}{
			{"routes=0/veths=0", "nothing else", 0, 0},
			{"routes=1000/veths=0", "1,000 foreign routes", 1000, 0},
			{"routes=100000/veths=0", "100,000 foreign routes", 100_000, 0},
			{"routes=100000/veths=5000", "100,000 foreign routes and 5,000 veths", 100_000, 5000},
		} {
			err := n.host.Do(func() error { return errors.Join(foreignRoutes(x.routes), foreignVeths(x.veths)) })
			if err != nil {
				return fmt.Errorf("%s: %w", x.what, err)
			}
			if !pause(ctx, 2*settle) {
				return ctx.Err()
			}
			var samples []float64
			for range b.Rounds {
				own, _, err := d.cpu()
				if err != nil {
					return err
				}
				for i := range foreignPods {
					if err := n.host.Do(func() error { return foreignPod(i) }); err != nil {
						return fmt.Errorf("a pod of another network: %w", err)
					}
				}
				if !pause(ctx, 200*time.Millisecond) {
					return ctx.Err()
				}
				after, _, err := d.cpu()
				if err != nil {
					return err
				}
				samples = append(samples, milliseconds(after-own)/foreignPods)
			}
			f := Figure{Name: "ForeignPod/" + x.name, Unit: "ms", Samples: samples,
				What: "CPU of the daemon for a pod of another network, added and removed: " + x.what}
			if alone == nil {
				alone = samples
			} else {
				f.Floor = inTurns("with nothing else", samples, alone)
				f.Limit, f.LimitIs = atMost(2*median(alone)), "2 × with nothing else"
			}
			b.report.add(f)
		}
		return nil
	})
	return err
}

// foreignRoutes adds static routes until there are n.
func foreignRoutes(n int) error {
	link, err := netlink.LinkByName(uplink)
	if err != nil {
		return err
	}
	for i := range n {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_BGP,
			Dst: &net.IPNet{IP: net.IPv4(11, byte(i>>16), byte(i>>8), byte(i)).To4(), Mask: net.CIDRMask(32, 32)}}
		if err := netlink.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// foreignVeths adds veth pairs until there are n devices.
func foreignVeths(n int) error {
	for i := range n / 2 {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("idle%d", i)},
			PeerName: fmt.Sprintf("eldi%d", i)}
		if err := netlink.LinkAdd(v); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// foreignPod adds and removes what a CNI plugin adds to the node for a pod: a veth pair, an address and a route.
func foreignPod(i int) error {
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("pod%d", i)}, PeerName: fmt.Sprintf("peer%d", i)}
	if err := netlink.LinkAdd(v); err != nil {
		return err
	}
	peer, err := netlink.LinkByName(v.PeerName)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: v.Index, Scope: unix.RT_SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IPv4(10, 99, byte(i>>8), byte(i)).To4(), Mask: net.CIDRMask(32, 32)}}
	return errors.Join(netlink.LinkSetUp(v), netlink.LinkSetUp(peer),
		addAddress(v, fmt.Sprintf("172.20.%d.1/24", i%250)), netlink.RouteAdd(route), netlink.LinkDel(v))
}
