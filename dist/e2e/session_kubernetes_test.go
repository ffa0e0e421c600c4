package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// openKubernetesSession makes a lab whose daemons use the API server as pods do, with the token of a service account.
func openKubernetesSession(t *testing.T) *session {
	t.Helper()
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	l := start(t, lab.Options{Nodes: 3, IPTables: "none", Store: subnet.StoreKubernetes, KubeTLS: true})
	return &session{t: t, l: l, ctx: testctx.New(t), second: true, macs: map[string]string{}}
}

// kubectl has something done in the API that an operator does with kubectl.
func (s *session) kubectl(args string, do func(kubetest.Admin) error) {
	s.t.Helper()
	s.does(1, "kubectl "+args, func(*lab.Node) error { return do(s.l.Kube().Admin()) })
}

// TestKubernetesSession is the second part of Documentation/operating.md: the same with leases in the Kubernetes API.
func TestKubernetesSession(t *testing.T) {
	s := openKubernetesSession(t)
	const look = "selvaged doctor --check daemon,apiserver,leases,peers"

	s.scene() // all is well
	s.run(1, "selvaged status", 0, "peers     2 programmed")
	s.run(1, "selvaged peers", 0, "node3")
	s.run(1, "selvaged explain 10.5.2.7 | head -n 3", 0, "belongs to node2")
	s.run(1, look, 0, "0 failures, 0 warnings")

	s.scene() // the API server is away
	s.does(1, "systemctl stop kube-apiserver", func(*lab.Node) error { s.l.Kube().Kill(); return nil })
	s.run(1, "selvaged status", 2, "! API server: read a Node")
	s.run(1, "selvaged peers", 0, "node3")
	s.run(1, "selvaged explain 10.5.2.7 | head -n 2", 0, "belongs to node2")
	s.run(1, look, 2, "FAILURE  apiserver")
	s.does(1, "systemctl start kube-apiserver", func(*lab.Node) error { return s.l.Kube().Start(s.ctx) })
	s.run(1, "selvaged status | head -n 1", 0, "node1: ready")

	s.scene() // a Node without a podCIDR
	s.kubectl("delete node node3", func(a kubetest.Admin) error {
		if err := a.DeleteNode(s.ctx, "node3"); err != nil {
			return err
		}
		_, err := a.CreateNode(s.ctx, kubetest.Node{Name: "node3"}) // as its kubelet does
		return err
	})
	s.run(3, "selvaged status | head -n 2", 0, "podCIDR")
	s.run(3, "selvaged doctor --check daemon,apiserver", 2, "podCIDR")
	s.run(1, "selvaged peers --bad", 0, "grace")
	const patch = `patch node node3 -p '{"spec":{"podCIDR":"10.5.3.0/24","podCIDRs":["10.5.3.0/24"]}}'`
	s.kubectl(patch, func(a kubetest.Admin) error {
		_, err := a.PatchNode(s.ctx, "node3", "", map[string]any{
			"spec": map[string]any{"podCIDR": "10.5.3.0/24", "podCIDRs": []string{"10.5.3.0/24"}},
		})
		return err
	})
	s.run(3, "selvaged status | head -n 1", 0, "node3: ready")
	s.run(1, "selvaged peers", 0, "flannel.1  programmed\nnode3  10.5.3.0/24  172.31.0.13  flannel.1  programmed")

	s.scene() // the token is refused
	s.l.Kube().Server().SetToken("second")
	s.l.Kube().Server().EndWatches() // as when the server is restarted
	s.run(1, "selvaged status | head -n 2", 0, "rejected the token")
	s.run(1, "selvaged peers", 0, "node3")
	s.run(1, "selvaged doctor --check daemon,apiserver", 2, "FAILURE  apiserver")
	if err := s.l.Kube().GiveTokens("second"); err != nil {
		t.Fatal(err)
	}
	s.run(1, "selvaged status | head -n 1", 0, "node1: ready")

	s.scene() // a Node that names another one's subnet
	s.stops(3)
	s.kubectl("annotate --overwrite node node3 selvage.io/pod-cidrs=10.5.2.0/24", func(a kubetest.Admin) error {
		_, err := a.Annotate(s.ctx, "node3", map[string]any{kube.PodCIDRsAnnotation: "10.5.2.0/24"})
		return err
	})
	s.run(1, "selvaged status | grep -A 1 ^peers", 0, "1 quarantined")
	s.run(1, "selvaged peers --bad", 0, "quarantined")
	s.run(1, "selvaged explain 10.5.2.7 | head -n 3", 0, "belongs to node2")
	s.run(1, "selvaged doctor --check leases", 3, "rejected")
	s.starts(3)
	s.run(1, "selvaged doctor --check leases", 0, "all leases accepted")

	s.compare()
}
