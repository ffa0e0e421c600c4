package doctor

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

func checkEtcd(f Facts) (all []Finding) {
	if f.Status == nil || f.kind() != subnet.StoreEtcd {
		return nil // the daemon asks etcd
	}
	if f.Store == nil {
		return []Finding{failure("systemctl restart selvaged, which interrupts no traffic",
			"selvaged cannot report the state of etcd: %v", f.StoreErr)}
	}
	etcd := f.etcd()
	var versions []string
	for _, e := range f.Store.Endpoints {
		if e.Error != "" {
			continue
		}
		versions = append(versions, e.Version)
		all = append(all, checkMember(etcd, e, f.Now)...)
		all = append(all, checkClock(e)...)
	}
	for _, e := range f.Store.Endpoints {
		switch {
		case e.Error == "" || aboutUser(e.Code): // reported once, with the rights below
		case len(versions) > 0:
			all = append(all, warning(memberRemedy(etcd, e), "%s: %s; the others answer", e.URL, e.Error))
		default:
			all = append(all, failure(memberRemedy(etcd, e), "%s: %s", e.URL, e.Error))
		}
	}
	if f.Store.Rights != "" && (aboutUser(f.Store.RightsCode) || len(versions) > 0) {
		all = append(all, failure(rightsRemedy(etcd, *f.Store), "%s", f.Store.Rights))
	}
	if !f.Store.CertificateEnds.IsZero() {
		all = append(all, checkCertificate("selvaged's own certificate for etcd", f.Store.CertificateEnds, f.Now)...)
	}
	if o := f.Status.Store.Outage; o != nil && len(all) == 0 {
		all = append(all, failure("see whether it lasts: selvaged status --watch",
			"%s, for %s; now it answers", o.Text, f.Now.Sub(o.Since).Round(time.Second)))
	}
	if len(all) == 0 {
		all = append(all, passed("etcd %s answers at all of its endpoints, %d; the node has the rights it needs; %s",
			strings.Join(slices.Compact(slices.Sorted(slices.Values(versions))), ", "), len(versions),
			clocks(f.Store.Endpoints)))
	}
	return all
}

// aboutUser reports whether a reason concerns the etcd user, and so is the same at all endpoints.
func aboutUser(code status.Reason) bool { return subnet.Reason(code).AboutUser() }

// checkMember checks what an etcd member that answers reports about itself.
func checkMember(etcd etcdCommands, e status.StoreEndpoint, now time.Time) (all []Finding) {
	for _, alarm := range e.Alarms {
		advice := etcd.ctl("endpoint", "status", "--cluster", "-w", "table")
		if subnet.Reason(alarm.Code) == subnet.ReasonNoSpace {
			advice = "compact and defragment it, then " + etcd.ctl("alarm", "disarm") +
				": until then no node gets or renews a lease"
		}
		all = append(all, failure(advice, "%s reports: %s", e.URL, alarm.Text))
	}
	var major, minor int
	if _, err := fmt.Sscanf(e.Version, "%d.%d", &major, &minor); err == nil && (major < 3 || major == 3 && minor < 4) {
		all = append(all, failure("upgrade etcd to 3.4 or later", "%s is etcd %s", e.URL, e.Version))
	}
	if e.Learner {
		all = append(all, warning(etcd.ctl("member", "promote")+", or configure another endpoint",
			"%s is a learner, which serves few requests", e.URL))
	}
	if e.Latency > slowAnswer {
		all = append(all, warning("check its disk and its load: "+etcd.ctl("check", "perf"),
			"%s takes %s to answer", e.URL, e.Latency.Round(time.Millisecond)))
	}
	if !e.CertificateEnds.IsZero() {
		all = append(all, checkCertificate("the certificate of "+e.URL, e.CertificateEnds, now)...)
	}
	return all
}

// maxSkew is the tolerated difference between clocks. Certificates and logs tolerate some seconds, and a smaller
// difference cannot be measured reliably.
const maxSkew = 10 * time.Second

