package doctor

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// log is the command that shows the daemon's log.
const log = "journalctl -u selvaged -n 50"

func checkDaemon(f Facts) (all []Finding) {
	if f.Status == nil {
		if errors.Is(f.DaemonErr, status.ErrNotRunning) {
			return []Finding{failure("systemctl start selvaged; if it exits again, see "+log, "%v", f.DaemonErr)}
		}
		return []Finding{failure("systemctl restart selvaged, which interrupts no traffic; report it, with "+log,
			"selvaged runs but does not answer: %v", f.DaemonErr)}
	}
	s := f.Status
	for _, p := range s.Problems {
		if !f.covered(p) {
			since := f.Now.Sub(p.Since).Round(time.Second)
			found := failure(f.remedy(p.Code), "%s: %s, for %s", p.Topic, p.Text, since)
			if p.Warning {
				found.Level = Warning
			}
			all = append(all, found)
		}
	}
	all = append(all, conflicts(f)...)
	switch {
	case s.State == status.Starting && len(s.Problems) == 0:
		all = append(all, failure(log+" shows what it waits for",
			"selvaged is not ready, for %s", f.Now.Sub(s.Started).Round(time.Second)))
	case s.State == status.Ready:
		all = append(all, passed("selvaged %s is ready", s.Version))
	}
	return all
}

// covered reports whether a check that is to be run covers a problem, or conflicts below.
func (f Facts) covered(p status.Problem) bool {
	switch check := f.checkOf(p); check {
	case "":
		return false
	case peersCheck: // which may be unable to probe
		return f.selects(check) && f.ProbeErr == nil
	default:
		return f.selects(check)
	}
}

// checkOf returns the name of the check that covers a problem; empty: only the check of the daemon does.
func (f Facts) checkOf(p status.Problem) string {
	switch p.Code {
	case status.Conflict:
		return daemonCheck
	case status.CachedLeases, status.StoreDown:
		return f.storeCheck()
	case status.ForwardingOff:
		return "forwarding"
	case status.PolicyNotApplied, status.PolicyBridge, status.PolicyIPVS, status.PolicyPodClosed,
		status.PolicyPodWaiting, status.PolicySourceLost, status.PolicyNotRemoved, status.PolicyDropsUnread:
		return policiesCheck
	case status.FastPathNotPinned, status.FastPathNotRemoved:
		return fastPathCheck
	case status.PacketsDropped, status.RulesNotSet:
		return "filter"
	case status.EntriesPending:
		return "entries"
	case status.RouteShadowed, status.SubnetOverlaps:
		return "routes"
	case status.SubnetChanged:
		return "bridge"
	case status.NeighbourShadowed, status.RecordDamaged, status.GatewayDuplicate:
		return "pods"
	case status.PeerUnreachable, status.AllUnreachable, status.PacketLoss:
		return peersCheck
	}
	if _, is := fastPathRemedies()[p.Code]; is && p.Kind == "" { // else it is of a kernel entry
		return fastPathCheck
	}
	if p.Kind != "" {
		return "entries"
	}
	return ""
}

// conflicts returns one finding for all conflicts: one changed setting often changes others.
func conflicts(f Facts) []Finding {
	var texts []string
	for _, p := range f.Status.Problems {
		if p.Code == status.Conflict {
			texts = append(texts, fmt.Sprint(p.Text))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return []Finding{failure("find the process that changes it: a network manager, a configuration tool, another "+
		"overlay's agent; dist/host has settings that keep those away", "%s", strings.Join(texts, "; "))}
}

// remedy returns what to do about a problem that the daemon reports.
func (f Facts) remedy(code status.Reason) string {
	store := f.store()
	switch code {
	case status.ConfigMissing:
		return store.writeConfig()
	case status.ConfigRejected, status.ConfigDeleted:
		return store.replaceConfig()
	case status.StartFailed, status.NoUplink:
		return "ip -brief address shows the interfaces; bring the uplink up, or select another with --iface"
	case status.UnderlayRoute:
		return "ip route add PREFIX via GATEWAY dev UPLINK, to the other nodes' public IPs; " +
			"or select another uplink with --iface"
	case status.PolicyRule:
		return "ip rule; ip route show table all; remove what is not yours"
	case status.PacketLoss:
		_, advice := f.lossWords(lostSomewhere)
		return advice
	case status.FDBShadowed:
		return "bridge fdb show; remove what is not yours"
	case status.ReversePath:
		return "sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2, and find what sets it to 1"
	case status.FileNotWritten:
		return "check that the directory exists and is writable: df, mount, ls -ld"
	case status.KeyFile:
		return "repair the file before the next start of selvaged, or run selvaged rotate-key"
	case status.NotAllocated:
		return f.kubernetes().notAllocated()
	case status.SubnetOutside:
		return f.kubernetes().outside()
	case status.NotAnnounced:
		return "grant the daemon patch on nodes/status, as the manifest's ClusterRole does; a Node with the " +
			"condition NetworkUnavailable gets no pods"
	case status.AdviceBad:
		return f.kubernetes().annotate()
	case status.NoLease:
		return store.noLease()
	case status.LeasesDisputed:
		return "find who writes the annotation selvage.io/pod-cidrs of these Nodes, which their spec.podCIDRs " +
			"contradict; the manifest's admission policy lets each daemon write on its own Node alone"
	case status.LeasesUnread:
		return "kubectl get node NODE -o yaml shows whether the API server can read it; the daemon needs get on nodes"
	}
	return log + " shows details"
}
