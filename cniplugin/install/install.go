package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// ErrNotReady says that this node has no subnet file yet, so that no network configuration was written. Try again.
var ErrNotReady = errors.New("this node has no subnet yet")

// Options say what goes where. The zero value of a field is what its comment says.
type Options struct {
	Program    string        // the plugin to be installed; required but for Uninstall
	Names      []string      // in BinDir: "selvage"; "flannel" as well for configurations that name that
	Reference  string        // directory of the reference plugins, installed where they are missing; "": none
	BinDir     string        // /opt/cni/bin; Auto: that of the node's runtime
	ConfDir    string        // /etc/cni/net.d; Auto: that of the node's runtime
	Conflist   string        // file name in ConfDir: 10-selvage.conflist
	Template   string        // a file to be installed as the network configuration; none: the default one
	SubnetFile string        // /run/flannel/subnet.env
	Wait       time.Duration // how long to wait for the subnet file
	Force      bool          // replace or remove also what is newer, was edited or is not ours

	root string // of the node's files, in tests
}

// The runtimes' usual places.
const (
	DefaultBinDir     = "/opt/cni/bin"
	DefaultConfDir    = "/etc/cni/net.d"
	DefaultConflist   = "10-selvage.conflist"
	DefaultSubnetFile = "/run/flannel/subnet.env"
	defaultName       = "selvage"
)

func (o Options) withDefaults() Options {
	set := func(s *string, def string) {
		if *s == "" {
			*s = def
		}
	}
	set(&o.BinDir, DefaultBinDir)
	set(&o.ConfDir, DefaultConfDir)
	set(&o.Conflist, DefaultConflist)
	set(&o.SubnetFile, DefaultSubnetFile)
	if len(o.Names) == 0 {
		o.Names = []string{defaultName}
	}
	return o
}

// Report is what was done, a line each, for a log.
type Report struct {
	Done     []string // what was changed, or found up to date
	Warnings []string // what is worth a look
}

func (r *Report) done(format string, args ...any) {
	r.Done = append(r.Done, fmt.Sprintf(format, args...))
}
func (r *Report) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// Install installs the program and, once the node is ready, the network configuration. It can be repeated at any time.
// The report says what was done also if there is an error; [ErrNotReady] means that only the network configuration is
// missing.
func Install(ctx context.Context, o Options) (r Report, err error) {
	if o, err = o.withDefaults().resolve(&r); err != nil {
		return r, err
	}
	if err := installReference(o, &r); err != nil {
		return r, fmt.Errorf("install the reference plugins: %w", err)
	}
	for _, name := range o.Names {
		if err := installProgram(o, name, &r); err != nil {
			return r, fmt.Errorf("install the plugin: %w", err)
		}
	}
	if err := awaitSubnet(ctx, o); err != nil {
		return r, err
	}
	if err := installConflist(o, &r); err != nil {
		return r, fmt.Errorf("install the network configuration: %w", err)
	}
	return r, nil
}

// Paths returns the files that Install installs, to be watched. An error is that of finding the runtime's directories.
func Paths(o Options) ([]string, error) {
	o, err := o.withDefaults().resolve(&Report{})
	if err != nil {
		return nil, err
	}
	paths := []string{filepath.Join(o.ConfDir, o.Conflist)}
	names := o.Names
	if o.Reference != "" {
		names = slices.Concat(names, referencePlugins())
	}
	for _, name := range names {
		paths = append(paths, filepath.Join(o.BinDir, name))
	}
	return paths, nil
}

// Uninstall removes what Install put there, the network configuration first: a runtime must not find one whose plugin
// is gone. What containers that run need for their end stays: the configurations and addresses that are kept for them.
// But their end needs the program too, so they should have ended before.
func Uninstall(o Options) (r Report, err error) {
	if o, err = o.withDefaults().resolve(&r); err != nil {
		return r, err
	}
	if err := removeConflist(o, &r); err != nil {
		return r, fmt.Errorf("remove the network configuration: %w", err)
	}
	for _, name := range o.Names {
		if err := removeProgram(o, name, &r); err != nil {
			return r, fmt.Errorf("remove the plugin: %w", err)
		}
	}
	if err := removeReference(o, &r); err != nil {
		return r, fmt.Errorf("remove the reference plugins: %w", err)
	}
	return r, nil
}

const lookEvery = 100 * time.Millisecond

// awaitSubnet waits until there is a subnet file. One that is damaged is an error at once.
func awaitSubnet(ctx context.Context, o Options) error {
	for until := time.Now().Add(o.Wait); ; {
		_, err := subnetfile.Read(o.SubnetFile)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if time.Now().After(until) || ctx.Err() != nil {
			return fmt.Errorf("%w, so no network configuration was written: %w", ErrNotReady, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}
