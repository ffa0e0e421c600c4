package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/cniplugin/install"
	"github.com/selvage-net/selvage/network/filewatch"
)

// InstallCNI puts the CNI plugin and its network configuration in place.
func InstallCNI() *cobra.Command {
	var (
		o         install.Options
		uninstall bool
		watch     bool
	)
	c := &cobra.Command{
		Use:   "install-cni",
		Short: "Put the CNI plugin and its network configuration where the container runtime looks",
		Long: `install-cni installs the plugin, then waits for the node's subnet file, and writes the network configuration only then:
a runtime takes it for the sign that the node's network is ready. Both are replaced by rename, so nobody ever sees half a file.
It can be repeated at any time. A newer plugin, other configurations, and one of ours that was edited stay as they are.`,
		Example: `  selvaged install-cni --wait=1m
  selvaged install-cni --watch
  selvaged install-cni --uninstall`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := FromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			var report install.Report
			var err error
			if o.Program == "" {
				o.Program = besides("selvage")
			}
			switch {
			case uninstall && watch:
				return errors.New("--uninstall and --watch: want one of them")
			case watch:
				return watchCNI(cmd, o, 10*time.Second)
			case uninstall:
				report, err = install.Uninstall(o)
			default:
				report, err = install.Install(cmd.Context(), o)
			}
			say(cmd, report)
			if errors.Is(err, install.ErrNotReady) {
				return fmt.Errorf("%w; start selvaged, and run this again or with --wait", err)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.Program, "plugin", "", "the plugin to install (default selvage, where selvaged is)")
	f.StringSliceVar(&o.Names, "name", []string{"selvage"}, "what it is called there; selvage,flannel for configurations that name that")
	f.StringVar(&o.BinDir, "cni-bin-dir", install.DefaultBinDir, "the runtime's directory of plugins")
	f.StringVar(&o.ConfDir, "cni-conf-dir", install.DefaultConfDir, "the runtime's directory of network configurations")
	f.StringVar(&o.Conflist, "conflist", install.DefaultConflist, "file name of the network configuration")
	f.StringVar(&o.Template, "conflist-template", "", "file to install as that (default one that delegates to bridge, with portmap if that is there)")
	f.StringVar(&o.SubnetFile, "subnet-file", install.DefaultSubnetFile, "the daemon's")
	f.DurationVar(&o.Wait, "wait", time.Duration(0), "how long to wait for the subnet file")
	f.BoolVar(&o.Force, "force", false, "replace or remove also what is newer, was edited, or is somebody else's")
	f.BoolVar(&watch, "watch", false, "wait for the subnet file for ever, stay, and install again what is removed")
	f.BoolVar(&uninstall, "uninstall", false, "remove what was installed, the network configuration first")
	return c
}

// watchCNI keeps plugin and configuration installed until it is told to end: it looks whenever somebody may have touched
// them, and each time that pause has passed. What was done is said when it changes.
func watchCNI(cmd *cobra.Command, o install.Options, pause time.Duration) error {
	const forEver = 100 * 365 * 24 * time.Hour
	o.Wait = forEver
	touched, stop := watchInstalled(cmd, o)
	defer stop()
	var last install.Report
	failed := ""
	for installed := false; ; installed = true {
		report, err := install.Install(cmd.Context(), o)
		if cmd.Context().Err() != nil {
			return nil
		}
		if !reflect.DeepEqual(report, last) {
			say(cmd, report)
		}
		last = report
		wait, text := pause, ""
		switch {
		case err != nil && !installed: // for who has started this to see to
			return err
		case err != nil: // somebody may just be removing what is installed
			if wait, text = time.Second, err.Error(); text != failed {
				fmt.Fprintln(cmd.ErrOrStderr(), "selvaged: warning: it is tried again:", err)
			}
		}
		failed = text
		select {
		case <-cmd.Context().Done():
			return nil
		case <-touched:
		case <-time.After(wait):
		}
	}
}

// watchInstalled tells when somebody may have touched what install-cni puts in place, until stop is called. Where that
// cannot be watched it says so.
func watchInstalled(cmd *cobra.Command, o install.Options) (touched chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(cmd.Context())
	touched, ended := make(chan struct{}, 1), make(chan struct{})
	paths := []string{filepath.Join(o.ConfDir, o.Conflist)}
	for _, name := range o.Names {
		paths = append(paths, filepath.Join(o.BinDir, name))
	}
	go func() {
		defer close(ended)
		err := filewatch.Watch(ctx, func() {
			select {
			case touched <- struct{}{}:
			default: // it will be looked at anyway
			}
		}, paths...)
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "selvaged: warning: what is installed is looked at now and then only:", err)
		}
	}()
	return touched, func() { cancel(); <-ended }
}

// say prints what was done, and what is worth a look.
func say(cmd *cobra.Command, report install.Report) {
	for _, line := range report.Done {
		fmt.Fprintln(cmd.OutOrStdout(), line)
	}
	for _, line := range report.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "selvaged: warning:", line)
	}
}

// besides returns the path of a program that is where this one is.
func besides(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(exe), name)
}
