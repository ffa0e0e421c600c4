package crio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
)

// Options say which CRI-O, and what to give to it.
type Options struct {
	Dir     string // of crio and pinns
	Plugins string // directory of selvage and cni/
	Image   string // the archive that [cri.Image] made
	Logs    string // directory for what CRI-O prints, in the node's view
}

// Runtime is the CRI-O of one node.
type Runtime struct{ *cri.Runtime }

// New prepares a node, with the plugins installed and no network configuration, and starts CRI-O on it.
func New(ctx context.Context, node *lab.Node, o Options) (*Runtime, error) {
	parent, err := containerd.CgroupParent()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	err = node.Do(func() error {
		if err := cri.PrepareMounts(); err != nil {
			return err
		}
		// CRI-O sets lo up by itself.
		return errors.Join(cri.InstallPlugins(o.Plugins), os.Remove(filepath.Join(cri.BinDir, "loopback")), os.MkdirAll(dropIns, 0o755),
			os.WriteFile(configFile, []byte(config(dir)), 0o644))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node.Name(), err)
	}
	r := &Runtime{}
	r.Runtime, err = cri.New(node, cri.Options{
		Argv:   []string{filepath.Join(dir, "crio"), "--config", configFile, "--config-dir", dropIns},
		Socket: Socket, Logs: o.Logs, Cgroup: parent,
	})
	if err != nil {
		return nil, err
	}
	return r, errors.Join(r.Start(ctx), r.Import(ctx, "docker-archive:"+o.Image, cri.Reference))
}

// Import gives CRI-O an image. from is what skopeo(1) takes, as docker-archive:FILE or oci-archive:FILE.
func (r *Runtime) Import(ctx context.Context, from, reference string) error {
	out, err := r.Node.Output(ctx, "skopeo", "copy", "--insecure-policy", "--quiet", from, "containers-storage:"+reference)
	if err != nil {
		return fmt.Errorf("%s: import %s: %w: %s", r.Node.Name(), from, err, out)
	}
	return nil
}

// Set has CRI-O's next start take settings over those of its configuration; none takes them back.
func (r *Runtime) Set(settings string) error {
	file := filepath.Join(dropIns, "10-test.conf")
	return r.Node.Do(func() error { return os.WriteFile(file, []byte(settings), 0o644) })
}
