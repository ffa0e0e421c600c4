package doctor

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

const (
	// slowAnswer is how long a store may take to answer.
	slowAnswer = 500 * time.Millisecond
	// longSilence is after how long without an event or a sign of life the watch is reported: the API server sends a
	// bookmark about every minute, and a watch ends after ten minutes at the latest.
	longSilence = 15 * time.Minute
	// Of the minor versions of Kubernetes 1, the oldest that is supported.
	oldestMinor = 24
)

// checkAPIServer checks the API server and the daemon's rights there, if the leases are Nodes.
func checkAPIServer(f Facts) (all []Finding) {
	if f.Status == nil || f.kind() != subnet.StoreKubernetes {
		return nil // the daemon asks the API server
	}
	if f.Store == nil {
		return []Finding{failure("systemctl restart selvaged, which interrupts no traffic",
			"selvaged cannot report the state of the API server: %v", f.StoreErr)}
	}
	c := f.kubernetes()
	var versions []string
	for _, e := range f.Store.Endpoints {
		switch {
		case e.Error == "":
			versions = append(versions, e.Version)
			all = append(all, checkServer(c, e, f.Now)...)
			all = append(all, checkClock(e)...)
		case !aboutUser(e.Code): // reported once, with the rights below
			all = append(all, failure(serverRemedy(e), "%s: %s", e.URL, e.Error))
		}
	}
	if f.Store.Rights != "" && (aboutUser(f.Store.RightsCode) || len(versions) > 0) {
		all = append(all, failure(c.rightsRemedy(*f.Store), "%s", f.Store.Rights))
	}
	if !f.Store.CertificateEnds.IsZero() {
		all = append(all, checkCertificate("selvaged's own certificate for the API server", f.Store.CertificateEnds,
			f.Now)...)
	}
	s := f.Status.Store
	if o := s.Outage; o != nil && len(all) == 0 {
		all = append(all, failure("see whether it lasts: selvaged status --watch",
			"%s, for %s; now it answers", o.Text, f.Now.Sub(o.Since).Round(time.Second)))
	}
	if silent := f.Now.Sub(s.LastEvent); !s.LastEvent.IsZero() && silent > longSilence && s.Outage == nil {
		all = append(all, warning("restart selvaged, which interrupts no traffic; report it, with "+log,
			"the watch on the Nodes has been silent for %s", silent.Round(time.Second)))
	}
	if len(all) == 0 {
		all = append(all, passed("the API server, Kubernetes %s, answers; the node has the rights it needs; %s",
			strings.Join(slices.Compact(slices.Sorted(slices.Values(versions))), ", "), clocks(f.Store.Endpoints)))
	}
	return all
}

// checkServer checks what an API server that answers reports about itself.
func checkServer(c kubernetesCommands, e status.StoreEndpoint, now time.Time) (all []Finding) {
	for _, alarm := range e.Alarms {
		switch subnet.Reason(alarm.Code) {
		case subnet.ReasonNoNode:
			all = append(all, failure("kubectl get nodes; set NODE_NAME in the daemon's environment to the name of "+
				"its Node", "%s", alarm.Text))
		case subnet.ReasonNoSubnet, subnet.ReasonNoSubnets:
			c.peers = 1 // some node has a podCIDR
			if subnet.Reason(alarm.Code) == subnet.ReasonNoSubnets {
				c.peers = 0
			}
			all = append(all, failure(c.notAllocated(), "%s", alarm.Text))
		default:
			all = append(all, failure("kubectl get --raw '/readyz?verbose' shows what it lacks", "%s reports: %s",
				e.URL, alarm.Text))
		}
	}
	var major, minor int
	version := strings.TrimPrefix(e.Version, "v")
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && major == 1 && minor < oldestMinor {
		all = append(all, failure(fmt.Sprintf("upgrade Kubernetes to 1.%d or later", oldestMinor),
			"%s is Kubernetes %s", e.URL, e.Version))
	}
	if e.Latency > slowAnswer {
		all = append(all, warning("check its load, and that of its etcd: kubectl get --raw /metrics",
			"%s takes %s to answer", e.URL, e.Latency.Round(time.Millisecond)))
	}
	if !e.CertificateEnds.IsZero() {
		all = append(all, checkCertificate("the certificate of "+e.URL, e.CertificateEnds, now)...)
	}
	return all
}

// serverRemedy returns what to do about an API server that cannot be used.
func serverRemedy(e status.StoreEndpoint) string {
	at := e.URL
	if u, err := url.Parse(e.URL); err == nil {
		at = u.Host
	}
	switch subnet.Reason(e.Code) {
	case subnet.ReasonUntrustedCertificate:
		return "openssl s_client -connect " + at + " </dev/null shows who signed it; the authority is that of the " +
			"service account's ca.crt, or of the kubeconfig file"
	case subnet.ReasonExpiredCertificate:
		return "renew it there; or correct this host's clock, if date shows that it is wrong"
	case subnet.ReasonWrongNameCertificate:
		return "openssl s_client -connect " + at + " </dev/null | openssl x509 -noout -ext subjectAltName " +
			"shows its names: use one of them in KUBERNETES_SERVICE_HOST, --kube-api-url or the kubeconfig file"
	case subnet.ReasonExpiredClientCertificate, subnet.ReasonRejectedClientCertificate,
		subnet.ReasonNoClientCertificate:
		return "renew the client certificate in the file of --kubeconfig-file, or use a service account's token there"
	case subnet.ReasonNameNotResolved:
		return "check its name with getent hosts; or use its address"
	case subnet.ReasonUnreachable, subnet.ReasonTimeout:
		return "allow TCP to " + at + " from here in firewalls and security groups on the way; if it is the address " +
			"of the service kubernetes, check that kube-proxy runs here, or set KUBERNETES_SERVICE_HOST and " +
			"KUBERNETES_SERVICE_PORT to the API server's own"
	}
	return "curl -k " + e.URL + "/livez from here; on that host crictl ps -a --name kube-apiserver"
}

// rightsRemedy returns what to do about credentials that are rejected, or lack rights.
func (c kubernetesCommands) rightsRemedy(r status.StoreReport) string {
	// Since 1.32 the node authorizer lets a kubelet read no Node but its own, so its credentials are of no use.
	if strings.HasPrefix(filepath.Base(c.access.Kubeconfig), "kubelet") {
		return "a kubelet may read its own Node only (Kubernetes 1.32 and later): use the credentials of a service " +
			"account with the manifest's ClusterRole instead of " + c.access.Kubeconfig
	}
	var grants []string
	for _, x := range r.Commands {
		grants = append(grants, command(x[0], quoteAll(x[1:])))
	}
	switch {
	case len(grants) > 0:
		return strings.Join(grants, "; ")
	case subnet.Reason(r.RightsCode) == subnet.ReasonForbidden:
		return "apply the manifest's ClusterRole and ClusterRoleBinding: get, list, watch on nodes; " +
			"patch on nodes/status; with --mesh-token-file, create on tokenreviews of authentication.k8s.io"
	case aboutUser(r.RightsCode):
		return "check the service account's token, or the credentials in the file of --kubeconfig-file"
	}
	return "kubectl get --raw '/readyz?verbose'"
}
