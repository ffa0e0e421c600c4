package k8slab

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

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

// withIPTables names the image of selvage that has iptables in it.
const withIPTables = "localhost/selvage:iptables"

// packIPTables writes the archive of that image: what dist/image/Dockerfile builds, from this machine's Debian.
func (c *Cluster) packIPTables(ctx context.Context) (string, error) {
	spec := image.Selvage(runtime.GOARCH, filepath.Join(c.options.Bin, "image", runtime.GOARCH), "iptables", time.Time{})
	program, err := exec.LookPath("iptables")
	if err == nil {
		program, err = filepath.EvalSymlinks(program) // one for all, which does what it is called
	}
	if err != nil {
		return "", fmt.Errorf("pack iptables: %w", err)
	}
	for _, name := range []string{"iptables", "ip6tables", "iptables-restore", "ip6tables-restore"} {
		spec.Files = append(spec.Files, image.File{Path: filepath.Join("/usr/sbin", name), From: program})
	}
	libraries, err := libraries(ctx, program)
	if err != nil {
		return "", err
	}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil || len(extensions) == 0 {
		return "", fmt.Errorf("pack iptables: there are none of its extensions in /usr/lib/*/xtables: %w", err)
	}
	for _, path := range slices.Concat(libraries, extensions) {
		spec.Files = append(spec.Files, image.File{Path: path, From: path})
	}
	img, err := image.Build(spec)
	if err != nil {
		return "", err
	}
	archive := filepath.Join(c.dir, "iptables.tar")
	return archive, image.WriteDocker(archive, withIPTables, img)
}

// libraries are what a program is linked with, the loader among them, as ldd(1) says it.
func libraries(ctx context.Context, program string) (paths []string, err error) {
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			paths = append(paths, word)
		}
	}
	return paths, nil
}
