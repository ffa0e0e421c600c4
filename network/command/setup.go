package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/cniplugin/install"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

const (
	defaultEnvFile = "/etc/selvage/selvaged.env"
	defaultUnit    = "selvaged.service"
	// suggestedNetwork is offered where there is no network config: flannel's default in Kubernetes.
	suggestedNetwork = "10.244.0.0/16"
	// lookForReady is how often the daemon is asked whether it is ready.
	lookForReady = 200 * time.Millisecond
)

// setup has the flags of the command, and where it works.
type setup struct {
	config   config // of the store, and of what it writes there
	networks [2]string
	backend  string
	iface    string
	envFile  string
	unit     string
	wait     time.Duration
	cni      install.Options
	noCNI    bool

	flags *pflag.FlagSet
	in    io.Reader // nil: there is no user to ask
	out   io.Writer
	say   func(install.Report)
	// systemctl runs it, and returns what it printed.
	systemctl func(ctx context.Context, args ...string) (string, error)
}

// Setup sets up a node for the first time.
func Setup() *cobra.Command {
	o := setup{systemctl: systemctl}
	c := &cobra.Command{
		Use:   "setup",
		Short: "Set this node up: network config, flags, daemon and CNI plugin",
		Long: `setup takes a node with systemd and an etcd from the installed package to pods that reach those of other
nodes, and says what it does. It

 1. looks whether the unit is installed and etcd answers;
 2. writes the network config to etcd if there is none: --network, or what you answer; one that is there is kept;
 3. writes the flags that you give it into the daemon's environment file, and keeps all other lines;
 4. enables the unit, starts it (or restarts it if its flags have changed), and waits until the node is ready;
 5. installs the CNI plugin, its network configuration, and the reference plugins that the node lacks.

What is done already is left alone, so it can be run again, and is the same command on each node.`,
		Example: `  selvaged setup --etcd-endpoints=http://10.0.0.1:2379 --network=10.244.0.0/16
  selvaged setup --etcd-endpoints=https://10.0.0.1:2379 --etcd-cafile=/etc/selvage/ca.pem --iface=eth1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.flags, o.out = cmd.Flags(), cmd.OutOrStdout()
			o.config.out, o.config.notes = indent{cmd.OutOrStdout()}, indent{cmd.ErrOrStderr()}
			o.say = func(r install.Report) { say(cmd, r) }
			if f, ok := cmd.InOrStdin().(*os.File); ok && isTerminal(f) {
				o.in = f
			}
			return o.run(cmd.Context())
		},
	}
	f := c.Flags()
	EtcdFlags(f, &o.config.store.Etcd)
	f.StringVar(&o.networks[subnet.IPv4], "network", "",
		"the pods' IPv4 network, of which each node gets a part, if etcd has no network config yet")
	f.StringVar(&o.networks[subnet.IPv6], "ipv6-network", "", "the pods' IPv6 network, likewise")
	f.StringVar(&o.backend, "backend", "vxlan",
		"backend of a network config that it writes: vxlan, host-gw or wireguard")
	f.StringVar(&o.iface, "iface", "", "interface or address of the underlay, as for the daemon")
	f.StringVar(&o.envFile, "env-file", defaultEnvFile, "the daemon's environment file")
	f.StringVar(&o.unit, "unit", defaultUnit, "the daemon's systemd unit")
	f.StringVar(&o.config.socket, "socket", status.DefaultSocket, "path of the daemon's socket")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long to wait until the node is ready")
	f.BoolVar(&o.noCNI, "no-cni", false, "do not install the CNI plugin")
	f.StringVar(&o.cni.Reference, "reference-plugins", "", "as for selvaged install-cni")
	f.StringVar(&o.cni.BinDir, "cni-bin-dir", install.DefaultBinDir, "as for selvaged install-cni")
	f.StringVar(&o.cni.ConfDir, "cni-conf-dir", install.DefaultConfDir, "as for selvaged install-cni")
	CompleteFlag(c, "backend", "vxlan", "host-gw", "wireguard")
	return c
}

// run does all steps in turn. Nothing is changed before the first two have found what they need.
func (o *setup) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can set a node up: use sudo")
	}
	if _, err := o.systemctl(ctx, "cat", o.unit); err != nil {
		return fmt.Errorf("the unit %s is not installed: install the package of selvage, or the unit by hand "+
			"(Documentation/systemd.md): %w", o.unit, err)
	}
	before, after, names, err := o.environment()
	if err != nil {
		return err
	}
	if err := o.networkConfig(ctx); err != nil {
		return err
	}
	changed := before.String() != after.String()
	if changed {
		if err := replaceKeepingMode(o.envFile, after.String()); err != nil {
			return err
		}
		fmt.Fprintf(o.out, "flags: set %s in %s\n", strings.Join(names, ", "), o.envFile)
	} else {
		fmt.Fprintf(o.out, "flags: %s has them already\n", o.envFile)
	}
	if err := o.start(ctx, changed); err != nil {
		return err
	}
	if o.noCNI {
		return nil
	}
	return o.installCNI(ctx)
}

// environment returns the lines of the environment file before and after, and the variables that change. The flags that
// the command line does not set get their values from it.
func (o *setup) environment() (before, after envLines, names []string, err error) {
	text, err := os.ReadFile(o.envFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, err
	}
	err = nil
	before = parseEnv(string(text))
	after = before
	o.flags.Visit(func(f *pflag.Flag) {
		if !strings.HasPrefix(f.Name, "etcd-") && f.Name != "iface" || err != nil {
			return
		}
		name := "SELVAGED_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := f.Value.String()
		if list, ok := f.Value.(*commaList); ok {
			value = strings.Join(*list, ",")
		}
		if was, ok := before.lookup(name); ok && was == value {
			return
		}
		names = append(names, name)
		after, err = after.with(name, value)
	})
	if err != nil {
		return nil, nil, nil, err
	}
	etcd := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.flags.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, "etcd-") {
			etcd.AddFlag(f)
		}
	})
	return before, after, names, FromEnvironment(etcd, before.lookup)
}

// networkConfig writes the network config if there is none.
func (o *setup) networkConfig(ctx context.Context) error {
	store, err := o.config.store.openEtcd(quiet())
	if err != nil {
		return err
	}
	defer store.Close()
	asking, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	stored, err := store.ReadConfig(asking)
	if err != nil {
		return fmt.Errorf("etcd at %s: %w; start it, or name another one with --etcd-endpoints",
			strings.Join(o.config.store.Etcd.Endpoints, ", "), err)
	}
	if stored.Data != nil {
		fmt.Fprintf(o.out, "network config: %s has %s\n", stored.Key, bytes.TrimSpace(stored.Data))
		return o.fits(stored.Data)
	}
	data, err := o.newConfig()
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "network config: %s\n", data)
	return o.config.apply(ctx, store, data, true)
}

// newConfig makes a network config of the flags, or of the user's answer.
func (o *setup) newConfig() ([]byte, error) {
	if o.networks == [2]string{} {
		answer, err := o.ask("There is no network config in etcd yet. The pods' network, which nothing else uses",
			suggestedNetwork)
		if err != nil {
			return nil, err
		}
		o.networks[subnet.IPv4] = answer
	}
	c := struct {
		Network     string            `json:",omitempty"`
		EnableIPv4  *bool             `json:",omitempty"`
		EnableIPv6  bool              `json:",omitempty"`
		IPv6Network string            `json:",omitempty"`
		Backend     map[string]string `json:",omitempty"`
	}{
		Network: o.networks[subnet.IPv4], EnableIPv6: o.networks[subnet.IPv6] != "",
		IPv6Network: o.networks[subnet.IPv6], Backend: map[string]string{"Type": o.backend},
	}
	if c.Network == "" {
		c.EnableIPv4 = new(bool)
	}
	return json.Marshal(c)
}

// fits says whether a network config that is there is what the flags ask for.
func (o *setup) fits(data []byte) error {
	c, err := node.ParseConfig(subnet.StoreEtcd, data)
	if err != nil {
		return fmt.Errorf("the network config in etcd is invalid, mend it with selvaged config set: %w", err)
	}
	for _, f := range subnet.Families() {
		want := o.networks[f]
		if want == "" {
			continue
		}
		p, err := netip.ParsePrefix(want)
		if err != nil {
			return fmt.Errorf("%q is no network such as %s", want, suggestedNetwork)
		}
		if !c.Ranges[f].Enabled() || c.Ranges[f].Network != p.Masked() {
			return fmt.Errorf("etcd has a network config without %s: leave --network and --ipv6-network out to use it "+
				"as it is, or change it with selvaged config set", p)
		}
	}
	return nil
}

// ask asks the user. An empty answer is what was suggested.
func (o *setup) ask(question, suggested string) (string, error) {
	if o.in == nil {
		return "", fmt.Errorf("there is no network config in etcd yet: give one, such as --network=%s; "+
			"nothing else on the nodes may use that network", suggested)
	}
	fmt.Fprintf(o.out, "%s [%s]: ", question, suggested)
	line, err := bufio.NewReader(o.in).ReadString('\n')
	if err != nil && line == "" {
		return "", fmt.Errorf("no answer: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return suggested, nil
	}
	return line, nil
}

// start enables the unit and starts it, and waits until the node is ready.
func (o *setup) start(ctx context.Context, changed bool) error {
	if _, err := o.systemctl(ctx, "enable", o.unit); err != nil {
		return err
	}
	verb, did := "start", "started"
	if _, err := o.systemctl(ctx, "is-active", "--quiet", o.unit); err == nil {
		if did = "ran already"; changed {
			verb, did = "restart", "restarted"
		}
	}
	began := time.Now()
	// It returns when the node is ready. A node that is not says better than systemctl what it waits for.
	starting, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	if _, err := o.systemctl(starting, verb, o.unit); err != nil && starting.Err() == nil {
		return fmt.Errorf("%w; journalctl -u %s says why", err, o.unit)
	}
	s, err := o.ready(ctx, began.Add(o.wait))
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "daemon: %s, enabled at boot; %s with subnet %s, among %d nodes\n",
		did, s.State, joinPrefixes(s.Lease), s.Leases)
	for _, p := range s.Problems {
		fmt.Fprintf(o.out, "  %s\n", p.Text)
	}
	return nil
}

// ready waits until the daemon is no longer starting.
func (o *setup) ready(ctx context.Context, until time.Time) (s status.Status, err error) {
	for {
		s, err = fetch(ctx, query{socket: o.config.socket},
			func(ctx context.Context, c *status.Client) (status.Status, error) { return c.Status(ctx) })
		if err == nil && s.State != status.Starting {
			return s, nil
		}
		if time.Now().After(until) || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookForReady):
		}
	}
	if err != nil {
		return s, fmt.Errorf("the daemon does not answer: %w; journalctl -u %s says why", err, o.unit)
	}
	var why strings.Builder
	for _, p := range s.Problems {
		fmt.Fprintf(&why, "; %s", p.Text)
	}
	return s, fmt.Errorf("the node is not ready after %s%s", o.wait, why.String())
}

func joinPrefixes(l *status.Lease) string {
	if l == nil {
		return "none"
	}
	var all []string
	for _, p := range l.Subnets {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// installCNI installs the plugin and its network configuration.
func (o *setup) installCNI(ctx context.Context) error {
	o.cni.Program = besides("selvage")
	if !o.flags.Changed("reference-plugins") {
		o.cni.Reference = referencePlugins()
	}
	o.cni.Names, o.cni.Conflist = []string{"selvage"}, install.DefaultConflist
	o.cni.SubnetFile, o.cni.Wait = install.DefaultSubnetFile, o.wait
	report, err := install.Install(ctx, o.cni)
	o.say(report)
	if err != nil {
		return err
	}
	fmt.Fprintln(o.out, "set up: pods that the container runtime starts from now on are in the overlay. "+
		"selvaged status shows the node, selvaged doctor examines it")
	return nil
}

// systemctl runs systemctl. Its error has what that printed.
func systemctl(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// indent writes each line two spaces further in.
type indent struct{ w io.Writer }

// Write implements io.Writer. Each call is to write whole lines.
func (i indent) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if _, err := i.w.Write(append([]byte("  "), line...)); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// replaceKeepingMode replaces a file, which may hold a password: a new one is readable only by root.
func replaceKeepingMode(path, text string) error {
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return wholefile.Replace(path, []byte(text), mode, 0o755)
}
