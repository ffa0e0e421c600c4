package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// end is one end of a way, in a namespace of its own.
type end struct {
	do   func(func() error) error
	addr netip.Addr
}

// way is from where to where something is measured.
type way struct {
	name     string
	from, to end
	// via is where the near end connects to, if it is not where the far end listens: a Service, or a published port.
	via  netip.AddrPort
	port int // where the far end listens; 0: testPort
}

func (w way) listens() int { return cmp.Or(w.port, testPort) }

// targetAddr is where the near end connects to.
func (w way) targetAddr() netip.AddrPort {
	if w.via.IsValid() {
		return w.via
	}
	return netip.AddrPortFrom(w.to.addr, uint16(w.listens()))
}

// target is the same, for a system call.
func (w way) target() unix.Sockaddr {
	a := w.targetAddr()
	return socketAddressWith(a.Addr(), int(a.Port()))
}

// pathCase is one kind of overlay, between two nodes.
type pathCase struct {
	name    string // of the figures
	what    string
	family  subnet.Family
	backend string // the network config's Backend object; empty: vxlan
	filter  lab.Filter
	leases  int  // of nodes that do not exist
	wire    bool // the underlay takes no packet larger than its MTU
	many    bool // many flows are measured too
	// fast has two more nodes, which use the fast path.
	fast bool
	// services is how many Services each node has rules for, as kube-proxy sets them; 0: it has no such rules.
	services int
}

// config is the case's network config. Of the lab's usual one there are not enough subnets for many leases.
func (c pathCase) config() string {
	if c.leases == 0 {
		return lab.NetworkConfig([]subnet.Family{c.family}, c.backend, c.filter.NFTables)
	}
	return configWith([]subnet.Family{c.family}, fmt.Sprintf(`"EnableNFTables":%s,"Backend":{"Type":"vxlan"}`, c.filter.NFTables))
}

// dataPath is a lab of two nodes with a pod on each, and what its pods are compared with.
type dataPath struct {
	lab                        *lab.Lab
	pods, fast, underlay, veth way
	nets                       []*sandbox.Net // of the veth pair, and of containers in pods
	receivers                  []*lab.Pod     // of pods and of fast
}

