package fastpath

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/sandbox/sandboxtest"
)

// lab is two nodes on a link, each with a VXLAN device, a bridge and two pods, as the daemon and the CNI plugins leave
// them. Number 1 and 2 of each are, with IPv4:
//
//	pods 10.5.n.2 .3 ── bridge 10.5.n.1 ── node n ── flannel.1 10.5.n.0 ── eth0 192.0.2.n ── the other node
//
// The device is not used where the underlay is without a tunnel: as with DirectRouting.
//
// Rules drop what conntrack takes for invalid, as kube-proxy's do, and the first pod of node 2 is the endpoint of a
// service.
type lab struct {
	t              testing.TB
	pods, underlay labFamily
	service        netip.Addr // UDP with port 53 and TCP with port 80
	nodes          [2]*labNode
}

type labNode struct {
	*sandbox.Net
	pods     [2]*labPod
	path     *Path
	config   Config
	roles    map[int]Role
	underlay netip.Addr
	subnet   netip.Prefix
	wire     *tap // what arrives at the uplink
}

type labPod struct {
	*sandbox.Net
	addr      netip.Addr
	mac, gate [6]byte // its own and the bridge's
	port      int     // ifindex of the host's end
	tap       *tap    // what arrives at eth0
}

const patient = 2 * time.Minute // the limit of any wait

func newLab(t testing.TB, pods, underlay labFamily) *lab {
	t.Helper()
	l := &lab{t: t, pods: pods, underlay: underlay, service: netip.MustParseAddr(pods.service)}
	for i := range l.nodes {
		n := &labNode{
			Net: newNet(t), underlay: underlay.node(i + 1), roles: map[int]Role{},
			subnet: netip.PrefixFrom(pods.podAddr(i+1, 0), pods.subnet),
		}
		l.nodes[i] = n
		l.do(n, noDAD)
		for j := range n.pods {
			n.pods[j] = &labPod{Net: newNet(t), addr: pods.podAddr(i+1, j+2)}
			l.do(n.pods[j], noDAD)
		}
	}
	l.do(l.nodes[0], func() error {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: "eth0", TxQLen: 1000})
		veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(l.nodes[1].Fd())
		return netlink.LinkAdd(veth)
	})
	for _, n := range l.nodes {
		l.makeNode(n)
		if n.underlay.Is6() && !underlay.direct { // else checksums are left to the interface, which never computes them
			l.do(n, func() error { return setWire(true) })
		}
	}
	for i, n := range l.nodes {
		l.addPeer(n, l.nodes[1-i])
	}
	for _, n := range l.nodes {
		n.wire = l.newTap(n.Net)
		for _, p := range n.pods {
			p.tap = l.newTap(p.Net)
		}
	}
	return l
}

var newNet = sandboxtest.NewNet

// in calls a function in a namespace.
type in interface{ Do(func() error) error }

func (l *lab) do(ns in, f func() error) {
	l.t.Helper()
	if err := ns.Do(f); err != nil {
		l.t.Fatal(err)
	}
}

// feed runs a program that reads commands.
func (l *lab) feed(ns in, commands string, argv ...string) {
	l.t.Helper()
	l.do(ns, func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(commands, "\t", ""))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
		return nil
	})
}

// run runs shell commands in a namespace.
func (l *lab) run(ns in, commands string) {
	l.t.Helper()
	l.do(ns, func() error {
		out, err := exec.Command("sh", "-ec", commands).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", commands, err, out)
		}
		return nil
	})
}