// checkClock compares an endpoint's clock with this node's. etcd's leases run by its own clock, certificates by each
// host's.
func checkClock(e status.StoreEndpoint) []Finding {
	if e.ClockAhead == nil || e.ClockAhead.Abs() < maxSkew {
		return nil
	}
	word := "ahead of"
	if *e.ClockAhead < 0 {
		word = "behind"
	}
	return []Finding{warning("timedatectl on both hosts shows which clock is not synchronised; "+
		"with a wrong clock, valid certificates are rejected",
		"the clock of %s is %s %s this node's", e.URL, e.ClockAhead.Abs().Round(time.Second), word)}
}

// clocks reports on the clocks of endpoints that have no other problem.
func clocks(all []status.StoreEndpoint) string {
	for _, e := range all {
		if e.ClockAhead == nil {
			return "their clocks are not known"
		}
	}
	return "their clocks agree with this node's"
}

func checkCertificate(what string, end, now time.Time) []Finding {
	const soon = 7 * 24 * time.Hour
	switch left := end.Sub(now); {
	case left < 0:
		return []Finding{failure("renew it, or correct this host's clock",
			"%s expired at %s", what, end.Format(time.RFC3339))}
	case left < soon:
		return []Finding{warning("renew it; selvaged reads the file at each connection",
			"%s expires at %s", what, end.Format(time.RFC3339))}
	}
	return nil
}

// memberRemedy returns what to do about an endpoint that cannot be used.
func memberRemedy(etcd etcdCommands, e status.StoreEndpoint) string {
	at := e.URL
	if u, err := url.Parse(e.URL); err == nil {
		at = u.Host
	}
	switch subnet.Reason(e.Code) {
	case subnet.ReasonUntrustedCertificate:
		return "set --etcd-cafile to the authority that signed it: openssl s_client -connect " + at +
			" </dev/null shows it"
	case subnet.ReasonExpiredCertificate:
		return "renew it there; or correct this host's clock, if date shows that it is wrong"
	case subnet.ReasonWrongNameCertificate:
		return "openssl s_client -connect " + at + " </dev/null | openssl x509 -noout -ext subjectAltName " +
			"shows its names: use one of them in --etcd-endpoints"
	case subnet.ReasonExpiredClientCertificate:
		return "renew the file of --etcd-certfile, which is read at each connection"
	case subnet.ReasonRejectedClientCertificate, subnet.ReasonNoClientCertificate:
		return "set --etcd-certfile and --etcd-keyfile to a certificate that is signed by etcd's --trusted-ca-file"
	case subnet.ReasonNotTLS:
		return "use http:// in --etcd-endpoints; " +
			"or enable TLS in etcd: --cert-file, --key-file and --listen-client-urls"
	case subnet.ReasonNeedsTLS:
		return "use https:// in --etcd-endpoints, and set --etcd-cafile"
	case subnet.ReasonNameNotResolved:
		return "check its name with getent hosts; or use its address in --etcd-endpoints"
	case subnet.ReasonUnreachable:
		return "allow TCP to " + at + " from here in firewalls and security groups on the way; " +
			"check that the host is up"
	}
	return etcd.ctlAt(e.URL, "endpoint", "health") + "; on that host systemctl status etcd"
}

// rightsRemedy returns what to do about a user that is rejected, or lacks rights.
func rightsRemedy(etcd etcdCommands, r status.StoreReport) string {
	var grants []string
	for _, c := range r.Commands {
		grants = append(grants, etcd.admin(c[0], c[1:]...))
	}
	switch {
	case len(grants) > 0:
		return strings.Join(grants, "; ")
	case aboutUser(r.RightsCode):
		return "correct SELVAGED_ETCD_USERNAME and SELVAGED_ETCD_PASSWORD, and systemctl restart selvaged, " +
			"which interrupts no traffic"
	}
	return etcd.ctl("endpoint", "health", "--cluster")
}