// dataPath makes a lab and waits until all leases are in its nodes' kernels.
func (b *bench) dataPath(ctx context.Context, c pathCase) (_ *dataPath, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p := &dataPath{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	count := 2
	if c.fast {
		count = 4
	}
	p.lab, err = lab.New(ctx, lab.Options{
		Nodes: count, Families: []subnet.Family{c.family}, Config: c.config(), IPTables: c.filter.IPTables, Bin: b.Bin,
	})
	if err != nil {
		return nil, err
	}
	nodes := p.lab.Nodes()
	var pods []*lab.Endpoint
	for i, n := range nodes {
		pod, err := p.lab.AddPod(ctx, n, "")
		if err != nil {
			return nil, err
		}
		pods = append(pods, pod.Endpoint)
		if i%2 == 1 {
			p.receivers = append(p.receivers, pod)
		}
	}
	endOf := func(e *lab.Endpoint) end { return end{e.Do, e.Addr(c.family)} }
	p.pods = way{name: "pods", from: endOf(pods[0]), to: endOf(pods[1])}
	p.underlay = way{name: "bare underlay", from: endOf(nodes[0].Endpoint), to: endOf(nodes[1].Endpoint)}
	if c.fast {
		p.fast = way{name: "pods, fast path", from: endOf(pods[2]), to: endOf(pods[3])}
		if err := p.switchFast(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.addVeth(c.family); err != nil {
		return nil, fmt.Errorf("make a veth pair: %w", err)
	}
	if c.wire {
		if err := p.setWire(); err != nil {
			return nil, err
		}
	}
	if c.services > 0 {
		if err := p.setServices(c.services); err != nil {
			return nil, err
		}
	}
	return p, p.addLeases(ctx, c)
}

// addVeth makes two namespaces with nothing but a veth pair between them.
func (p *dataPath) addVeth(f subnet.Family) error {
	const format, v6 = "198.18.0.%d/30", "fd00:18::%d/64" // RFC 2544
	for range 2 {
		n, err := sandbox.NewNet()
		if err != nil {
			return err
		}
		p.nets = append(p.nets, n)
	}
	pair := netlink.NewVeth(netlink.LinkAttrs{Name: "veth0", Namespace: netlink.NsFd(p.nets[0].Fd())})
	pair.PeerName, pair.PeerNamespace = "veth0", netlink.NsFd(p.nets[1].Fd())
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	var ends [2]end
	for i, n := range p.nets {
		text := fmt.Sprintf(format, i+1)
		if f == subnet.IPv6 {
			text = fmt.Sprintf(v6, i+1)
		}
		prefix := netip.MustParsePrefix(text)
		ends[i] = end{n.Do, prefix.Addr()}
		err := n.Do(func() error {
			link, err := netlink.LinkByName("veth0")
			if err != nil {
				return err
			}
			return errors.Join(addAddress(link, text), netlink.LinkSetUp(link))
		})
		if err != nil {
			return err
		}
	}
	p.veth = way{name: "veth pair", from: ends[0], to: ends[1]}
	return nil
}

// setWire has the nodes' uplinks do what a network card does that knows nothing of tunnels: what is larger than the MTU is
// cut into packets before it is sent, and packets that arrive are put together again (GRO). A veth by itself hands on up to
// 64 kB in one piece, VXLAN header and all.
func (p *dataPath) setWire() error {
	cable := wireFeatures() // a veth puts packets together only if its peer cuts them
	cable["rx-gro"] = false // which no switch does
	for _, n := range p.lab.Nodes() {
		if err := n.Do(func() error { return setFeatures(uplink, wireFeatures()) }); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
		if err := setFeatures(n.Name(), cable); err != nil { // its other end has the node's name
			return fmt.Errorf("the port of %s: %w", n.Name(), err)
		}
	}
	return nil
}

func wireFeatures() map[string]bool {
	return map[string]bool{
		"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false, "tx-tcp-ecn-segmentation": false, "tx-tcp-mangleid-segmentation": false,
		"tx-udp_tnl-segmentation": false, "tx-udp_tnl-csum-segmentation": false, "tx-udp-segmentation": false, "rx-gro": true,
	}
}

// setFeatures sets what ethtool -K sets, in the calling thread's namespace.
func setFeatures(link string, features map[string]bool) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open a socket for ethtool: %w", err)
	}
	defer e.Close()
	if err := e.Change(link, features); err != nil {
		return fmt.Errorf("set %v of %s: %w", features, link, err)
	}
	now, err := e.Features(link)
	if err != nil {
		return fmt.Errorf("read the features of %s: %w", link, err)
	}
	for name, want := range features { // the kernel may decide otherwise, and says nothing then
		if now[name] != want {
			return fmt.Errorf("%s of %s stays %t", name, link, now[name])
		}
	}
	return nil
}

// addLeases writes leases of nodes that do not exist, and waits until the nodes that do have routes to all of them.
func (p *dataPath) addLeases(ctx context.Context, c pathCase) error {
	const ops = 100 // etcd takes 128 in one transaction
	leases := cluster{client: p.lab.Etcd().Client(), prefix: "/coreos.com/network", families: []subnet.Family{c.family}, leases: c.leases}
	for from := 0; from < c.leases; from += ops {
		if err := leases.put(ctx, from, min(c.leases, from+ops), 0); err != nil {
			return err
		}
	}
	want := c.leases + len(p.lab.Nodes()) - 1
	for _, n := range p.lab.Nodes() {
		for routes := -1; routes < want; {
			err := n.Do(func() error {
				ours := &netlink.Route{Protocol: network.RouteProtocol}
				all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, ours, netlink.RT_FILTER_PROTOCOL)
				routes = len(all)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: count the routes: %w", n.Name(), err)
			}
			if routes < want && !pause(ctx, 50*time.Millisecond) {
				return fmt.Errorf("%s has %d routes of %d: %w", n.Name(), routes, want, ctx.Err())
			}
		}
	}
	return nil
}

func (p *dataPath) close() error {
	var errs []error
	if p.lab != nil {
		errs = append(errs, p.lab.Close())
	}
	for _, n := range p.nets {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}
