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
	return c.pack("pod", containerd.Reference, image.Spec{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Command: []string{"/pod"},
		Files: []image.File{{Path: "/pod", From: c.command("pod")}, {Path: "/agent", From: c.command("agent")}},
	})
}

// selvage is the archive with the image of selvage, as make image makes it, or that of the options.
func (c *Cluster) selvage() string {
	if c.options.Image != "" {
		return c.options.Image
	}
	return filepath.Join(c.options.Bin, "image", "selvage-"+runtime.GOARCH+".tar")
}

// withIPTables names the image of selvage that has iptables in it.
const withIPTables = "localhost/selvage:iptables"

// packIPTables writes the archive of that image: what dist/image/Dockerfile builds, from this machine's Debian.
func (c *Cluster) packIPTables(ctx context.Context) (string, error) {
	spec := image.Selvage(runtime.GOARCH, filepath.Join(c.options.Bin, "image", runtime.GOARCH), "iptables", time.Time{})
	files, err := iptables(ctx, "iptables", "ip6tables", "iptables-restore", "ip6tables-restore")
	if err != nil {
		return "", err
	}
	spec.Files = append(spec.Files, files...)
	return c.pack("iptables", withIPTables, spec)
}

// pack writes the archive of an image, and returns the archive's path.
func (c *Cluster) pack(file, reference string, spec image.Spec) (string, error) {
	img, err := image.Build(spec)
	if err != nil {
		return "", err
	}
	archive := c.file(file + ".tar")
	return archive, image.WriteDocker(archive, reference, img)
}

// iptables lists this machine's iptables under the given names, for an image, with what it needs to run.
func iptables(ctx context.Context, names ...string) ([]image.File, error) {
	files, err := programs(ctx, names...)
	if err != nil {
		return nil, err
	}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil || len(extensions) == 0 {
		return nil, fmt.Errorf("pack iptables: there are none of its extensions in /usr/lib/*/xtables: %w", err)
	}
	for _, path := range extensions {
		files = append(files, image.File{Path: path, From: path})
	}
	return files, nil
}

// programs lists programs of this machine, for an image in which they are in /usr/sbin, and what they are linked with.
func programs(ctx context.Context, names ...string) (files []image.File, err error) {
	for _, name := range names {
		program, err := exec.LookPath(name)
		if err == nil {
			program, err = filepath.EvalSymlinks(program) // one for several, which does what it is called
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		files = append(files, image.File{Path: filepath.Join("/usr/sbin", name), From: program})
	}
	return withLibraries(ctx, files...)
}

// withLibraries adds to programs what they are linked with, the loader among it, as ldd(1) lists it.
func withLibraries(ctx context.Context, programs ...image.File) ([]image.File, error) {
	files := slices.Clone(programs)
	for _, p := range programs {
		out, err := exec.CommandContext(ctx, "ldd", p.From).Output()
		if err != nil {
			return nil, fmt.Errorf("ldd %s: %w", p.From, err)
		}
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				files = append(files, image.File{Path: word, From: word})
			}
		}
	}
	return unique(files), nil
}

// unique leaves out files of a path that another one before has.
func unique(files []image.File) (list []image.File) {
	seen := map[string]bool{}
	for _, f := range files {
		if !seen[f.Path] {
			list = append(list, f)
		}
		seen[f.Path] = true
	}
	return list
}
