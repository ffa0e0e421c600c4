package command

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy"
)

// showPolicies shows a list of policies as a table, and what was not understood of them.
func showPolicies(w io.Writer, all status.Policies) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tTIER\tPODS\tINGRESS\tEGRESS\tSELECTS")
	for _, p := range all.Policies {
		tier, selects := "-", p.Selects
		if p.Priority != nil {
			tier = fmt.Sprintf("%s %d", p.Tier, *p.Priority)
		}
		if selects == "" {
			selects = "none"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n",
			p.Key(), tier, p.Pods, ruleCount(p, policy.Ingress), ruleCount(p, policy.Egress), selects)
	}
	_ = t.Flush() // a terminal, or a pipe whose reader is gone
	for _, p := range all.Policies {
		for _, x := range p.Problems {
			fmt.Fprintf(w, "%s: not understood, and allows nothing: %s: %s\n", p.Key(), x.Place, x.Text)
		}
	}
}

// ruleCount returns the number of a policy's rules in a direction; "-" if it says nothing about the direction.
func ruleCount(p status.Policy, dir policy.Direction) string {
	n := 0
	for _, r := range p.Rules {
		if r.Direction == dir.String() {
			n++
		}
	}
	if n == 0 && !slices.Contains(p.Isolates, dir.String()) {
		return "-"
	}
	if n == 1 {
		return "1 rule"
	}
	return fmt.Sprintf("%d rules", n)
}

// showVerdicts shows verdicts on a connection. Families with the same verdict are shown together, and so are ports.
func showVerdicts(w io.Writer, st style, all []status.PolicyVerdict) {
	for len(all) > 0 {
		n := 1
		for n < len(all) && reflect.DeepEqual(all[n].Ports, all[0].Ports) {
			n++
		}
		fmt.Fprintf(w, "%s -> %s\n",
			endText(all[:n], func(v status.PolicyVerdict) status.PolicyEnd { return v.Source }),
			endText(all[:n], func(v status.PolicyVerdict) status.PolicyEnd { return v.Destination }))
		for _, g := range groupPorts(all[0].Ports) {
			showPorts(w, st, g)
		}
		for _, v := range all[:n] {
			for _, k := range v.Kernel {
				fmt.Fprintf(w, "  kernel     %-7s  %s: %s\n", k.Direction, k.Address, kernelText(st, k))
			}
		}
		all = all[n:]
	}
}

// kernelText says what nf_tables has about a pod of the node.
func kernelText(st style, k status.PolicyKernel) string {
	switch {
	case k.Closed:
		return st.bad("closed") + ": all its packets are denied until its rules are in force"
	case !k.InForce:
		return st.bad("not in force") + ": nf_tables does not have what the policies demand; see selvaged status"
	case k.Bypassed != "":
		return st.bad("not in force") + " between pods of this node: net.bridge." + k.Bypassed +
			" is not 1; see selvaged status"
	case k.Chain == "":
		return "in force: no rules, since no policy decides"
	}
	return fmt.Sprintf("in force, chain %s of table inet %s; it denied %d packets", k.Chain, k.Table, k.Denied)
}

// endText returns an end of a connection: the pod and its addresses.
func endText(all []status.PolicyVerdict, end func(status.PolicyVerdict) status.PolicyEnd) string {
	var addresses []string
	for _, v := range all {
		addresses = append(addresses, end(v).Address.String())
	}
	text := strings.Join(addresses, ", ")
	if e := end(all[0]); e.Pod != "" {
		text = e.Pod + " (" + text + ")"
	}
	return text
}

// groupPorts groups ranges of ports for which the same was decided.
func groupPorts(all []status.PortVerdict) (groups [][]status.PortVerdict) {
	same := func(a, b status.PortVerdict) bool {
		return reflect.DeepEqual(a.Egress, b.Egress) && reflect.DeepEqual(a.Ingress, b.Ingress)
	}
	for _, p := range all {
		i := slices.IndexFunc(groups, func(g []status.PortVerdict) bool { return same(g[0], p) })
		if i < 0 {
			groups = append(groups, []status.PortVerdict{p})
		} else {
			groups[i] = append(groups[i], p)
		}
	}
	return groups
}

