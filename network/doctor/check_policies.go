package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/filter/engines"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

const policiesCheck = "policies"

// checkPolicies checks the enforcement of network policies. Without it, it names who else enforces them.
func checkPolicies(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil
	}
	if f.Status.Enforcement == nil {
		return append(f.policyProblems(), f.policiesOff())
	}
	for _, e := range f.Engines {
		all = append(all, warning(removal(e)+"; else set --network-policy=off",
			"beside selvage, rules of %s enforce network policies (%s): a packet has to pass both", e.Name, places(e)))
	}
	all = append(all, f.checkBridgedPackets()...)
	all = append(all, f.policyProblems()...)
	if len(all) == 0 {
		text := "network policies are enforced; none selects a pod of this node"
		if f.Status.Enforcement.Enforcing {
			text = fmt.Sprintf("network policies are enforced for %d pods", f.Status.Enforcement.Pods)
		}
		all = append(all, passed("%s", text))
	}
	return all
}

// policyProblems are the problems that the daemon reports.
func (f Facts) policyProblems() (all []Finding) {
	for _, p := range f.Status.Problems {
		if remedy, is := policyRemedies()[p.Code]; is {
			found := failure(remedy, "%s, for %s", p.Text, f.Now.Sub(p.Since).Round(time.Second))
			if p.Warning {
				found.Level = Warning
			}
			all = append(all, found)
		}
	}
	return all
}

// policiesOff says who enforces network policies on a node whose daemon does not.
func (f Facts) policiesOff() Finding {
	text := "selvage enforces no network policies"
	switch f.Status.PoliciesOff {
	case status.PolicyOtherEngine:
		text += ", because there were rules of another engine when it started"
	case status.Unsupported:
		text += ", because the kernel lacks nf_tables"
	}
	var advice []string
	for _, e := range f.Engines {
		text += fmt.Sprintf("; there are rules of %s: %s", e.Name, places(e))
		advice = append(advice, removal(e))
	}
	found := passed("%s", text)
	if f.Status.PoliciesOff == status.PolicyOtherEngine {
		found.Advice = strings.Join(append(advice, "then restart selvaged"), "; ")
	}
	return found
}

// removal says how to remove the rules of an engine.
func removal(e engines.Engine) string {
	return fmt.Sprintf("if %s is not in use any more, remove its rules: %s", e.Name, strings.Join(e.Commands(), "; "))
}

func places(e engines.Engine) string {
	var texts []string
	for _, p := range e.Places {
		texts = append(texts, p.String())
	}
	return abbreviate(texts)
}

// checkBridgedPackets checks that packets between two ports of the pods' bridge are judged.
func (f Facts) checkBridgedPackets() (all []Finding) {
	b, ok := f.bridge()
	if !f.Status.Enforcement.Enforcing || !ok {
		return nil
	}
	for _, family := range subnet.Families() {
		path := bridgeSetting(family)
		value, exists := f.Sysctls[path]
		if !f.uses(family) || value == "1" {
			continue
		}
		if !exists {
			value = "not available"
		}
		all = append(all, failure(fmt.Sprintf("modprobe br_netfilter; sysctl -w %s=1; find what sets it to 0: "+
			"grep -rs bridge-nf /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d", sysctlName(path)),
			"%s is %s: packets between two pods on %s bypass network policies", sysctlName(path), value, b.Name))
	}
	return all
}

// policyRemedies are the problems of the daemon that this check covers, and what to do about them. What the kernel
// lacks for bridged packets is checked above.
func policyRemedies() map[status.Reason]string {
	return map[status.Reason]string{
		status.PolicyNotApplied: log + " shows the kernel's error; until it is gone, the rules of before are in force",
		status.PolicyIPVS: "run kube-proxy with --proxy-mode=nftables or iptables, and \"ipvsadm --clear\" or a " +
			"reboot to remove its services of IPVS; connections to pods' own addresses are judged",
		status.PolicyPodClosed:  "selvaged status shows whether all policies, namespaces and pods are known",
		status.PolicyPodWaiting: "selvaged status shows whether all policies, namespaces and pods are known",
		status.PolicySourceLost: "check that the API server can be reached, and the rights of the daemon: it needs " +
			"list and watch on namespaces, pods, networkpolicies.networking.k8s.io and " +
			"clusternetworkpolicies.policy.networking.k8s.io",
		status.PolicyNotRemoved: log + " shows the kernel's error; if it stays, stop selvaged and run " +
			"\"selvaged cleanup --rules\", or reboot the node",
		status.PolicyDropsUnread: "find the other program that reads the log group 7 of nf_tables, such as ulogd: " +
			"the second number in its line of /proc/net/netfilter/nfnetlink_log is the netlink port, in most cases " +
			"the process ID; give it another group",
	}
}
