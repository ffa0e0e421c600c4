package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// thisNode is the node that judges in most tests.
const thisNode = "n1"

// world is a cluster that a test describes.
type world struct {
	*Cluster
	t *testing.T
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, Cluster: &Cluster{
		Namespaces: map[string]Namespace{}, Pods: map[string]*Pod{}, Policies: map[string]*Policy{},
		ClusterWide: map[string]*ClusterPolicy{},
	}}
}

// labels reads "app=web,tier=front".
func labels(text string) Labels {
	m := map[string]string{}
	for f := range strings.SplitSeq(text, ",") {
		if key, value, ok := strings.Cut(f, "="); ok {
			m[key] = value
		}
	}
	return MakeLabels(m)
}

func (w *world) namespace(name, text string) {
	w.Namespaces[name] = Namespace{Name: name, Labels: labels("kubernetes.io/metadata.name=" + name + "," + text)}
}

// pod adds a pod; its key is "namespace/name".
func (w *world) pod(key, node, text string, addresses ...string) *Pod {
	ns, name, _ := strings.Cut(key, "/")
	p := &Pod{UID: key, Namespace: ns, Name: name, Node: node, Labels: labels(text)}
	for _, a := range addresses {
		addr := netip.MustParseAddr(a)
		p.Addresses[subnet.FamilyOf(addr)] = addr
	}
	w.Pods[p.UID] = p
	return p
}

// standard has two namespaces on two nodes. web has a port "http" with another number on each pod.
func standard(t *testing.T) *world {
	w := newWorld(t)
	w.namespace("red", "team=red,env=prod")
	w.namespace("blue", "team=blue")
	ports := func(n uint16) Ports {
		return MakePorts([]NamedPort{{"http", TCP, n}, {"dns", UDP, 53}})
	}
	w.pod("red/web", "n1", "app=web", "10.0.1.1", "fd00:1::1").Ports = ports(8080)
	w.pod("red/web2", "n1", "app=web,new=yes", "10.0.1.2", "fd00:1::2").Ports = ports(8081)
	w.pod("red/db", "n1", "app=db", "10.0.1.3", "fd00:1::3")
	w.pod("red/far", "n2", "app=far", "10.0.2.3", "fd00:2::3").Ports = ports(9090)
	w.pod("blue/web", "n2", "app=web", "10.0.2.1", "fd00:2::1").Ports = ports(8080)
	w.pod("blue/near", "n1", "app=near", "10.0.1.9", "fd00:1::9")
	return w
}

// policy adds a NetworkPolicy with a spec in the API's JSON; the key is "namespace/name".
func (w *world) policy(key, spec string) *Policy {
	w.t.Helper()
	ns, name, _ := strings.Cut(key, "/")
	p, err := DecodePolicy(fmt.Appendf(nil, `{"metadata":{"namespace":%q,"name":%q},"spec":%s}`, ns, name, spec))
	if err != nil {
		w.t.Fatal(err)
	}
	w.Policies[p.Key()] = &p
	return &p
}

// clusterPolicy adds a ClusterNetworkPolicy with a spec in the API's JSON.
func (w *world) clusterPolicy(name, spec string) *ClusterPolicy {
	w.t.Helper()
	p, err := DecodeClusterPolicy(fmt.Appendf(nil, `{"metadata":{"name":%q},"spec":%s}`, name, spec))
	if err != nil {
		w.t.Fatal(err)
	}
	w.ClusterWide[name] = &p
	return &p
}

// packet reads "red/web > blue/web tcp 80". An end is a pod's key, its key with "@6" for its IPv6 address, or an
// address. The rest is a protocol with a port or an ICMP type, and any of "established", "invalid", "from-node" and
// "to-node".
func (w *world) packet(text string) (p Packet) {
	w.t.Helper()
	end := func(s string) netip.Addr {
		key, six := strings.CutSuffix(s, "@6")
		if pod := w.Pods[key]; pod != nil {
			return pod.Addresses[map[bool]subnet.Family{false: subnet.IPv4, true: subnet.IPv6}[six]]
		}
		return netip.MustParseAddr(s)
	}
	f := strings.Fields(text)
	p.Source, p.Destination = end(f[0]), end(f[2])
	number := func() int {
		n, err := strconv.Atoi(f[4])
		if err != nil {
			w.t.Fatalf("%s: %v", text, err)
		}
		return n
	}
	switch f[3] {
	case "tcp", "udp", "sctp":
		p.Protocol = map[string]Protocol{"tcp": TCP, "udp": UDP, "sctp": SCTP}[f[3]]
		p.Port = uint16(number())
	case "icmp":
		p.Protocol = 1
	case "icmpv6":
		p.Protocol, p.ICMPType = ICMPv6, uint8(number())
	}
	for _, word := range f[4:] {
		switch word {
		case "established":
			p.State = Established
		case "invalid":
			p.State = Invalid
		case "from-node":
			p.FromNode = true
		case "to-node":
			p.ToNode = true
		}
	}
	return p
}

// expect judges a packet and compares "egress-cause ingress-cause", where "+" and the index is a rule that allows, and
// "-" and the index one that denies. Policies follow in their order.
func (w *world) expect(packet, want string) {
	w.t.Helper()
	p := w.packet(packet)
	v := Judge(w, thisNode, p)
	if got := v[Egress].short() + " " + v[Ingress].short(); got != want {
		w.t.Errorf("%s: got %q, want %q", packet, got, want)
	}
}

// short returns the verdict in a few letters.
func (v Verdict) short() string {
	switch v.Cause {
	case CauseRule, CauseClusterAccept:
		return fmt.Sprintf("+%s[%d]", v.Policy, v.Rule)
	case CauseClusterDeny:
		return fmt.Sprintf("-%s[%d]", v.Policy, v.Rule)
	}
	if !v.Allowed {
		return "-" + string(v.Cause)
	}
	return string(v.Cause)
}
