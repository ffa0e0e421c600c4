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

// InstallCNI installs the CNI plugin and its network configuration.
func InstallCNI() *cobra.Command {
	var (
		o         install.Options
		uninstall bool
		watch     bool
	)
	c := &cobra.Command{
		Use:   "install-cni",
		Short: "Install the CNI plugin and its network configuration for the container runtime",
		Long: `install-cni installs the plugin, waits for the node's subnet file, and only then writes the network
configuration: to a runtime, that file means that the node's network is ready. Both files are replaced by rename, so no
process reads a partial file. The command is idempotent. It keeps a newer plugin, other network configurations, and its
own network configuration if that was edited. The reference plugins bridge, host-local, loopback and portmap are
installed where they are missing, if --reference-plugins has them; those of another program are kept, whatever their
version.`,
		Example: `  selvaged install-cni --wait=1m
  selvaged install-cni --wait=1m --cni-conf-dir=auto --cni-bin-dir=auto
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
			if !cmd.Flags().Changed("reference-plugins") {
				o.Reference = referencePlugins()
			}
			switch {
			case uninstall && watch:
				return errors.New("--uninstall and --watch exclude each other: use one of them")
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
	f.StringVar(&o.Program, "plugin", "",
		"path of the plugin to install (default selvage, in the directory of selvaged)")
	f.StringSliceVar(&o.Names, "name", []string{"selvage"},
		"file names of the installed plugin; selvage,flannel serves configurations of type flannel, too")
	f.StringVar(&o.Reference, "reference-plugins", "",
		"directory of the reference plugins to install where they are missing; empty installs none "+
			"(default ../libexec/cni from the directory of selvaged, if that exists)")
	f.StringVar(&o.BinDir, "cni-bin-dir", install.DefaultBinDir,
		"the container runtime's directory of plugins; auto reads it from the configuration of k3s, RKE2, MicroK8s or "+
			"containerd")
	f.StringVar(&o.ConfDir, "cni-conf-dir", install.DefaultConfDir,
		"the container runtime's directory of network configurations; auto as for --cni-bin-dir")
	f.StringVar(&o.Conflist, "conflist", install.DefaultConflist, "file name of the network configuration")
	f.StringVar(&o.Template, "conflist-template", "",
		"file to install as network configuration (default: delegates to bridge, with portmap if that is installed)")
	f.StringVar(&o.SubnetFile, "subnet-file", install.DefaultSubnetFile, "path of the daemon's subnet file")
	f.DurationVar(&o.Wait, "wait", time.Duration(0), "how long to wait for the subnet file")
	f.BoolVar(&o.Force, "force", false,
		"replace or remove files also if they are newer, were edited, or come from another program")
	f.BoolVar(&watch, "watch", false,
		"wait for the subnet file without limit, keep running, and reinstall removed files")
	f.BoolVar(&uninstall, "uninstall", false, "remove the installed files, the network configuration first")
	return c
}

// watchCNI keeps plugin and configuration installed until the command's context ends. It checks them after each change
// of the files, and at least once per interval. A report is printed if it differs from the last one.
func watchCNI(cmd *cobra.Command, o install.Options, interval time.Duration) error {
	const unlimited = 100 * 365 * 24 * time.Hour
	o.Wait = unlimited
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
		wait, text := interval, ""
		switch {
		case err != nil && !installed: // report a wrong option or directory at once
			return err
		case err != nil: // another process may be removing the files right now
			if wait, text = time.Second, err.Error(); text != failed {
				fmt.Fprintln(cmd.ErrOrStderr(), "selvaged: warning: the installation failed and is retried:", err)
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

// watchInstalled notifies when the files that install-cni installs may have changed, until stop is called. If they
// cannot be watched, it prints a warning.
func watchInstalled(cmd *cobra.Command, o install.Options) (touched chan struct{}, stop func()) {
	paths, err := install.Paths(o)
	if err != nil { // the first installation has the same error and returns it
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	touched, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		err := filewatch.Watch(ctx, func() {
			select {
			case touched <- struct{}{}:
			default: // a check is due already
			}
		}, paths...)
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(),
				"selvaged: warning: cannot watch the installed files; they are checked periodically instead:", err)
		}
	}()
	return touched, func() { cancel(); <-ended }
}

// say prints the changes that were made, and the warnings.
func say(cmd *cobra.Command, report install.Report) {
	for _, line := range report.Done {
		fmt.Fprintln(cmd.OutOrStdout(), line)
	}
	for _, line := range report.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "selvaged: warning:", line)
	}
}

// referencePlugins returns the directory of the reference plugins that come with this program; none is "".
func referencePlugins() string {
	dir := besides("../libexec/cni")
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// besides returns the path of a program in the directory of this one.
func besides(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(exe), name)
}
