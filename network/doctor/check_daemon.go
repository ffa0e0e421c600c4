package doctor

import (
	"errors"
	"fmt"
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
		if strings.Contains(p.Text, "there is no network config") {
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

func checkEtcd(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil // it is the daemon that asks
	}
	if f.Etcd == nil {
		return []Finding{failure("systemctl restart selvaged, which interrupts nothing", "selvaged cannot say how etcd is: %v", f.EtcdErr)}
	}
	var versions []string
	for _, e := range f.Etcd.Endpoints {
		if e.Error != "" {
			continue
		}
		versions = append(versions, e.Version)
		all = append(all, checkMember(e, f.Now)...)
	}
	for _, e := range f.Etcd.Endpoints {
		switch {
		case e.Error == "" || aboutUser(e.Error):
		case len(versions) > 0:
			all = append(all, warning(memberCure(e), "%s: %s; the others answer", e.URL, e.Error))
		default:
			all = append(all, failure(memberCure(e), "%s: %s", e.URL, e.Error))
		}
	}
	if f.Etcd.Rights != "" && (aboutUser(f.Etcd.Rights) || len(versions) > 0) {
		all = append(all, failure(rightsCure(f.Etcd.Rights), "%s", f.Etcd.Rights))
	}
	if !f.Etcd.CertificateEnds.IsZero() {
		all = append(all, checkCertificate("selvaged's own certificate for etcd", f.Etcd.CertificateEnds, f.Now)...)
	}
	if o := f.Status.Etcd.Outage; o != nil && len(all) == 0 {
		all = append(all, failure("see whether it lasts: selvaged status --watch", "%s, for %s; now it answers", o.Text, f.Now.Sub(o.Since).Round(time.Second)))
	}
	if len(all) == 0 {
		all = append(all, passed("etcd %s answers at all of its endpoints, %d; the node has the rights it needs. Its clock cannot be known",
			strings.Join(slices.Compact(slices.Sorted(slices.Values(versions))), ", "), len(versions)))
	}
	return all
}

// aboutUser reports whether an error of etcd is about who asks, which is the same at all endpoints: see package subnet/etcd.
func aboutUser(text string) bool {
	return strings.Contains(text, "etcd does not know ") || strings.Contains(text, "etcd wants to know who asks") || strings.Contains(text, "etcd does not let ")
}

// checkMember looks at what a member that answers says of itself.
func checkMember(e status.EtcdEndpoint, now time.Time) (all []Finding) {
	for _, p := range e.Problems {
		advice := "etcdctl endpoint status --cluster -w table"
		if strings.Contains(p, "NOSPACE") {
			advice = "compact and defragment it, then etcdctl alarm disarm: until then no node gets or renews a lease"
		}
		all = append(all, failure(advice, "%s says: %s", e.URL, p))
	}
	var major, minor int
	if _, err := fmt.Sscanf(e.Version, "%d.%d", &major, &minor); err == nil && (major < 3 || major == 3 && minor < 4) {
		all = append(all, failure("upgrade etcd to 3.4 or later", "%s is etcd %s", e.URL, e.Version))
	}
	if e.Learner {
		all = append(all, warning("etcdctl member promote, or name another endpoint", "%s is a learner, which answers to little", e.URL))
	}
	const slow = 500 * time.Millisecond
	if e.Latency > slow {
		all = append(all, warning("look at its disk and at its load: etcdctl check perf", "%s takes %s to answer", e.URL, e.Latency.Round(time.Millisecond)))
	}
	if !e.CertificateEnds.IsZero() {
		all = append(all, checkCertificate("the certificate of "+e.URL, e.CertificateEnds, now)...)
	}
	return all
}

func checkCertificate(what string, end, now time.Time) []Finding {
	const soon = 7 * 24 * time.Hour
	switch left := end.Sub(now); {
	case left < 0:
		return []Finding{failure("renew it, or set this machine's clock", "%s ended at %s", what, end.Format(time.RFC3339))}
	case left < soon:
		return []Finding{warning("renew it; selvaged reads it anew at each connection", "%s ends at %s", what, end.Format(time.RFC3339))}
	}
	return nil
}

// memberCure is what to do about an endpoint that cannot be used.
func memberCure(e status.EtcdEndpoint) string {
	return fmt.Sprintf("etcdctl --endpoints=%s endpoint health; on that machine systemctl status etcd", e.URL)
}

// rightsCure is what to do about a user who is not let in, or not to all.
func rightsCure(text string) string {
	if _, commands, ok := strings.Cut(text, "Grant it to a role of the user's: "); ok {
		commands, _, _ = strings.Cut(commands, " (")
		return commands
	}
	if aboutUser(text) {
		return "set SELVAGED_ETCD_USERNAME and SELVAGED_ETCD_PASSWORD right, and systemctl restart selvaged, which interrupts nothing"
	}
	return "etcdctl endpoint health --cluster"
}