// portsText returns ranges of ports as text.
func portsText(all []status.PortVerdict) string {
	var texts []string
	whole := 0
	for _, p := range all {
		switch {
		case p.Protocol == status.ProtocolOther:
			texts = append(texts, "ICMP and others")
			whole++
		case p.Last == 0:
			texts = append(texts, p.Protocol)
		case p.First == 0 && p.Last == 0xffff:
			texts = append(texts, p.Protocol)
			whole++
		case p.First == p.Last:
			texts = append(texts, fmt.Sprintf("%d/%s", p.First, p.Protocol))
		default:
			texts = append(texts, fmt.Sprintf("%d-%d/%s", p.First, p.Last, p.Protocol))
		}
	}
	if whole == len([]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP})+1 {
		return "any protocol and port"
	}
	return strings.Join(texts, ", ")
}

// showPorts shows what was decided about a group of ports.
func showPorts(w io.Writer, st style, group []status.PortVerdict) {
	p := group[0]
	verdict := st.bad("denied")
	if p.Allowed {
		verdict = st.good("allowed")
	}
	fmt.Fprintf(w, "  %s: %s\n", portsText(group), verdict)
	for _, d := range []struct {
		dir policy.Direction
		status.PolicyDecision
	}{{policy.Egress, p.Egress}, {policy.Ingress, p.Ingress}} {
		word := "denied "
		if d.Allowed {
			word = "allowed"
		}
		fmt.Fprintf(w, "    %-7s  %s  %s\n", d.dir, word, decisionText(d.dir, d.PolicyDecision))
		for _, m := range d.Missed {
			fmt.Fprintf(w, "                      not by %s: %s\n", ruleText(m.Policy, m.Rule), missText(m))
		}
	}
}

// decisionText says why a direction is allowed or denied.
func decisionText(dir policy.Direction, d status.PolicyDecision) string {
	subject := d.Pod
	if d.Node != "" {
		subject += " on " + d.Node
	}
	if subject != "" {
		subject += ": "
	}
	rule := ""
	if d.Rule != nil {
		rule = ruleText(d.Policy, *d.Rule)
	}
	switch policy.Cause(d.Cause) {
	case policy.CauseNoPod:
		return "the address is not a pod's, so no policy is about it"
	case policy.CauseNode:
		return subject + "the other end is its own node"
	case policy.CauseNotIsolated:
		return subject + "no policy decides about its " + dir.String()
	case policy.CauseItself:
		return subject + "a pod can reach itself"
	case policy.CauseRule, policy.CauseClusterAccept, policy.CauseClusterDeny:
		return subject + "by " + rule
	case policy.CauseIsolated:
		return subject + "isolated by " + strings.Join(d.Isolated, ", ") + ", and no rule matches"
	default:
		return subject + d.Cause
	}
}

// ruleText returns a rule of a policy as text.
func ruleText(name string, r status.NetworkPolicyRule) string {
	text := fmt.Sprintf("%s %s[%d]", name, r.Direction, r.Index)
	if r.Name != "" {
		text += " " + r.Name
	}
	list := func(all []string, any string) string {
		switch {
		case all == nil:
			return any
		case len(all) == 0:
			return "nothing"
		}
		return strings.Join(all, ", ")
	}
	word := "from"
	if r.Direction == policy.Egress.String() {
		word = "to"
	}
	return fmt.Sprintf("%s (%s %s; %s)", text, word, list(r.Peers, "all"), list(r.Ports, "all ports"))
}

// missText says what of a rule does not match.
func missText(m status.MissedRule) string {
	switch {
	case m.Peer:
		return "the port does not match"
	case m.Port:
		return "the peer does not match"
	default:
		return "neither peer nor port matches"
	}
}
