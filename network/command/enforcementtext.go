package command

import (
	"fmt"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// policiesLines describe the enforcement of network policies in a line, and what is wrong with it. There is none if the
// daemon's flags turn it off.
func policiesLines(s status.Status, now time.Time) []string {
	switch {
	case s.Enforcement != nil:
		return enforcementLines(*s.Enforcement, now)
	case s.PoliciesOff == status.PolicyOtherEngine:
		return []string{"not enforced: another program's rules are there; selvaged doctor --check policies names them"}
	case s.PoliciesOff == status.Unsupported:
		return []string{"not enforced: the kernel lacks nf_tables"}
	}
	return nil
}

func enforcementLines(e status.Enforcement, now time.Time) (lines []string) {
	text := "enforced; no policy selects a pod of this node"
	if e.Enforcing {
		text = fmt.Sprintf("enforced for this node's %d pods: %d chains, %d sets with %d addresses and ports",
			e.Pods, e.Chains, e.Sets, e.Elements)
	}
	if !e.Synced {
		text += "; not all policies, namespaces and pods are known yet"
	}
	if e.Waiting > 0 {
		text += fmt.Sprintf("; pods that wait for their rules: %d", e.Waiting)
	}
	if len(e.Closed) > 0 {
		text += fmt.Sprintf("; addresses that are denied all connections until then: %d", len(e.Closed))
	}
	if e.Repairs > 0 {
		text += fmt.Sprintf("; repaired %d times", e.Repairs)
	}
	lines = append(lines, text)
	var lost []string
	for _, s := range e.Sources {
		if !s.Since.IsZero() {
			lost = append(lost, fmt.Sprintf("%s (for %s)", s.Name, ago(now, s.Since)))
		}
	}
	if len(lost) > 0 {
		lines = append(lines, "changes are not seen of "+strings.Join(lost, ", "))
	}
	return lines
}
