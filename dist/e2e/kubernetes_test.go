package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// reason waits until a node has a problem with a reason.
func reason(ctx context.Context, t *testing.T, n *lab.Node, want status.Reason) {
	t.Helper()
	waitFor(ctx, t, string(want), func() error {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range s.Problems {
			if p.Code == want {
				return nil
			}
		}
		return fmt.Errorf("problems %v", s.Problems)
	})
}

// TestKubernetes runs the daemons with leases in Kubernetes: a node has the podCIDR of its Node, pods talk, and no packet
// is lost while the API server is down, the config changes, or the Node of a third node is deleted and comes again.
func TestKubernetes(t *testing.T) {
	families := []subnet.Family{subnet.IPv4, subnet.IPv6}
	l := start(t, lab.Options{Store: subnet.StoreKubernetes, Families: families})
	ctx := testctx.New(t)
	daemon, err := filepath.Abs(filepath.Join(bin, "selvaged"))
	if err != nil {
		t.Fatal(err)
	}
	pods := podOnEach(ctx, t, l)
	probeAll(ctx, t, l, pods)
	one, three, admin := l.Nodes()[0], l.Nodes()[2], l.Kube().Server().Admin()

	s, err := one.Status(ctx)
	if err != nil || s.Store.Kind != status.KindKubernetes || s.Etcd != nil || s.Lease == nil || s.Lease.Key != "node1" || s.Lease.Subnets[0].String() != "10.5.1.0/24" {
		t.Errorf("status %+v, %v", s, err)
	}
	o, err := admin.Node(ctx, "node1")
	if err != nil || o.Metadata.Annotations["flannel.alpha.coreos.com/public-ip"] != "172.31.0.11" ||
		len(o.Status.Conditions) != 1 || o.Status.Conditions[0].Type != "NetworkUnavailable" || o.Status.Conditions[0].Status != "False" {
		t.Errorf("the Node is %+v, %v", o, err)
	}
	end := stream(ctx, t, l, pods[0], pods[1])

	t.Run("the API server is down and comes back", func(t *testing.T) {
		l.Store().Kill()
		reason(ctx, t, one, status.StoreDown)
		probeAll(ctx, t, l, pods)
		if err := l.Store().Start(ctx); err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Nodes() {
			waitFor(ctx, t, n.Name()+" reconnected", func() error { return ready(ctx, n) })
		}
	})
	t.Run("another config", func(t *testing.T) {
		config := lab.NetworkConfig(families, `{"Type":"vxlan","MTU":1450}`, lab.NodesChoose)
		if err := l.Store().PutConfig(ctx, config); err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Nodes() {
			waitFor(ctx, t, n.Name()+" has another MTU", func() error {
				return n.Do(func() error {
					link, err := netlink.LinkByName("flannel.1")
					if err == nil && link.Attrs().MTU != 1400 {
						err = fmt.Errorf("the device's MTU is %d", link.Attrs().MTU)
					}
					return err
				})
			})
		}
	})
	t.Run("an address that is overwritten", func(t *testing.T) {
		const annotation = "flannel.alpha.coreos.com/public-ip-overwrite"
		announced := func(want string) func() error {
			return func() error {
				o, err := admin.Node(ctx, "node3")
				if got := o.Metadata.Annotations["flannel.alpha.coreos.com/public-ip"]; err == nil && got != want {
					err = fmt.Errorf("it announces %s", got)
				}
				return err
			}
		}
		if _, err := admin.Annotate(ctx, "node3", map[string]any{annotation: "172.31.0.99"}); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "announcing the address", announced("172.31.0.99"))
		if _, err := admin.Annotate(ctx, "node3", map[string]any{annotation: nil}); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "announcing its own address again", announced("172.31.0.13"))
		waitFor(ctx, t, "reached", func() error { return ready(ctx, three) })
	})
	t.Run("a Node that is deleted and registered again", func(t *testing.T) {
		if err := admin.DeleteNode(ctx, "node3"); err != nil {
			t.Fatal(err)
		}
		reason(ctx, t, three, status.NotAllocated)
		if _, err := admin.CreateNode(ctx, kubetest.Node{Name: "node3"}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.PatchNode(ctx, "node3", "", map[string]any{
			"spec": map[string]any{"podCIDR": "10.5.9.0/24", "podCIDRs": []string{"10.5.9.0/24", "fd00:5:0:9::/64"}},
		}); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "another subnet", func() error {
			file, err := three.Subnet()
			if err == nil && file.Subnets[subnet.IPv4].Masked().String() != "10.5.9.0/24" {
				err = fmt.Errorf("the subnet file has %v", file.Subnets)
			}
			return err
		})
		reason(ctx, t, three, status.SubnetChanged) // its pod has an address of the old one
		if err := l.DelPod(ctx, l.Pods()[2]); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "ready without that pod", func() error { return ready(ctx, three) })
		leases, err := l.Store().Leases(ctx)
		if err != nil || len(leases) != 3 || leases[2].Endpoints[subnet.IPv4].Subnet.String() != "10.5.9.0/24" {
			t.Errorf("leases %+v, %v", leases, err)
		}
	})
	end()

	run := func(args ...string) (out string, err error) {
		err = one.Do(func() error {
			cmd := exec.CommandContext(ctx, daemon, args...)
			cmd.Env = append(os.Environ(), "NODE_NAME=node1", "SELVAGED_KUBE_SUBNET_MGR=true", "SELVAGED_KUBE_API_URL="+l.Kube().Server().URL(),
				"SELVAGED_NET_CONFIG_PATH="+lab.NetConfPath)
			text, err := cmd.CombinedOutput()
			out = string(text)
			return err
		})
		return out, err
	}
	t.Run("doctor", func(t *testing.T) {
		find := func() (r doctor.Report) {
			t.Helper()
			out, err := run("doctor", "--check", "apiserver,leases,daemon", "-o", "json")
			if jsonErr := json.Unmarshal([]byte(out), &r); jsonErr != nil {
				t.Fatalf("%v, %v, %s", err, jsonErr, out)
			}
			return r
		}
		if r := find(); r.Result != doctor.Pass {
			t.Errorf("%+v", r)
		}
		l.Kube().Server().Deny("patch nodes/status")
		if r := find(); r.Result != doctor.Failure || !strings.Contains(fmt.Sprint(r.Findings), "patch nodes/status") {
			t.Errorf("without rights: %+v", r)
		}
		l.Kube().Server().Deny()
	})
	t.Run("config", func(t *testing.T) {
		out, err := run("config", "show")
		if err != nil || !strings.Contains(out, `"MTU":1450`) || !strings.Contains(out, "this node: the daemon uses it") {
			t.Errorf("show: %v, %s", err, out)
		}
		if out, err := run("config", "check", lab.NetConfPath); err != nil || !strings.Contains(out, "changes: none") {
			t.Errorf("check: %v, %s", err, out)
		}
		if out, err := run("config", "set", lab.NetConfPath); err == nil || !strings.Contains(out, "write it into the ConfigMap") {
			t.Errorf("set: %v, %s", err, out)
		}
	})
	t.Run("release", func(t *testing.T) {
		if err := one.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if out, err := run("release"); err != nil || out != "released node1\n" {
			t.Errorf("%v, %s", err, out)
		}
		leases, err := l.Store().Leases(ctx)
		if err != nil || len(leases) != 2 {
			t.Errorf("leases %+v, %v", leases, err)
		}
		if o, err := admin.Node(ctx, "node1"); err != nil || len(o.Spec.PodCIDRs) != 2 {
			t.Errorf("the Node is %+v, %v", o, err)
		}
	})
}

// ready returns why a node is not ready, or does not use the store.
func ready(ctx context.Context, n *lab.Node) error {
	s, err := n.Status(ctx)
	if err == nil && (s.State != status.Ready || s.Lease == nil || s.Store.Outage != nil) {
		err = fmt.Errorf("%s: %s, lease %+v, problems %v", n.Name(), s.State, s.Lease, s.Problems)
	}
	return err
}
