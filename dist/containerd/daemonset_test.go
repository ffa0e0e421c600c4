package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/image"
)

// nftables is a network config for nodes without iptables, as the image is one.
const nftables = `{"Network":"10.5.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}`

// TestDaemonSet runs the daemon of one node from the image, as the manifest says: with no more capabilities, writable
// directories and system calls than that. The node is a fresh one: it has neither plugin nor configuration, and does not
// forward.
func TestDaemonSet(t *testing.T) {
	c := newCluster(t)
	if err := c.lab.Etcd().PutConfig(c.ctx, nftables); err != nil {
		t.Fatal(err)
	}
	if err := c.lab.WaitReady(c.ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.at[0].Configure(Conflist); err != nil {
		t.Fatal(err)
	}
	r := c.at[1]
	before, err := r.Node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Node.Stop(c.ctx); err != nil {
		t.Fatal(err)
	}
	m, err := ReadManifest("../kubernetes/selvage.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.importSelvage(t, r, m.Containers[0].Image)
	var volumes map[string]string
	err = r.Node.Do(func() error {
		for _, old := range []string{filepath.Join(binDir, "selvage"), "/run/flannel/subnet.env"} {
			if err := os.Remove(old); err != nil {
				return err
			}
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
			return err
		}
		volumes, err = m.Prepare("/run/volumes")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.ready(t, r, false)

	pod, err := r.RunHostPod(c.ctx, "selvage")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"SELVAGED_ETCD_ENDPOINTS": strings.Join(c.lab.Etcd().Endpoints(), ","), "SELVAGED_NODE_NAME": r.Node.Name(),
	}
	running := map[string]*Container{}
	for _, p := range m.Containers {
		if running[p.Name], err = pod.RunConfig(c.ctx, m.Config(p, volumes, env)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for name, container := range running {
			if t.Failed() {
				t.Logf("%s printed:\n%s", name, container.Log())
			}
		}
	})
	daemon := running["selvaged"]
	c.eventually(t, "/readyz", func() error { return c.get(r, m.ConfigMaps["selvage-flags"]["SELVAGED_HEALTHZ_PORT"], "/readyz") })
	if err := c.get(r, m.ConfigMaps["selvage-flags"]["SELVAGED_HEALTHZ_PORT"], "/healthz"); err != nil {
		t.Error(err)
	}
	c.ready(t, r, true)
	if after, err := r.Node.Subnet(); err != nil || !reflect.DeepEqual(after, before) {
		t.Errorf("the subnet file is %+v, %v, was %+v", after, err, before)
	}
	if log := daemon.Log(); strings.Contains(log, "level=error") {
		t.Errorf("selvaged complains:\n%s", log)
	}
	a, _ := c.serving(t, c.at[0], "there")
	b, asking := c.serving(t, r, "here")
	c.asks(t, asking, a.Addr, b.Addr)

	// A rolling update replaces the daemon: what is in the kernel stays, and so do the pods.
	if err := daemon.Remove(c.ctx); err != nil {
		t.Fatal(err)
	}
	c.asks(t, asking, a.Addr, b.Addr)
	c.remove(t, a, b, pod)
	c.nothingLeft(t)
}

// importSelvage gives containerd the image of selvage, made from the binaries in bin.
func (c *cluster) importSelvage(t *testing.T, r *Runtime, reference string) {
	t.Helper()
	img, err := image.Build(image.Selvage(runtime.GOARCH, bin, "test", time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	// Each kind of archive that `make image` writes is taken by containerd.
	dir := t.TempDir()
	for _, err := range []error{
		image.WriteDocker(filepath.Join(dir, "docker.tar"), reference, img),
		image.WriteOCI(filepath.Join(dir, "oci.tar"), strings.Replace(reference, ":", ":oci-", 1), img),
		r.Import(c.ctx, filepath.Join(dir, "docker.tar")), r.Import(c.ctx, filepath.Join(dir, "oci.tar")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// get asks what a probe of the kubelet asks, from the node.
func (c *cluster) get(r *Runtime, port, path string) error {
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = r.Node.Do(func() error { conn, err = new(net.Dialer).DialContext(ctx, network, address); return err })
		return conn, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}, Timeout: 5 * time.Second}
	answer, err := client.Get("http://127.0.0.1:" + port + path)
	if err != nil {
		return err
	}
	err = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("%s: %s", path, answer.Status))
	}
	return err
}
