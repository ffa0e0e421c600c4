package doctor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
)

// healthyKubernetes returns the facts of a healthy node whose leases are Nodes.
func healthyKubernetes() Facts {
	f := healthy()
	f.Status.Store = status.Store{Kind: status.KindKubernetes, StoreConnection: status.StoreConnection{
		LastEvent: now.Add(-time.Minute),
		Access:    &status.StoreAccess{Node: "node1", Config: "/etc/kube-flannel/net-conf.json"},
	}}
	f.Status.Lease.Key, f.Peers[0].Key = "node1", "node2"
	f.Store = &status.StoreReport{Endpoints: []status.StoreEndpoint{{URL: "https://10.96.0.1:443", Version: "v1.34.4", Latency: time.Millisecond}}}
	return f
}

// TestKubernetes: with leases in Kubernetes, the API server is examined and not etcd, and advice is for kubectl.
func TestKubernetes(t *testing.T) {
	problem := func(code status.Reason) func(*Facts) {
		return func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "lease", Text: "so it is", Since: now, Code: code}}
		}
	}
	endpoint := func(code status.Reason) func(*Facts) {
		return func(f *Facts) {
			f.Store.Endpoints[0].Error, f.Store.Endpoints[0].Code = "it does not work", code
		}
	}
	rejected := func(code status.Reason) func(*Facts) {
		return func(f *Facts) {
			f.Peers = append(f.Peers, status.Peer{Key: "x y", State: status.Quarantined, Code: code, Why: "so it is"})
		}
	}
	for _, tt := range []struct {
		name         string
		change       func(*Facts)
		check        string
		level        Level
		text, advice string // parts of a finding
	}{
		{"healthy", func(*Facts) {}, "apiserver", Pass, "the API server, Kubernetes v1.34.4, answers; the node has the rights it needs", ""},
		{"no report", func(f *Facts) { f.Store, f.StoreErr = nil, errors.New("no") }, "apiserver", Failure, "cannot report the state of the API server: no", "restart"},
		{"old", func(f *Facts) { f.Store.Endpoints[0].Version = "v1.23.17" }, "apiserver", Failure, "is Kubernetes v1.23.17", "upgrade Kubernetes to 1.24"},
		{"slow", func(f *Facts) { f.Store.Endpoints[0].Latency = time.Second }, "apiserver", Warning, "takes 1s to answer", "its load"},
		{"unwell", func(f *Facts) {
			f.Store.Endpoints[0].Alarms = []status.StoreAlarm{{Code: "other", Text: "[-]etcd failed"}}
		},
			"apiserver", Failure, "https://10.96.0.1:443 reports: [-]etcd failed", "readyz"},
		{"no Node", func(f *Facts) {
			f.Store.Endpoints[0].Alarms = []status.StoreAlarm{{Code: "no-node", Text: "there is no Node x"}}
		},
			"apiserver", Failure, "there is no Node x", "set NODE_NAME"},
		{"no podCIDR, examined", func(f *Facts) {
			f.Store.Endpoints[0].Alarms = []status.StoreAlarm{{Code: "no-subnet", Text: "it has no podCIDR"}}
		}, "apiserver", Failure, "it has no podCIDR", "--cluster-cidr may be used up"},
		{"no podCIDRs at all", func(f *Facts) {
			f.Store.Endpoints[0].Alarms = []status.StoreAlarm{{Code: "no-subnets", Text: "no Node has a podCIDR"}}
		}, "apiserver", Failure, "no Node has a podCIDR", "start kube-controller-manager with --allocate-node-cidrs=true"},
		{"clock", func(f *Facts) { f.Store.Endpoints[0].ClockAhead = ahead(time.Hour) }, "apiserver", Warning, "is 1h0m0s ahead of this node's", "timedatectl"},
		{"its certificate", func(f *Facts) { f.Store.Endpoints[0].CertificateEnds = now.Add(time.Hour) }, "apiserver", Warning, "the certificate of https://10.96.0.1:443 expires", "renew"},
		{"our certificate", func(f *Facts) { f.Store.CertificateEnds = now.Add(-time.Hour) }, "apiserver", Failure, "selvaged's own certificate for the API server expired", "renew"},
		{"silent", func(f *Facts) { f.Status.Store.LastEvent = now.Add(-time.Hour) }, "apiserver", Warning, "the watch on the Nodes has been silent for 1h0m0s", "restart selvaged"},
		{"silent in an outage", func(f *Facts) {
			f.Status.Store.LastEvent, f.Status.Store.Outage = now.Add(-time.Hour), &status.Problem{Text: "it was away", Since: now.Add(-time.Minute)}
		}, "apiserver", Failure, "it was away, for 1m0s; now it answers", "selvaged status --watch"},

		{"authority", endpoint("untrusted-certificate"), "apiserver", Failure, "it does not work", "openssl s_client -connect 10.96.0.1:443"},
		{"expired", endpoint("expired-certificate"), "apiserver", Failure, "it does not work", "renew it there"},
		{"name", endpoint("wrong-name-certificate"), "apiserver", Failure, "it does not work", "KUBERNETES_SERVICE_HOST"},
		{"client certificate", endpoint("rejected-client-certificate"), "apiserver", Failure, "it does not work", "--kubeconfig-file"},
		{"no such name", endpoint("name-not-resolved"), "apiserver", Failure, "it does not work", "getent hosts"},
		{"unreachable", endpoint("unreachable"), "apiserver", Failure, "it does not work", "kube-proxy runs here"},
		{"refused", endpoint("refused"), "apiserver", Failure, "it does not work", "crictl ps -a --name kube-apiserver"},

		{"rights", func(f *Facts) { f.Store.Rights, f.Store.RightsCode = "it may not watch nodes", "forbidden" }, "apiserver", Failure, "it may not watch nodes", "ClusterRole"},
		{"rights with commands", func(f *Facts) {
			f.Store.Rights, f.Store.RightsCode = "it may not watch nodes", "forbidden"
			f.Store.Commands = [][]string{{"kubectl", "create", "clusterrole", "x y"}}
		}, "apiserver", Failure, "it may not watch nodes", "kubectl create clusterrole 'x y'"},
		{"a kubelet's credentials", func(f *Facts) {
			f.Store.Rights, f.Store.RightsCode = "it may not watch nodes", "forbidden"
			f.Status.Store.Access.Kubeconfig = "/etc/kubernetes/kubelet.conf"
		}, "apiserver", Failure, "it may not watch nodes", "instead of /etc/kubernetes/kubelet.conf"},
		{"a token", func(f *Facts) {
			f.Store.Rights, f.Store.RightsCode = "the token is not known", "unauthenticated"
			f.Store.Endpoints[0].Error, f.Store.Endpoints[0].Code = "the token is not known", "unauthenticated"
		}, "apiserver", Failure, "the token is not known", "service account's token"},
		{"rights unknown", func(f *Facts) { f.Store.Rights, f.Store.RightsCode = "it is overloaded", "overloaded" }, "apiserver", Failure, "it is overloaded", "readyz"},

		{"no podCIDR, and no peers", func(f *Facts) { problem(status.NotAllocated)(f); f.Peers = nil }, "daemon", Failure, "lease: so it is",
			"start kube-controller-manager with --allocate-node-cidrs=true --cluster-cidr=10.5.0.0/16"},
		{"no podCIDR", problem(status.NotAllocated), "daemon", Failure, "lease: so it is", "--cluster-cidr may be used up"},
		{"a podCIDR outside", problem(status.SubnetOutside), "daemon", Failure, "lease: so it is", "make Network in /etc/kube-flannel/net-conf.json the --cluster-cidr"},
		{"another trouble with the lease", problem(status.NoLease), "daemon", Failure, "lease: so it is", "kubectl get node node1 -o yaml"},
		{"no config", problem(status.ConfigMissing), "daemon", Failure, "lease: so it is", "mounted at /etc/kube-flannel/net-conf.json"},
		{"a bad config", problem(status.ConfigRejected), "daemon", Failure, "lease: so it is", "selvaged config check /etc/kube-flannel/net-conf.json"},
		{"a bad annotation", problem(status.AdviceBad), "daemon", Failure, "lease: so it is", "kubectl annotate node node1"},

		{"a Node that cannot be read", problem(status.LeasesUnread), "daemon", Failure, "lease: so it is", "kubectl get node NODE -o yaml"},
		{"disputed subnets", problem(status.LeasesDisputed), "daemon", Failure, "lease: so it is", "admission policy"},

		{"a broken lease", rejected(status.LeaseInvalid), "leases", Warning, "lease x y rejected: so it is", "kubectl get node 'x y' -o yaml shows it; if no node uses it, kubectl delete node 'x y'"},
		{"a lease that overlaps", rejected(status.LeaseOverlaps), "leases", Failure, "so it is", "give that node another podCIDR"},
		{"our address", rejected(status.LeaseOwnIP), "leases", Failure, "so it is", "kubectl delete node 'x y'"},
		{"leases that vanished", func(f *Facts) { f.Peers[0].State, f.Peers[0].Until = status.Grace, now.Add(time.Hour) }, peersCheck, Warning, "vanished from the API server", ""},
		{"a node that is gone", func(f *Facts) {
			p := broken()
			p.Underlay, p.Key = no(28), "node2"
			f.Paths = []probe.Path{p}
		}, peersCheck, Failure, "no answer from node2", "if it is gone for good, kubectl delete node node2"},
		{"a smaller MTU", func(f *Facts) {
			p := path("node2", 2)
			p.OverlayFull = no(1430)
			f.Paths = []probe.Path{p}
		}, peersCheck, Failure, "node2", "/etc/kube-flannel/net-conf.json, which is in a ConfigMap"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := healthyKubernetes()
			tt.change(&f)
			all := judge(f, Options{}.selects)
			if !slices.ContainsFunc(all, func(x Finding) bool {
				return x.Check == tt.check && x.Level == tt.level && strings.Contains(x.Evidence, tt.text) && strings.Contains(x.Advice, tt.advice)
			}) {
				t.Errorf("no such finding in %+v", all)
			}
			for _, x := range all {
				if text := x.Evidence + x.Advice; x.Check == "etcd" || strings.Contains(text, "etcdctl") || strings.Contains(text, "--etcd") {
					t.Errorf("it speaks of etcd: %+v", x)
				}
			}
		})
	}
}
