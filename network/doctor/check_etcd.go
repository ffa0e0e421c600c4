package doctor

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

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
		all = append(all, checkClock(e)...)
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
		all = append(all, passed("etcd %s answers at all of its endpoints, %d; the node has the rights it needs; %s",
			strings.Join(slices.Compact(slices.Sorted(slices.Values(versions))), ", "), len(versions), clocks(f.Etcd.Endpoints)))
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

// apart is how far clocks may be apart: certificates and logs bear some seconds, and less is not seen for sure.
const apart = 10 * time.Second

// checkClock compares an endpoint's clock with this node's. etcd's leases run by its own, and certificates end by everybody's.
func checkClock(e status.EtcdEndpoint) []Finding {
	if e.ClockAhead == nil || e.ClockAhead.Abs() < apart {
		return nil
	}
	word := "ahead of"
	if *e.ClockAhead < 0 {
		word = "behind"
	}
	return []Finding{warning("timedatectl, here and there, shows which of the two is not synchronised; certificates are refused by a clock that is wrong",
		"the clock of %s is %s %s this node's", e.URL, e.ClockAhead.Abs().Round(time.Second), word)}
}

// clocks says of endpoints that are well what is known of their clocks.
func clocks(all []status.EtcdEndpoint) string {
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
		return []Finding{failure("renew it, or set this machine's clock", "%s ended at %s", what, end.Format(time.RFC3339))}
	case left < soon:
		return []Finding{warning("renew it; selvaged reads it anew at each connection", "%s ends at %s", what, end.Format(time.RFC3339))}
	}
	return nil
}

// memberCure is what to do about an endpoint that cannot be used: see package subnet/etcd for what its error can say.
func memberCure(e status.EtcdEndpoint) string {
	at := e.URL
	if u, err := url.Parse(e.URL); err == nil {
		at = u.Host
	}
	for _, c := range []struct{ says, cure string }{
		{"is not signed by an authority we trust", "give --etcd-cafile the authority that signed it: openssl s_client -connect " + at + " </dev/null names it"},
		{"certificate is not valid today", "renew it there; or set this machine's clock, if date shows that that is wrong"},
		{"certificate is for another name", "openssl s_client -connect " + at + " </dev/null | openssl x509 -noout -ext subjectAltName shows its names: give --etcd-endpoints one of them"},
		{"client certificate has expired", "renew the file of --etcd-certfile, which is read again at each connection"},
		{"does not accept our client certificate", "give --etcd-certfile and --etcd-keyfile a certificate that etcd's --trusted-ca-file signed"},
		{"wants a client certificate", "give --etcd-certfile and --etcd-keyfile a certificate that etcd's --trusted-ca-file signed"},
		{"does not speak TLS", "write http:// in --etcd-endpoints; or have etcd speak TLS, by its --cert-file, --key-file and --listen-client-urls"},
		{"if it wants TLS, use https", "write https:// in --etcd-endpoints, and give --etcd-cafile"},
		{"cannot be resolved", "see what getent hosts says of its name; or give --etcd-endpoints its address"},
		{"is not reachable", "let TCP to " + at + " pass from here, in firewalls and security groups on the way; see that that machine is up"},
	} {
		if strings.Contains(e.Error, c.says) {
			return c.cure
		}
	}
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
