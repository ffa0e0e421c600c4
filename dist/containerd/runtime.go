package containerd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
)

// Options say which containerd, and what to give to it.
type Options struct {
	Dir     string // of containerd, its shim and ctr; default: found by PATH
	Plugins string // directory of selvage and cni/
	Image   string // the archive that [cri.Image] made
	Logs    string // directory for what containerd prints, in the node's view

	ConfigFile string // containerd's configuration, on the node; empty: one of the lab's
	ConfDir    string // of network configurations, on the node; empty: [cri.ConfDir]
	BinDir     string // of plugins, on the node; empty: [cri.BinDir], with the plugins installed
}

// Runtime is the containerd of one node.
type Runtime struct {
	*cri.Runtime
	options Options
}

// New prepares a node without a network configuration, and starts containerd on it.
func New(ctx context.Context, node *lab.Node, o Options) (*Runtime, error) {
	parent, err := CgroupParent()
	if err != nil {
		return nil, err
	}
	o.ConfigFile, o.ConfDir = cmp.Or(o.ConfigFile, "/etc/containerd-lab.toml"), cmp.Or(o.ConfDir, cri.ConfDir)
	err = node.Do(func() error {
		if err := cri.PrepareMounts(); err != nil {
			return err
		}
		if o.BinDir == "" {
			o.BinDir = cri.BinDir
			if err := cri.InstallPlugins(o.Plugins); err != nil {
				return err
			}
		}
		for _, dir := range []string{filepath.Dir(o.ConfigFile), o.ConfDir, o.BinDir} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		return os.WriteFile(o.ConfigFile, []byte(o.config()), 0o644)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node.Name(), err)
	}
	r := &Runtime{options: o}
	with := cri.Options{Argv: []string{r.command("containerd"), "--config", o.ConfigFile}, Socket: Socket, Logs: o.Logs,
		Cgroup: parent}
	if o.Dir != "" { // the shim is found by PATH
		with.Env = []string{"PATH=" + o.Dir + ":" + os.Getenv("PATH")}
	}
	if r.Runtime, err = cri.New(node, with); err != nil {
		return nil, err
	}
	return r, errors.Join(r.Start(ctx), r.Import(ctx, o.Image))
}

func (r *Runtime) command(name string) string {
	if r.options.Dir == "" {
		return name
	}
	return filepath.Join(r.options.Dir, name)
}

// Import gives containerd an image, from an archive. That is read here: a file below /run, say, is not one of the node's.
func (r *Runtime) Import(ctx context.Context, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer f.Close()
	var problems bytes.Buffer
	err = r.Node.Exec(ctx, []string{r.command("ctr"), "--address", Socket, "--namespace", "k8s.io", "images", "import", "-"},
		lab.Stdio{In: f, Err: &problems})
	if err != nil {
		return fmt.Errorf("import %s: %w: %s", archive, err, bytes.TrimSpace(problems.Bytes()))
	}
	return nil
}
