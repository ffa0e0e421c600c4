// Command selvaged is the daemon of selvage, a VXLAN overlay network for containers: it leases a subnet for this
// node, and keeps the kernel able to reach every other node's.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/backend/vxlan"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	name, run := programOf(os.Args[0])
	err := run(ctx, os.Args[1:])
	stop()
	var exit command.Exit
	if errors.As(err, &exit) {
		os.Exit(exit.Code)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Default paths.
const (
	defaultStateDir   = "/var/lib/selvage"
	defaultSubnetFile = "/run/flannel/subnet.env"
)

// Values of --ready-requires.
const (
	readyEntries = "entries"
	readyTraffic = "traffic"
)

// leastProbeInterval is the minimum of --peer-probe-interval: a kernel answers at most once a second that a hop limit
// is exceeded (icmp_ratelimit).
const leastProbeInterval = time.Second

// flags are the command line. Names and meanings are flannel's where flannel has them.
type flags struct {
	store         command.StoreOptions
	uplink        uplink.Options
	canReach      string
	publicIP      [2]string // by subnet.Family
	node          node.Options
	rulesResync   int // seconds
	randomDisable bool
	renewMargin   int // minutes
	txChecksum    string
	vtepAllow     []string
	noCachedStart bool
	policy        policyFlags
	fastPath      fastPathFlags
	mesh          meshFlags
	socket        string
	metricsAddr   string
	healthzIP     string
	healthzPort   int
	readyRequires string
	logLevel      string
	logFormat     string
	verbosity     int
	showVersion   bool
	noEffect      noEffect
	ignored       []string // flags without effect that were set

	ignoredByStore []string                         // flags and variables that were set and are another store's
	lookup         func(name string) (string, bool) // reads the environment
}

func execute(ctx context.Context, args []string) error {
	root := commands()
	args, err := flannelArgs(args, root.Flags())
	if err != nil {
		return err
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// commands returns the daemon's command line, with all other commands below it.
func commands() *cobra.Command {
	f := flags{lookup: os.LookupEnv}
	root := &cobra.Command{
		Use:   "selvaged",
		Short: "Keep this node in the overlay network",
		Long: `selvaged leases a subnet for this node from etcd, or takes the podCIDR of its Node in Kubernetes, creates
a VXLAN device, and keeps the kernel's routes, neighbours and forwarding entries for all other nodes in sync: it repairs
external changes.

Every flag can also be set in the environment, as SELVAGED_ETCD_ENDPOINTS or FLANNELD_ETCD_ENDPOINTS
for --etcd-endpoints and so on. A flag takes precedence over the environment. Put secrets into the environment.`,
		Example: `  selvaged --etcd-endpoints=https://10.0.0.1:2379,https://10.0.0.2:2379 ` +
			`--etcd-cafile=/etc/selvage/ca.pem --ip-masq
  SELVAGED_ETCD_PASSWORD=… selvaged --etcd-username=selvage --iface=eth1
  NODE_NAME=node1 selvaged --kube-subnet-mgr --kubeconfig-file=/etc/selvage/kubeconfig --ip-masq`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.showVersion {
				return printVersion(cmd, nil)
			}
			if err := command.FromEnvironment(cmd.Flags(), f.lookup); err != nil {
				return err
			}
			f.ignored = f.noEffect.given(cmd.Flags())
			f.ignoredByStore = f.store.Ignored(cmd.Flags(), f.lookup)
			return run(cmd.Context(), f)
		},
	}
	f.register(root.Flags())
	for flag, words := range map[string][]string{
		"log-level": {"error", "warning", "info", "debug"}, "log-format": {"text", "json"},
		"vxlan-tx-checksum": {"on", "off", "auto"}, "ready-requires": {readyEntries, readyTraffic},
		"network-policy": {policyOn, policyOff, policyAuto}, "fast-path": {policyOn, policyOff, policyAuto},
	} {
		command.CompleteFlag(root, flag, words...)
	}
	root.AddCommand(&cobra.Command{Use: "version", Short: "Print the version", Example: "  selvaged version",
		Args: cobra.NoArgs, RunE: printVersion})
	root.AddCommand(command.Status(version), command.Peers(), command.Explain(), command.Policy(), command.Drops(),
		command.Mesh(), command.Doctor(), command.Config(), command.Release(defaultStateDir), command.RotateKey(),
		command.InstallCNI(), command.Setup(), command.Cleanup(defaultSubnetFile, defaultStateDir),
		command.ConnectivityTest(nil))
	command.ExplainUsage(root)
	return root
}

func printVersion(cmd *cobra.Command, _ []string) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "selvaged %s (%s, %s/%s)\n",
		version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func (f *flags) register(s *pflag.FlagSet) {
	s.SortFlags = false

	f.registerStore(s)

	s.StringSliceVar(&f.uplink.Ifaces, "iface", nil,
		"interface that carries the overlay, by name or address; repeatable, the first match is used")
	s.StringArrayVar(&f.uplink.IfaceRegexes, "iface-regex", nil,
		"as --iface, by a regular expression over names and addresses; used after --iface")
	s.StringVar(&f.canReach, "iface-can-reach", "", "the interface that the route to this address leads out of")
	s.StringVar(&f.publicIP[subnet.IPv4], "public-ip", "",
		"IPv4 address at which other nodes reach this one, if it is not the interface's (NAT, clouds)")
	s.StringVar(&f.publicIP[subnet.IPv6], "public-ipv6", "", "as --public-ip, for IPv6")

	s.StringVar(&f.node.NodeName, "node-name", "",
		"name of this node, for display only (default: the host's, or that of the Node in Kubernetes)")
	s.StringVar(&f.node.SubnetFile, "subnet-file", defaultSubnetFile,
		"file that holds this node's subnet, for the CNI plugin and others")
	s.StringVar(&f.node.StateDir, "state-dir", defaultStateDir,
		"directory of this node's identity and the cached leases")
	s.BoolVar(&f.noCachedStart, "no-cached-start", false,
		"wait for the lease store at the start, instead of starting from the cached leases")
	s.DurationVar(&f.node.PeerGrace, "peer-grace", 30*time.Second,
		"grace period: how long a node whose lease was withdrawn can still be reached")
	s.DurationVar(&f.node.Resync, "resync", 5*time.Minute,
		"interval of full resyncs with the kernel's tables; changes are noticed at once anyway")

	s.DurationVar(&f.node.PeerProbeInterval, "peer-probe-interval", 10*time.Second,
		"interval at which each of a few other nodes is probed by ICMP echo through the overlay; 0 for never")

	s.BoolVar(&f.node.IPMasq, "ip-masq", false, "masquerade traffic that leaves the overlay")
	s.BoolVar(&f.randomDisable, "ip-masq-fully-random-disable", false,
		"do not choose source ports fully at random when masquerading")
	s.BoolVar(&f.node.Forward, "iptables-forward-rules", true, "accept forwarding from and to the overlay")
	s.IntVar(&f.rulesResync, "iptables-resync", 5,
		"interval at which the packet filter's rules are checked, in seconds")
	s.BoolVar(&f.node.BlackholeRoute, "ip-blackhole-route", false,
		"drop packets for pods of this node that do not exist, instead of sending them to the default gateway")
	s.StringVar(&f.txChecksum, "vxlan-tx-checksum", "auto",
		"checksum offload for VXLAN packets: on, off, or auto (off before Linux 5.7, which computes them wrong)")

	s.BoolVar(&f.node.UserSpaceWireGuard, "wireguard-userspace", false,
		"with the backend wireguard, serve its devices in user space if the kernel has no WireGuard; "+
			"needs /dev/net/tun")

	s.BoolVar(&f.node.VTEPFilter, "vtep-filter", true,
		"accept VXLAN packets only from the public IPs of leases; needs nf_tables")
	s.StringSliceVar(&f.vtepAllow, "vtep-allow", nil,
		"accept VXLAN packets from these prefixes too, for nodes whose address NAT changes")

	f.policy.register(s)
	f.fastPath.register(s)

	s.StringVar(&f.socket, "socket", status.DefaultSocket,
		"unix socket of the daemon, for selvaged status, peers, explain and doctor; empty for none")
	s.StringVar(&f.metricsAddr, "metrics-addr", "",
		"address and port that serve /metrics (Prometheus), /healthz and /readyz; empty for none")
	f.mesh.register(s)
	s.StringVar(&f.healthzIP, "healthz-ip", "0.0.0.0", "address that serves /healthz and /readyz")
	s.IntVar(&f.healthzPort, "healthz-port", 0, "port that serves /healthz and /readyz; 0 for none")
	s.StringVar(&f.readyRequires, "ready-requires", readyEntries,
		"what /readyz requires: entries (all kernel entries are in sync) or traffic (and no family's traffic is cut)")
	s.StringVar(&f.logLevel, "log-level", "info", "error, warning, info or debug")
	s.StringVar(&f.logFormat, "log-format", "text", "text or json")
	s.IntVar(&f.verbosity, "v", 0, "accepted for compatibility with flannel: above 0 is --log-level=debug")
	s.BoolVar(&f.showVersion, "version", false, "print the version")
	f.noEffect = noEffect{}
	f.noEffect.register(s)
	_ = s.MarkHidden("v") // defined above
}

func run(ctx context.Context, f flags) error {
	surviveBrokenPipe()
	log, err := f.logger()
	if err != nil {
		return err
	}
	output := newLogOutput(os.Stderr, log)
	defer output.close()
	log.SetOutput(output)
	if err := f.finish(log); err != nil {
		return err
	}
	if err := kernel.Permitted(); err != nil {
		return err
	}
	f.limitGarbage()
	store, err := f.openStore(log)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := f.openPolicies(log); err != nil {
		return err
	}
	f.node.Ready = func() { notify(log, daemon.SdNotifyReady) }
	if f.node.API, err = f.listen(log); err != nil {
		return err
	}
	if f.node.Mesh, err = f.listenMesh(log, store); err != nil {
		return err
	}
	f.node.Version, f.node.Kernel = version, kernelRelease()
	log.WithFields(f.storeFields()).Info("selvaged starts")
	if len(f.ignored) > 0 {
		log.WithField("flags", f.ignored).Info("flags of flannel that have no effect here")
	}
	if len(f.ignoredByStore) > 0 {
		log.WithField("ignored", f.ignoredByStore).
			Info("flags and variables that have no effect with leases in " + f.storeName())
	}
	err = node.Run(ctx, f.node)
	notify(log, daemon.SdNotifyStopping)
	if err == nil {
		log.Info("selvaged stops; the data path stays as it is")
	}
	return err
}

// finish checks the flags and turns them into options.
func (f *flags) finish(log logrus.FieldLogger) error {
	if err := f.finishStore(); err != nil {
		return err
	}
	if f.rulesResync <= 0 || f.node.Resync <= 0 {
		return errors.New("--iptables-resync and --resync: want more than 0")
	}
	if f.node.PeerGrace < 0 {
		return errors.New("--peer-grace: want 0 or more")
	}
	if i := f.node.PeerProbeInterval; i != 0 && i < leastProbeInterval {
		return fmt.Errorf("--peer-probe-interval: want 0, or at least %s", leastProbeInterval)
	}
	if f.readyRequires != readyEntries && f.readyRequires != readyTraffic {
		return fmt.Errorf("--ready-requires: %q, want %s or %s", f.readyRequires, readyEntries, readyTraffic)
	}
	if f.node.SubnetFile == "" || f.node.StateDir == "" {
		return errors.New("--subnet-file and --state-dir: want a path")
	}
	if err := subnet.CheckNodeName(f.node.NodeName); err != nil {
		return fmt.Errorf("--node-name: %w", err)
	}
	if err := f.policy.check(f.store.Kubernetes); err != nil {
		return err
	}
	if err := f.fastPath.finish(&f.node); err != nil {
		return err
	}
	f.uplink.Ifaces = nonempty(f.uplink.Ifaces)
	f.uplink.IfaceRegexes = nonempty(f.uplink.IfaceRegexes)
	address := func(flag, text string, ok func(netip.Addr) bool, want string) (netip.Addr, error) {
		if text == "" {
			return netip.Addr{}, nil
		}
		a, err := netip.ParseAddr(text)
		if err != nil || !ok(a) {
			return a, fmt.Errorf("--%s: %q is not an %s address", flag, text, want)
		}
		return a, nil
	}
	var err error
	if f.node.TxChecksum, err = vxlan.TxChecksum(f.txChecksum, kernelRelease()); err != nil {
		return err
	}
	if f.uplink.CanReach, err = address("iface-can-reach", f.canReach, netip.Addr.IsValid, "IP"); err != nil {
		return err
	}
	public := &f.uplink.PublicIP
	if public[subnet.IPv4], err = address("public-ip", f.publicIP[subnet.IPv4], netip.Addr.Is4, "IPv4"); err != nil {
		return err
	}
	if public[subnet.IPv6], err = address("public-ipv6", f.publicIP[subnet.IPv6], netip.Addr.Is6, "IPv6"); err != nil {
		return err
	}
	for _, text := range f.vtepAllow {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return fmt.Errorf("--vtep-allow: %q is not a prefix such as 203.0.113.0/24", text)
		}
		f.node.VTEPAllow = append(f.node.VTEPAllow, p)
	}
	f.node.Log = log
	if path, ok := f.lookup("WIREGUARD_KEY_FILE"); ok { // flannel's
		f.node.KeyFiles = map[string]string{"wireguard": path}
	}
	f.node.Uplink = f.uplink
	f.node.RandomFully = !f.randomDisable
	f.node.CachedStart = !f.noCachedStart
	f.node.RulesResync = time.Duration(f.rulesResync) * time.Second
	return nil
}

// nonempty removes empty values: with flannel, --iface= and --iface-regex= name no interface.
func nonempty(list []string) []string {
	return slices.DeleteFunc(list, func(text string) bool { return text == "" })
}

// kernelRelease returns the output of uname -r.
func kernelRelease() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // fails only for a bad pointer
	return unix.ByteSliceToString(u.Release[:])
}

