package containerd

import (
	"bytes"
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
}

// Runtime is the containerd of one node.
type Runtime struct {
	*cri.Runtime
	options Options
}

// New prepares a node, with the plugins installed and no network configuration, and starts containerd on it.
func New(ctx context.Context, node *lab.Node, o Options) (*Runtime, error) {
	parent, err := CgroupParent()
	if err != nil {
		return nil, err
	}
	err = node.Do(func() error {
		if err := cri.PrepareMounts(); err != nil {
			return err
		}
		return errors.Join(cri.InstallPlugins(o.Plugins), os.WriteFile(configFile, []byte(config()), 0o644))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node.Name(), err)
	}
	r := &Runtime{options: o}
	with := cri.Options{Argv: []string{r.command("containerd"), "--config", configFile}, Socket: Socket, Logs: o.Logs, Cgroup: parent}
	if o.Dir != "" { // the shim is found by PATH
		with.Env = []string{"PATH=" + o.Dir + ":" + os.Getenv("PATH")}
	}
	if r.Runtime, err = cri.New(node, with); err != nil {
		return nil, err
	}
	return r, errors.Join(r.Start(ctx), r.Import(ctx, o.Image))
}

// configFile is containerd's, on the node.
const configFile = "/etc/containerd-lab.toml"

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
