package containerd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What k3s writes: where its containerd has its configuration, network configurations and plugins; the network
// configuration; and flannel's network config.
const (
	k3sConfig   = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
	k3sConfDir  = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
	k3sBinDir   = "/var/lib/rancher/k3s/data/cni"
	k3sConflist = `{"name":"cbr0","cniVersion":"1.0.0","plugins":[` +
		`{"type":"flannel","delegate":{"hairpinMode":true,"forceAddress":true,"isDefaultGateway":true}},` +
		`{"type":"portmap","capabilities":{"portMappings":true}},` +
		`{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`
	k3sNetwork = `{"Network":"10.42.0.0/16","EnableIPv6":false,"EnableIPv4":true,"IPv6Network":"::/0",` +
		`"Backend":{"Type":"vxlan"}}`
)

// TestK3s: install-cni finds the directories of k3s' containerd, and serves the configuration that k3s has written under
// flannel's name. Plugins that k3s brings itself stay.
func TestK3s(t *testing.T) {
	c := newClusterWith(t, Options{ConfigFile: k3sConfig, ConfDir: k3sConfDir, BinDir: k3sBinDir})
	if err := c.Lab.Etcd().PutConfig(c.Ctx, k3sNetwork); err != nil {
		t.Fatal(err)
	}
	if err := c.Lab.WaitReady(c.Ctx); err != nil {
		t.Fatal(err)
	}
	tools, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	bandwidth, err := os.ReadFile(filepath.Join(tools, "cni", "bandwidth"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.At {
		c.Ready(t, r, false)
		err := r.Node.Do(func() error {
			return errors.Join(os.WriteFile(filepath.Join(k3sBinDir, "bandwidth"), bandwidth, 0o755),
				os.WriteFile(filepath.Join(k3sConfDir, "10-flannel.conflist"), []byte(k3sConflist), 0o644))
		})
		if err != nil {
			t.Fatal(err)
		}
		out, err := r.Node.Output(c.Ctx, filepath.Join(tools, "selvaged"), "install-cni", "--wait=1m", "--cni-conf-dir=auto",
			"--cni-bin-dir=auto", "--name=selvage,flannel", "--plugin="+filepath.Join(tools, "selvage"),
			"--reference-plugins="+filepath.Join(tools, "cni"))
		if err != nil {
			t.Fatalf("%s: %v: %s", r.Node.Name(), err, out)
		}
		c.Ready(t, r, true)
	}
	c.Reach(t)
	c.Ports(t, true, nil)
}
