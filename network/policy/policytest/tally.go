package policytest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/policy"
)

// Tally counts what a comparison was about: packets by family, protocol and verdict, and what decided.
type Tally map[string]int

// kinds are what a [Tally] counts. An exception is counted if it takes the packet's address out of its block; a kind of
// port, if it is the first in the rule that decided.
func kinds() []string {
	return []string{"IPv4", "IPv6", "TCP", "UDP", "SCTP", "ICMP", "allowed", "denied",
		"NetworkPolicy", "Admin", "Baseline", "isolated", "any port", "all ports",
		"port", "endPort", "named port", "except"}
}

// Add counts a packet and the verdicts on it.
func (t Tally) Add(c *policy.Cluster, p policy.Packet, v [2]policy.Verdict) {
	t[map[bool]string{false: "IPv4", true: "IPv6"}[p.Source.Is6()]]++
	if p.Protocol.HasPorts() {
		t[p.Protocol.String()]++
	} else {
		t["ICMP"]++
	}
	t[map[bool]string{false: "denied", true: "allowed"}[v[policy.Ingress].Allowed && v[policy.Egress].Allowed]]++
	for _, d := range policy.Directions() {
		other := p.Source
		if d == policy.Egress {
			other = p.Destination
		}
		for _, key := range v[d].Isolated {
			for _, m := range c.Policies[key].Rules[d] {
				if slices.ContainsFunc(m.Peers, func(p policy.Peer) bool { return excepted(p, other) }) {
					t["except"]++
				}
			}
		}
		t.rule(c, p, d, v[d])
	}
}

// excepted reports whether a peer's exceptions take an address out of its block.
func excepted(p policy.Peer, a netip.Addr) bool {
	return p.Block.IsValid() && p.Block.Contains(a) &&
		slices.ContainsFunc(p.Except, func(e netip.Prefix) bool { return e.Contains(a) })
}

// rule counts the rule that decided.
func (t Tally) rule(c *policy.Cluster, p policy.Packet, d policy.Direction, v policy.Verdict) {
	var m policy.Match
	switch v.Cause {
	case policy.CauseIsolated:
		t["isolated"]++
		return
	case policy.CauseRule:
		t["NetworkPolicy"]++
		m = c.Policies[v.Policy].Rules[d][v.Rule]
	case policy.CauseClusterAccept, policy.CauseClusterDeny:
		of := c.ClusterWide[v.Policy]
		t[of.Tier.String()]++
		m = of.Rules[d][v.Rule].Match
	default:
		return
	}
	if m.AnyPort {
		t["any port"]++
		return
	}
	for _, have := range m.Ports {
		if have.Name != "" || have.Protocol != p.Protocol || p.Port < have.First || p.Port > have.Last {
			continue
		}
		switch {
		case have.First == have.Last:
			t["port"]++
		case have.Last == 0xffff:
			t["all ports"]++
		default:
			t["endPort"]++
		}
		return
	}
	t["named port"]++ // since no number matches
}

// Missing returns what was not counted once, without some kinds.
func (t Tally) Missing(without ...string) []string {
	return slices.DeleteFunc(kinds(), func(k string) bool { return t[k] > 0 || slices.Contains(without, k) })
}

// String returns the numbers.
func (t Tally) String() string {
	var b strings.Builder
	for _, k := range kinds() {
		fmt.Fprintf(&b, "%s %d, ", k, t[k])
	}
	return strings.TrimSuffix(b.String(), ", ")
}
