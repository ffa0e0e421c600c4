package k8slab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// ParseStore reads the name of a store: kubernetes or etcd.
func ParseStore(name string) (subnet.StoreKind, error) {
	switch kind := subnet.StoreKind(name); kind {
	case subnet.StoreKubernetes, subnet.StoreEtcd:
		return kind, nil
	}
	return "", fmt.Errorf("store %q: want %s or %s", name, subnet.StoreKubernetes, subnet.StoreEtcd)
}

// Manifest is the file of the DaemonSet for a store, below the repository's root.
func Manifest(kind subnet.StoreKind) string {
	if kind == subnet.StoreEtcd {
		return "dist/kubernetes/selvage-etcd.yaml"
	}
	return "dist/kubernetes/selvage.yaml"
}

// readManifest reads the DaemonSet's, with the change that every user makes: the endpoints of the lab's etcd, or the
// network config.
func (c *Cluster) readManifest() (string, error) {
	data, err := os.ReadFile(c.options.Manifest)
	if err != nil {
		return "", err
	}
	manifest := string(data)
	if c.options.Store == subnet.StoreEtcd {
		manifest, err = withEndpoints(manifest, c.lab.Etcd().Endpoints())
	} else {
		manifest, err = withConfig(manifest, c.networkConfig(lab.NodesChoose))
	}
	if err == nil && c.options.Policies != "" {
		manifest, err = withPolicies(manifest, c.options.Policies)
	}
	if err == nil && c.options.FastPath {
		manifest, err = withFastPath(manifest)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.options.Manifest, err)
	}
	return manifest, nil
}

// policyFlag is the manifest's value of --network-policy.
var policyFlag = regexp.MustCompile(`(?m)^  SELVAGED_NETWORK_POLICY: "\w+"$`)

// withPolicies replaces the manifest's value of --network-policy.
func withPolicies(manifest, value string) (string, error) {
	if n := len(policyFlag.FindAllString(manifest, -1)); n != 1 {
		return "", fmt.Errorf("want one SELVAGED_NETWORK_POLICY, and there are %d", n)
	}
	return policyFlag.ReplaceAllLiteralString(manifest, fmt.Sprintf("  SELVAGED_NETWORK_POLICY: %q", value)), nil
}

// withEndpoints replaces the manifest's endpoints of etcd.
func withEndpoints(manifest string, endpoints []string) (string, error) {
	const from = `SELVAGED_ETCD_ENDPOINTS: "http://127.0.0.1:2379"`
	if strings.Count(manifest, from) != 1 {
		return "", fmt.Errorf("want one line %s", from)
	}
	to := fmt.Sprintf("SELVAGED_ETCD_ENDPOINTS: %q", strings.Join(endpoints, ","))
	return strings.Replace(manifest, from, to, 1), nil
}

// netConf is the network config in the ConfigMap of the manifest: a block of indented lines.
var netConf = regexp.MustCompile(`(?m)^  net-conf\.json: \|\n(    .*\n)+`)

// withConfig replaces the manifest's network config.
func withConfig(manifest, config string) (string, error) {
	if n := len(netConf.FindAllString(manifest, -1)); n != 1 {
		return "", fmt.Errorf("want one net-conf.json, and there are %d", n)
	}
	return netConf.ReplaceAllLiteralString(manifest, "  net-conf.json: |\n    "+config+"\n"), nil
}

// putConfig writes the network config to where the daemons read it.
func (c *Cluster) putConfig(ctx context.Context, nftables lab.NFTables) error {
	config := c.networkConfig(nftables)
	if c.options.Store == subnet.StoreEtcd {
		return c.lab.Etcd().PutConfig(ctx, config)
	}
	patch, err := json.Marshal(object{"data": object{"net-conf.json": config}})
	if err != nil {
		return err
	}
	_, err = c.kubectl(ctx, "-n", daemons, "patch", "configmap", "selvage-network", "--type=merge",
		"--patch", string(patch))
	return err
}

// closeEtcd has the control plane's machine drop what nodes send to etcd, if the leases are in the Kubernetes API: then
// etcd is the API server's alone.
func (c *Cluster) closeEtcd(ctx context.Context) error {
	if c.options.Store == subnet.StoreEtcd {
		return nil
	}
	const table = `table inet k8slab {
	chain input { type filter hook input priority filter; iifname != "lo" tcp dport { 2379, 2380 } drop; }
}`
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(table)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("close etcd for the nodes: %w: %s", err, out)
	}
	return nil
}
