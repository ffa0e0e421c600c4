package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ingressPolicy is a policy that lets some addresses connect to some pods of a node, to one port.
type ingressPolicy struct {
	name     string
	subjects []netip.Addr // of the node's pods that it selects
	peers    []netip.Addr
}

// kubeRouter is what a node with kube-router (2.5, with iptables) holds for ingress policies: its chains and sets, in
// the order in which a forwarded packet meets them. What concerns packets that the node makes or gets itself is left
// out.
//
//	FORWARD → KUBE-ROUTER-FORWARD
//	  for each pod of the node, to it and from it, and again for packets that are bridged: → KUBE-POD-FW-…
//	  the mark of what is allowed: accept
//	KUBE-POD-FW-…, one for each pod
//	  → KUBE-NWPLCY-COMMON: invalid: drop; related, established: accept; some ICMP: accept
//	  from the node: accept
//	  a direction without any policy → KUBE-NWPLCY-DEFAULT, which sets the mark
//	  for each policy that selects the pod → KUBE-NWPLCY-…
//	  without the mark: log, reject
//	KUBE-NWPLCY-…, one for each policy
//	  sources in a set, destinations in a set, protocol, port: set the mark
//	  the mark: return
type kubeRouter struct {
	pods     []netip.Addr
	policies []ingressPolicy
	port     int // of all policies, TCP and UDP
}

// marks of kube-router.
const (
	allowedMark = "0x10000/0x10000" // by a policy
	passedMark  = "0x20000/0x20000" // the whole chain of a pod
)

// chainName returns the name of something with a text, as kube-router makes it: a hash in 16 characters.
func chainName(prefix, text string) string {
	sum := sha256.Sum256([]byte(text))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:16]
}

func (k kubeRouter) podChain(a netip.Addr) string { return chainName("KUBE-POD-FW-", a.String()) }
func policyRules(p ingressPolicy) string          { return chainName("KUBE-NWPLCY-", p.name) }

// sets returns them in the language of ipset restore.
func (k kubeRouter) sets() string {
	var b strings.Builder
	add := func(name string, addresses []netip.Addr) {
		fmt.Fprintf(&b, "create %s hash:ip family inet hashsize 1024 maxelem 65536 timeout 0\n", name)
		for _, a := range addresses {
			fmt.Fprintf(&b, "add %s %s timeout 0\n", name, a)
		}
	}
	for _, p := range k.policies {
		add(chainName("KUBE-SRC-", p.name), p.peers)
		add(chainName("KUBE-DST-", p.name), p.subjects)
	}
	return b.String()
}

// rules returns them in the language of iptables-restore.
func (k kubeRouter) rules() string {
	var chains, rules bytes.Buffer
	chain := func(name string) { fmt.Fprintf(&chains, ":%s - [0:0]\n", name) }
	rule := func(chain, format string, args ...any) {
		fmt.Fprintf(&rules, "-A "+chain+" "+format+"\n", args...)
	}
	const forward, common, usual = "KUBE-ROUTER-FORWARD", "KUBE-NWPLCY-COMMON", "KUBE-NWPLCY-DEFAULT"
	for _, name := range []string{forward, common, usual} {
		chain(name)
	}
	rule("FORWARD", "-m comment --comment \"network policies\" -j "+forward)
	rule(common, "-m conntrack --ctstate INVALID -j DROP")
	rule(common, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	for _, kind := range []string{"echo-request", "destination-unreachable", "time-exceeded"} {
		rule(common, "-p icmp --icmp-type %s -j ACCEPT", kind)
	}
	rule(usual, "-j MARK --set-xmark "+allowedMark)
	for _, p := range k.policies {
		name := policyRules(p)
		chain(name)
		for _, protocol := range []string{"tcp", "udp"} {
			match := fmt.Sprintf("-m comment --comment \"allowed by %s\" -m set --match-set %s src "+
				"-m set --match-set %s dst -p %s --dport %d",
				p.name, chainName("KUBE-SRC-", p.name), chainName("KUBE-DST-", p.name), protocol, k.port)
			rule(name, "%s -j MARK --set-xmark %s", match, allowedMark)
			rule(name, "%s -m mark --mark %s -j RETURN", match, allowedMark)
		}
	}
	for _, pod := range k.pods {
		name, comment := k.podChain(pod), fmt.Sprintf("-m comment --comment \"pod %s\"", pod)
		chain(name)
		for _, direction := range []string{"-d", "-s"} {
			rule(forward, "%s %s %s -j %s", comment, direction, pod, name)
			rule(forward, "-m physdev --physdev-is-bridged %s %s %s -j %s", comment, direction, pod, name)
		}
		rule(name, "-j "+common)
		rule(name, "-m addrtype --src-type LOCAL -d %s -j ACCEPT", pod)
		rule(name, "-s %s -j %s", pod, usual) // no policy is about egress
		selecting := slices.DeleteFunc(slices.Clone(k.policies), func(p ingressPolicy) bool {
			return !slices.Contains(p.subjects, pod)
		})
		if len(selecting) == 0 {
			rule(name, "-d %s -j %s", pod, usual)
		}
		for _, p := range slices.Backward(selecting) {
			rule(name, "-d %s -m comment --comment \"policy %s\" -j %s", pod, p.name, policyRules(p))
		}
		rule(name, "-m mark ! --mark %s -m limit --limit 10/minute --limit-burst 10 -j NFLOG --nflog-group 100",
			allowedMark)
		rule(name, "-m mark ! --mark %s -j REJECT", allowedMark)
		rule(name, "-j MARK --set-xmark 0x0/0x10000")
		rule(name, "-j MARK --set-xmark "+passedMark)
	}
	rule(forward, "-m mark --mark %s -j ACCEPT", passedMark)
	return "*filter\n" + chains.String() + rules.String() + "COMMIT\n"
}

// apply replaces what a node holds. do runs a function in the node's namespaces.
func (k kubeRouter) apply(do func(func() error) error) error {
	for _, c := range []struct {
		input string
		argv  []string
	}{
		{"*filter\nCOMMIT\n", []string{"iptables-nft-restore"}}, // empties the table: rules use the sets
		{"destroy\n" + k.sets(), []string{"ipset", "restore"}},
		{k.rules(), []string{"iptables-nft-restore"}},
	} {
		if err := restore(do, c.input, c.argv...); err != nil {
			return err
		}
	}
	return nil
}
