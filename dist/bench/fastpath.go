package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/subnet"
)

// fastNode is the fast path of a node of a lab. The daemon does not know of it.
type fastNode struct {
	node   *lab.Node
	path   *fastpath.Path
	config fastpath.Config
}

// fastPath has the programs on both nodes, stopped.
func (p *dataPath) fastPath(family subnet.Family) (nodes []*fastNode, err error) {
	for _, n := range p.lab.Nodes() {
		f := &fastNode{node: n}
		if err := f.open(deviceOf(family)); err != nil {
			return nodes, fmt.Errorf("%s: %w", n.Name(), err)
		}
		nodes = append(nodes, f)
	}
	for i, f := range nodes {
		other := nodes[1-i]
		file, err := other.node.Subnet()
		if err != nil {
			return nodes, err
		}
		peer := fastpath.Peer{Address: other.config.Local, MAC: other.config.MAC}
		if err := f.path.SetPeer(file.Subnets[family].Masked(), peer); err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}

func (f *fastNode) open(device string) (err error) {
	if f.path, err = fastpath.Open(fastpath.Options{}); err != nil {
		return err
	}
	return f.node.Do(func() error {
		// Conntrack does not see the windows of fast packets. See the package's comment.
		if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", []byte("1"), 0o644); err != nil {
			return err
		}
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		roles := map[int]fastpath.Role{}
		for _, l := range links {
			switch a := l.Attrs(); {
			case a.Name == device:
				roles[a.Index] = fastpath.Device
				f.config.Device, f.config.MTU, f.config.MAC = a.Index, a.MTU, [6]byte(a.HardwareAddr)
				vxlan, ok := l.(*netlink.Vxlan)
				if !ok {
					return fmt.Errorf("%s is no VXLAN device", device)
				}
				f.config.VNI, f.config.Port = uint32(vxlan.VxlanId), uint16(vxlan.Port)
				local, _ := netip.AddrFromSlice(vxlan.SrcAddr)
				f.config.Local = local.Unmap()
			case a.Name == uplink:
				roles[a.Index] = fastpath.Uplink
			case a.MasterIndex != 0:
				roles[a.Index] = fastpath.Port
			}
		}
		f.config.Established = 5 * 24 * time.Hour
		for a := range f.path.Want(roles) {
			if err := f.path.Attach(a); err != nil {
				return err
			}
		}
		return nil
	})
}

// set has the fast path work, or not.
func (f *fastNode) set(on, direct bool) error {
	f.config.DirectSegments = direct
	life := time.Duration(0)
	if on {
		life = patience
	}
	return errors.Join(f.path.Configure(f.config), f.path.Beat(life))
}

// fastPaths measures pods with the fast path and without it, and the bare underlay, in turns.
func fastPaths(ctx context.Context, b *bench) error {
	filter := lab.Filter{Name: "nftables", IPTables: "none", NFTables: lab.NFTablesOn}
	for _, c := range []pathCase{
		{what: "whole", filter: filter, many: true},
		{what: "wire", filter: filter, wire: true, many: true},
		{what: "whole, IPv6", filter: filter, family: subnet.IPv6, many: true},
		{what: "wire, IPv6", filter: filter, family: subnet.IPv6, wire: true, many: true},
	} {
		b.step("  %s", c.what)
		if err := b.fastPath(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	b.report.note("The fast path is that of network/fastpath, with entries that live for a second. " +
		"\"direct\": large packets go from the uplink to the pod, else from the VXLAN device.")
	return nil
}

func (b *bench) fastPath(ctx context.Context, c pathCase) (err error) {
	p, err := b.dataPath(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	nodes, err := p.fastPath(c.family)
	defer func() {
		for _, f := range nodes {
			err = errors.Join(err, f.path.Close())
		}
	}()
	if err != nil {
		return err
	}
	ways := []struct {
		name       string
		way        way
		on, direct bool
		samples
	}{
		{name: "off", way: p.pods},
		{name: "on", way: p.pods, on: true},
		{name: "direct", way: p.pods, on: true, direct: true},
		{name: "underlay", way: p.underlay},
	}
	for range b.Rounds {
		for i := range ways {
			w := &ways[i]
			for _, f := range nodes {
				if err := f.set(w.on, w.direct); err != nil {
					return err
				}
			}
			if err := w.way.measure(ctx, []load{{"tcp", 1}, {"tcp", manyFlows}, {"udp", 1}}, &w.samples); err != nil {
				return err
			}
		}
	}
	for i, f := range nodes {
		counters, err := f.path.Counters()
		if err != nil {
			return err
		}
		behind := counters[fastpath.ReceivedDecapsulated]
		before := counters[fastpath.SentSegments]
		b.step("  node %d: %d packets fast, %d of these up to the device, %d received fast, %d of these behind it",
			i+1, counters[fastpath.Sent]+before, before, counters[fastpath.Received]+behind, behind)
	}
	off, underlay := &ways[0].samples, &ways[3].samples
	for _, w := range ways[:3] {
		for _, m := range w.order {
			b.report.add(Figure{
				Name: fmt.Sprintf("%s/fastpath=%s/family=%s/underlay=%s", m.name, w.name,
					lab.FamiliesName([]subnet.Family{c.family}), c.underlay()),
				What: fmt.Sprintf("fast path %s, %s: %s", w.name, c.what, m.what), Unit: m.unit, Samples: w.of[m],
				Floor: inTurns("bare underlay", w.of[m], underlay.of[m]), Veth: inTurns("off", w.of[m], off.of[m]),
			})
		}
	}
	return nil
}