func (l *lab) makeNode(n *labNode) {
	l.t.Helper()
	gateway := n.subnet.Addr().Next()
	mtu := 1500 - vxlanLength(n.underlay) + 14
	wire := 1500
	if l.underlay.direct { // less than a pod's as well
		wire = mtu
	}
	l.feed(n, strings.NewReplacer("NODE/", fmt.Sprintf("%s/%d", n.underlay, l.underlay.link), "NODE", n.underlay.String(),
		"BRIDGE", fmt.Sprintf("%s/%d", gateway, n.subnet.Bits()), "UPMTU", fmt.Sprint(wire), "MTU", fmt.Sprint(mtu),
		"DEVICE", n.subnet.Addr().String()).Replace(`
		link set lo up
		addr add NODE/ dev eth0
		link set eth0 mtu UPMTU up
		link add cni0 type bridge forward_delay 0
		addr add BRIDGE dev cni0
		link set cni0 up
		link add flannel.1 mtu MTU type vxlan id 1 local NODE dstport 8472 nolearning noudpcsum
		addr add DEVICE dev flannel.1
		link set flannel.1 up
		`), "ip", "-batch", "-")
	l.feed(n, strings.NewReplacer("PODS", l.pods.pods, "SERVICE", l.service.String(),
		"UDP", netip.AddrPortFrom(l.nodes[1].pods[0].addr, 5353).String(),
		"TCP", netip.AddrPortFrom(l.nodes[1].pods[0].addr, 7000).String()).Replace(`*filter
		-A FORWARD -m conntrack --ctstate INVALID -j DROP
		COMMIT
		*nat
		-A POSTROUTING -s PODS ! -d PODS -j MASQUERADE
		-A PREROUTING -d SERVICE -p udp --dport 53 -j DNAT --to-destination UDP
		-A PREROUTING -d SERVICE -p tcp --dport 80 -j DNAT --to-destination TCP
		COMMIT
		`), l.pods.iptables)
	l.do(n, func() error {
		for path, value := range map[string]string{
			"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "netfilter/nf_conntrack_tcp_be_liberal": "1",
		} {
			if err := write(path, value); err != nil {
				return err
			}
		}
		device, uplink := l.link("flannel.1"), l.link("eth0")
		n.config = Config{
			Local: n.underlay, Port: 8472, VNI: 1, Device: device.Attrs().Index, MTU: device.Attrs().MTU,
			MAC: [6]byte(device.Attrs().HardwareAddr), Established: 5 * 24 * time.Hour,
			Life: time.Hour, // on a busy machine a second is short
		}
		if l.underlay.direct {
			n.config.Direct, n.config.Device, n.config.MTU = true, uplink.Attrs().Index, uplink.Attrs().MTU
		}
		n.roles[device.Attrs().Index], n.roles[uplink.Attrs().Index] = Device, Uplink
		return nil
	})
	for j, p := range n.pods {
		l.do(n, func() error {
			bridge := l.link("cni0").Attrs().Index
			veth := netlink.NewVeth(netlink.LinkAttrs{Name: fmt.Sprintf("veth%d", j), MasterIndex: bridge})
			veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(p.Fd())
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
			return netlink.LinkSetUp(veth)
		})
		l.feed(p, fmt.Sprintf("link set lo up\naddr add %s/%d dev eth0\nlink set eth0 up\nroute add default via %s\n",
			p.addr, l.pods.subnet, gateway), "ip", "-batch", "-")
		// Taps see all before that rule. Without it the pod's kernel would answer that the port is closed.
		l.feed(p, "*raw\n-A PREROUTING -p udp -j DROP\nCOMMIT\n", l.pods.iptables)
		l.do(p, func() error { p.mac = [6]byte(l.link("eth0").Attrs().HardwareAddr); return nil })
		l.do(n, func() error { p.port = l.link(fmt.Sprintf("veth%d", j)).Attrs().Index; return nil })
		n.roles[p.port] = Port
	}
	l.do(n, func() error { // it was the lowest of its ports' until now
		for _, p := range n.pods {
			p.gate = [6]byte(l.link("cni0").Attrs().HardwareAddr)
		}
		return nil
	})
}

// link is called inside of do.
func (l *lab) link(name string) netlink.Link {
	link, err := netlink.LinkByName(name)
	if err != nil {
		l.t.Errorf("link %s: %v", name, err) // not Fatal, which must not be called there
		return &netlink.Dummy{}
	}
	return link
}

// addPeer sets what the daemon sets for another node's lease.
func (l *lab) addPeer(n, peer *labNode) {
	l.t.Helper()
	if l.underlay.direct {
		l.run(n, fmt.Sprintf("ip route add %s via %s dev eth0", peer.subnet, peer.underlay))
		return
	}
	mac := net.HardwareAddr(peer.config.MAC[:])
	l.run(n, strings.NewReplacer("NET", peer.subnet.String(), "GATE", peer.subnet.Addr().String(), "MAC", mac.String(),
		"PEER", peer.underlay.String()).Replace(`
		ip route add NET via GATE dev flannel.1 onlink
		ip neigh add GATE lladdr MAC dev flannel.1 nud permanent
		bridge fdb append MAC dev flannel.1 dst PEER self permanent`))
}

