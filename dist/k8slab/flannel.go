package k8slab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/dist/image"
	"github.com/selvage-net/selvage/dist/lab"
)

// Where kube-flannel's DaemonSet is, and by what its pods are known.
const (
	flannels     = "kube-flannel"
	flannelSetOf = "daemonset/kube-flannel-ds"
	flannelLabel = "app=flannel"
)

// flannelFile is the path of what flannel's images and manifest are made from.
func (c *Cluster) flannelFile(name string) string {
	return filepath.Join(c.options.Bin, "flannel", name)
}

// flannelManifest reads flannel's own manifest, with the change that every user makes: the network config. With both
// families flannel uses nftables, else iptables, which is its default.
func (c *Cluster) flannelManifest() (string, error) {
	file := c.flannelFile("kube-flannel.yml")
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read flannel's manifest: %w: run make e2e-migration", err)
	}
	filter := lab.NFTablesOff
	if len(c.families()) > 1 {
		filter = lab.NFTablesOn
	}
	manifest, err := withConfig(string(data), c.networkConfig(filter))
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return manifest, nil
}

var imageInManifest = regexp.MustCompile(`(?m)^ +image: (\S+)$`)

// flannelImages finds in flannel's manifest the names of the image with the daemon, and of that with the CNI plugin.
func flannelImages(manifest string) (daemon, plugin string, err error) {
	for _, match := range imageInManifest.FindAllStringSubmatch(manifest, -1) {
		into := &daemon
		if strings.Contains(match[1], "cni-plugin") {
			into = &plugin
		}
		if *into != "" && *into != match[1] {
			err = fmt.Errorf("flannel's manifest has two images of the same kind, %s and %s", *into, match[1])
		}
		*into = match[1]
	}
	if daemon == "" || plugin == "" {
		err = errors.New("flannel's manifest lacks the image of its daemon or of its CNI plugin")
	}
	return daemon, plugin, err
}

// packFlannel writes the archives of the two images that flannel's manifest names. They hold flannel's programs, and
// those of this machine that are called there.
func (c *Cluster) packFlannel(ctx context.Context, manifest string) (archives []string, err error) {
	daemon, plugin, err := flannelImages(manifest)
	if err != nil {
		return nil, err
	}
	program := image.File{Path: "/opt/bin/flanneld", From: filepath.Join(c.options.Bin, "flanneld")}
	flanneld, err := withLibraries(ctx, program)
	if err != nil {
		return nil, err
	}
	filters, err := iptables(ctx, "iptables", "iptables-save", "iptables-restore",
		"ip6tables", "ip6tables-save", "ip6tables-restore")
	if err != nil {
		return nil, err
	}
	nft, err := programs(ctx, "nft")
	if err != nil {
		return nil, err
	}
	cp, err := programs(ctx, "cp")
	if err != nil {
		return nil, err
	}
	for _, i := range []struct {
		archive, reference string
		files              []image.File
	}{
		{"flannel", daemon, append(slices.Concat(flanneld, filters, nft),
			image.File{Path: "/opt/bin/install-conf", From: c.flannelFile("install-conf")})},
		{"flannel-cni-plugin", plugin, append(cp, image.File{Path: "/flannel", From: c.flannelFile("flannel")})},
	} {
		archive, err := c.pack(i.archive, i.reference, image.Spec{
			OS: runtime.GOOS, Arch: runtime.GOARCH, Files: unique(i.files), Env: []string{"PATH=/usr/sbin"},
			Command: []string{i.files[0].Path},
		})
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}
