package doctor

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// log is where the daemon's is.
const log = "journalctl -u selvaged -n 50"

func checkDaemon(f Facts) (all []Finding) {
	if f.Status == nil {
		if errors.Is(f.DaemonErr, status.ErrNotRunning) {
			return []Finding{failure("systemctl start selvaged; if it ends again, "+log+" says why", "%v", f.DaemonErr)}
		}
		return []Finding{failure("systemctl restart selvaged, which interrupts nothing; and report it, with "+log,
			"selvaged runs and does not answer: %v", f.DaemonErr)}
	}
	s := f.Status
	for _, p := range s.Problems {
		if slices.Contains([]string{"pending", "etcd", filterTopic, fightTopic, status.AheadTopic}, p.Topic) || slices.Contains(kinds(), p.Topic) {
			continue // see entries, etcd, filter, fights and routes
		}
		all = append(all, failure(cure(p), "%s: %s, for %s", p.Topic, p.Text, f.Now.Sub(p.Since).Round(time.Second)))
	}
	all = append(all, fights(f)...)
	switch {
	case s.State == status.Starting && len(s.Problems) == 0:
		all = append(all, failure(log+" says what it waits for", "selvaged is not ready, for %s", f.Now.Sub(s.Started).Round(time.Second)))
	case s.State == status.Ready:
		all = append(all, passed("selvaged %s is ready", s.Version))
	}
	return all
}

// Topics of problems that the daemon names.
const (
	filterTopic = "packet filter"
	fightTopic  = "fight" // somebody else keeps changing something
)

// kinds are those of entries in the kernel, in the order in which they are made.
func kinds() []string {
	return []string{"vtep", "link", "address", "fdb", "neighbour", "nexthop", "route", "sysctl"}
}

// fights says as one what somebody keeps changing: one setting changed changes others.
func fights(f Facts) (all []Finding) {
	var texts []string
	advice := ""
	for _, p := range f.Status.Problems {
		if p.Topic == fightTopic {
			texts, advice = append(texts, p.Text), cure(p)
		}
	}
	if len(texts) > 0 {
		all = append(all, failure(advice, "%s", strings.Join(texts, "; ")))
	}
	return all
}

// cure is what to do about a problem that the daemon names.
func cure(p status.Problem) string {
	switch p.Topic {
	case "config":
		if strings.Contains(p.Text, "no network config in the store") {
			return `etcdctl put ` + etcdPrefix + `/config '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}', with a network of your own`
		}
		return "etcdctl get " + etcdPrefix + "/config shows it; write a better one with etcdctl put " + etcdPrefix + "/config"
	case "start", "uplink":
		return "ip -brief address shows what there is; bring the interface up, or choose another with --iface"
	case fightTopic:
		return "find who changes it: a network manager, a configuration tool, another overlay's agent; dist/host has what keeps those off"
	case "subnet file", "leases kept", "MAC address":
		return "see that the directory is there and can be written to: df, mount, ls -ld"
	case "lease":
		return "make room: selvaged release SUBNET for nodes that are gone, or a larger Network in the network config"
	}
	return log + " says more"
}