// listen opens the socket and the ports of the API. A failure of the default socket is logged only: a container's /run
// can be read-only, and another network's daemon can have the socket.
func (f *flags) listen(log logrus.FieldLogger) (*api.Server, error) {
	o := api.Options{
		Socket: f.socket, Metrics: f.metricsAddr, Traffic: f.readyRequires == readyTraffic,
		Network: network.NewScope(f.node.StorePrefix, 0).Prefix, Log: log,
	}
	if f.healthzPort > 0 { // as with flannel, a negative one means none
		o.Healthz = net.JoinHostPort(f.healthzIP, strconv.Itoa(f.healthzPort))
	}
	f.addPolicies(&o)
	server, err := api.Listen(o)
	if (errors.Is(err, api.ErrSocket) || errors.Is(err, api.ErrOtherNetwork)) && f.socket == status.DefaultSocket {
		log.WithError(err).Warn("selvaged status and the like will not work")
		o.Socket = ""
		server, err = api.Listen(o)
	}
	if err != nil {
		return nil, err
	}
	return server, f.awaitPolicies(o.Socket, log)
}

// notify notifies systemd of a state, if it started the daemon: see sd_notify(3).
func notify(log logrus.FieldLogger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.WithError(err).Warn("systemd cannot be notified")
	}
}