// open makes a node's fast path and has it work, with pins if there is a directory for them.
func (l *lab) open(n *labNode, pins string) {
	l.t.Helper()
	path, err := Open(Options{Pins: pins, Flows: 1024})
	if err != nil {
		l.t.Fatal(err)
	}
	n.path = path
	l.t.Cleanup(func() {
		if n.path == path {
			l.do(n, path.Remove)
		}
	})
	l.configure(n)
	for _, other := range l.nodes {
		if other != n {
			if err := path.SetPeer(other.subnet, l.peer(other)); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	if err := path.Beat(time.Hour); err != nil {
		l.t.Fatal(err)
	}
	if set, _ := l.apply(n); set == 0 && pins == "" {
		l.t.Fatal("nothing was attached")
	}
}

// peer is a node as the programs of the other one know it.
func (l *lab) peer(n *labNode) Peer {
	return Peer{Address: n.underlay, MAC: n.config.MAC, Direct: l.underlay.direct}
}

// apply brings the attachments of a node in sync, and returns how many it set and removed.
func (l *lab) apply(n *labNode) (set, removed int) {
	l.t.Helper()
	l.do(n, func() error {
		have, err := n.path.Attachments()
		if err != nil {
			return err
		}
		toSet, toRemove := Plan(n.path.Want(n.roles), have)
		set, removed = len(toSet), len(toRemove)
		for _, a := range toSet {
			if err := n.path.Attach(a); err != nil {
				return err
			}
		}
		for _, a := range toRemove {
			if err := n.path.Detach(a); err != nil {
				return err
			}
		}
		have, err = n.path.Attachments()
		if err != nil {
			return err
		}
		if toSet, toRemove = Plan(n.path.Want(n.roles), have); len(toSet)+len(toRemove) > 0 {
			return fmt.Errorf("after all was attached, there is still to set %v and to remove %v", toSet, toRemove)
		}
		return nil
	})
	return set, removed
}

// counted returns by how much a node's counters grow while f runs, but for those that do not.
func (l *lab) counted(n *labNode, f func()) map[Reason]uint64 {
	l.t.Helper()
	before := l.counters(n)
	f()
	after := l.counters(n)
	grown := map[Reason]uint64{}
	for r := range after {
		if d := after[r] - before[r]; d > 0 {
			grown[Reason(r)] = d
		}
	}
	return grown
}

func (l *lab) counters(n *labNode) Counters {
	l.t.Helper()
	c, err := n.path.Counters()
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// flush makes all void, and waits until something may be learned again.
func (l *lab) flush(n *labNode) {
	l.t.Helper()
	if err := n.path.Flush(); err != nil {
		l.t.Fatal(err)
	}
	l.settled(n)
}

// configure has the settings in force, and waits until something may be learned again.
func (l *lab) configure(n *labNode) {
	l.t.Helper()
	if err := n.path.Configure(n.config); err != nil {
		l.t.Fatal(err)
	}
	l.settled(n)
}

// settled waits until something may be learned.
func (l *lab) settled(n *labNode) {
	l.t.Helper()
	l.eventually("the time after a flush ends", func() bool {
		now, err := monotonic()
		if err != nil {
			l.t.Fatal(err)
		}
		return now > n.path.control[0].LearnFrom+uint64(quarantine) // the programs' clock is a little behind
	})
}

// age makes all entries of a node a second older.
func (l *lab) age(n *labNode) {
	l.t.Helper()
	var key programsKey
	var sent programsSent
	all := n.path.objects.Sent.Iterate()
	for all.Next(&key, &sent) {
		sent.Of.Until -= uint64(n.config.Life)
		if err := n.path.objects.Sent.Put(key, sent); err != nil {
			l.t.Fatal(err)
		}
	}
	var received programsReceived
	all = n.path.objects.Received.Iterate()
	for all.Next(&key, &received) {
		received.Of.Until -= uint64(n.config.Life)
		if err := n.path.objects.Received.Put(key, received); err != nil {
			l.t.Fatal(err)
		}
	}
}

// entries is the number of connections that a node can send by.
func (l *lab) entries(n *labNode) (count int) {
	var key programsKey
	var sent programsSent
	for all := n.path.objects.Sent.Iterate(); all.Next(&key, &sent); {
		count++
	}
	return count
}

// eventually waits for a condition.
func (l *lab) eventually(what string, condition func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(patient); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("not in time: %s", what)
		}
	}
}

// output is what a command prints that may fail.
func (l *lab) output(ns in, command string) (out []byte) {
	l.t.Helper()
	l.do(ns, func() error { out, _ = exec.Command("sh", "-c", command).CombinedOutput(); return nil })
	return out
}
