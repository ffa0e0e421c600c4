package k8slab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/image"
)

// packPods writes the archive with what runs in pods: the runtime starts a sandbox with the command of its image, a pod names
// its own.
func (c *Cluster) packPods() (string, error) {
	archive := filepath.Join(c.dir, "pod.tar")
	img, err := image.Build(image.Spec{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Command: []string{"/pod"},
		Files: []image.File{{Path: "/pod", From: c.command("pod")}, {Path: "/agent", From: c.command("agent")}},
	})
	if err != nil {
		return "", err
	}
	return archive, image.WriteDocker(archive, containerd.Reference, img)
}

// selvage is the archive with the image of selvage, as make image makes it.
func (c *Cluster) selvage() string {
	return filepath.Join(c.options.Bin, "image", "selvage-"+runtime.GOARCH+".tar")
}

// readManifest reads the DaemonSet's, with the lab's etcd: the change that every user makes.
func readManifest(file string, endpoints []string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	const from = `SELVAGED_ETCD_ENDPOINTS: "http://127.0.0.1:2379"`
	if strings.Count(string(data), from) != 1 {
		return "", fmt.Errorf("%s: want one line %s", file, from)
	}
	to := fmt.Sprintf("SELVAGED_ETCD_ENDPOINTS: %q", strings.Join(endpoints, ","))
	return strings.Replace(string(data), from, to, 1), nil
}
