package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// serviceAddr is the address of a service that has one pod, and is no address of any interface.
func serviceAddr(f subnet.Family) netip.AddrPort {
	return netip.MustParseAddrPort([...]string{subnet.IPv4: "10.96.0.10:80", subnet.IPv6: "[fd00:96::10]:80"}[f])
}

// kubeProxy is what kube-proxy, in its iptables mode and with a cluster CIDR, sets in the table nat for that service. It
// puts its jumps in front; other tools of the kind append. With last the one in POSTROUTING is appended.
func kubeProxy(f subnet.Family, network netip.Prefix, service, pod netip.AddrPort, last bool) string {
	in := "-I POSTROUTING 1"
	if last {
		in = "-A POSTROUTING"
	}
	host := func(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }
	lines := []string{
		"*nat",
		":KUBE-SERVICES -", ":KUBE-MARK-MASQ -", ":KUBE-POSTROUTING -",
		"-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
		"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
		"-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
		"-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
	}
	for _, protocol := range []string{"udp", "tcp"} {
		match := fmt.Sprintf("-A KUBE-SERVICES -d %s -p %s -m %s --dport %d", host(service.Addr()), protocol, protocol, service.Port())
		lines = append(lines,
			match+" ! -s "+network.String()+" -j KUBE-MARK-MASQ",
			match+" -s "+host(pod.Addr())+" -j KUBE-MARK-MASQ", // hairpin: else the pod gets a packet from itself
			match+" -j DNAT --to-destination "+pod.String())
	}
	lines = append(lines, "-I PREROUTING 1 -j KUBE-SERVICES", "-I OUTPUT 1 -j KUBE-SERVICES", in+" -j KUBE-POSTROUTING", "COMMIT")
	return strings.Join(lines, "\n") + "\n"
}

// noKubeProxy takes it away again.
const noKubeProxy = `*nat
-D PREROUTING -j KUBE-SERVICES
-D OUTPUT -j KUBE-SERVICES
-D POSTROUTING -j KUBE-POSTROUTING
-F KUBE-SERVICES
-F KUBE-POSTROUTING
-F KUBE-MARK-MASQ
-X KUBE-SERVICES
-X KUBE-POSTROUTING
-X KUBE-MARK-MASQ
COMMIT
`

// expectServices: pods and nodes reach a service whose pod is here, and so does that pod itself. kube-proxy's rules come
// before ours, then after them.
func (s *scene) expectServices(ctx context.Context, t *testing.T) {
	service := serviceAddr(s.family)
	for _, last := range []bool{false, true} {
		rules := kubeProxy(s.family, s.network(t), service, s.pod.Echo(s.family), last)
		for _, n := range s.lab.Nodes() {
			s.restore(ctx, t, n, rules)
		}
		for _, row := range []struct {
			what string
			from *lab.Endpoint
			seen string
		}{
			{"the service's own pod", s.pod, "bridge"},
			{"a pod there", s.away, "pod there"},
			{"the node", s.node.Endpoint, "bridge"},
			{"the other node", s.other.Endpoint, "exit there"},
		} {
			s.expectSeen(ctx, t, fmt.Sprintf("%s -> service, kube-proxy last %t", row.what, last), row.from, lab.Sender{}, service, row.seen)
		}
		for _, n := range s.lab.Nodes() {
			s.restore(ctx, t, n, noKubeProxy)
		}
	}
}

func (s *scene) network(t *testing.T) netip.Prefix {
	t.Helper()
	file, err := s.node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	return file.Networks[s.family][0]
}

// restore hands rules to iptables-restore on a node, and leaves alone what is there.
func (s *scene) restore(ctx context.Context, t *testing.T, n *lab.Node, rules string) {
	t.Helper()
	program := [...]string{subnet.IPv4: "iptables-restore", subnet.IPv6: "ip6tables-restore"}[s.family]
	var problems strings.Builder
	err := n.Exec(ctx, []string{program, "--noflush", "--wait"}, lab.Stdio{In: strings.NewReader(rules), Err: &problems})
	if err != nil {
		t.Fatalf("%s: %v: %s\n%s", n.Name(), err, problems.String(), rules)
	}
}
