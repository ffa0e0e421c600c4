package critest

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

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/image"
)

// nftables is a network config for nodes without iptables, as the image is one.
const nftables = `{"Network":"10.5.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}`

// Archives are the image of selvage as make image writes it, in two kinds.
type Archives struct {
	Docker, OCI       string // file names
	Reference, OCIRef string // the image's name in each
}

// DaemonSet runs the daemon of the second node from the image, as the manifest says: with no more capabilities, writable
// directories and system calls than that. The node is a fresh one: it has no plugin at all and no configuration, and does not
// forward. give gives the image to that node's runtime. What make build made is in bin.
func (c *Cluster) DaemonSet(t *testing.T, bin, conflist string, give func(*cri.Runtime, Archives) error) {
	if err := c.Lab.Etcd().PutConfig(c.Ctx, nftables); err != nil {
		t.Fatal(err)
	}
	if err := c.Lab.WaitReady(c.Ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.At[0].Configure(conflist); err != nil {
		t.Fatal(err)
	}
	r := c.At[1]
	before, err := r.Node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Node.Stop(c.Ctx); err != nil {
		t.Fatal(err)
	}
	m, err := cri.ReadManifest("../kubernetes/selvage-etcd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := give(r, archives(t, bin, m.Containers[0].Image)); err != nil {
		t.Fatal(err)
	}
	if has, err := r.HasImage(c.Ctx, m.Containers[0].Image); err != nil || !has {
		t.Fatalf("the runtime has the image: %t, %v", has, err)
	}
	var volumes map[string]string
	err = r.Node.Do(func() error {
		err := errors.Join(os.RemoveAll(cri.BinDir), os.Mkdir(cri.BinDir, 0o755), os.Remove("/run/flannel/subnet.env"))
		if err != nil {
			return err
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
	c.Ready(t, r, false)

	pod, err := r.RunHostPod(c.Ctx, "selvage")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"SELVAGED_ETCD_ENDPOINTS": strings.Join(c.Lab.Etcd().Endpoints(), ","), "SELVAGED_NODE_NAME": r.Node.Name(),
	}
	running := map[string]*cri.Container{}
	for _, p := range m.Containers {
		if running[p.Name], err = pod.RunConfig(c.Ctx, m.Config(p, volumes, env)); err != nil {
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
	c.Eventually(t, "/readyz", func() error { return get(r, m.ConfigMaps["selvage-flags"]["SELVAGED_HEALTHZ_PORT"], "/readyz") })
	if err := get(r, m.ConfigMaps["selvage-flags"]["SELVAGED_HEALTHZ_PORT"], "/healthz"); err != nil {
		t.Error(err)
	}
	c.Ready(t, r, true)
	if after, err := r.Node.Subnet(); err != nil || !reflect.DeepEqual(after, before) {
		t.Errorf("the subnet file is %+v, %v, was %+v", after, err, before)
	}
	if log := daemon.Log(); strings.Contains(log, "level=error") {
		t.Errorf("selvaged complains:\n%s", log)
	}
	a, _ := c.Serving(t, c.At[0], "there")
	b, asking := c.Serving(t, r, "here")
	c.Asks(t, asking, a.Addr, b.Addr)

	// A rolling update replaces the daemon: what is in the kernel stays, and so do the pods.
	if err := daemon.Remove(c.Ctx); err != nil {
		t.Fatal(err)
	}
	c.Asks(t, asking, a.Addr, b.Addr)
	c.Remove(t, a, b, pod)
	c.NothingLeft(t)
}

// archives packs the image of selvage from the binaries in bin.
func archives(t *testing.T, bin, reference string) Archives {
	t.Helper()
	img, err := image.Build(image.Selvage(runtime.GOARCH, bin, "test", time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a := Archives{
		Docker: filepath.Join(dir, "docker.tar"), OCI: filepath.Join(dir, "oci.tar"),
		Reference: reference, OCIRef: strings.Replace(reference, ":", ":oci-", 1),
	}
	if err := errors.Join(image.WriteDocker(a.Docker, a.Reference, img), image.WriteOCI(a.OCI, a.OCIRef, img)); err != nil {
		t.Fatal(err)
	}
	return a
}

// get asks what a probe of the kubelet asks, from the node.
func get(r *cri.Runtime, port, path string) error {
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
