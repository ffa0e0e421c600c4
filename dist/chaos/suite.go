package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

const (
	nodes = 3
	// probeEvery is how often a datagram is sent while something is broken.
	probeEvery = 2 * time.Millisecond
	// policyEvery is how often connections are begun between pods that policies are about, of one pair and family.
	policyEvery = 10 * time.Millisecond
	// defaultPatience is that of [Options].
	defaultPatience = 30 * time.Second
)

// Options describe a suite. The zero value of each field but Bin means its default.
type Options struct {
	// Bin is the directory of selvaged, selvage, etcd and cni/, and of wireguard for a kernel without WireGuard.
	Bin      string
	Families []subnet.Family  // of the overlay; default both
	Backend  Backend          // default VXLAN
	Store    subnet.StoreKind // of the leases; default etcd
	Pods     int              // on each node; default 2
	Leases   int              // leases of nodes that do not exist, beside those of the three that do; default none
	NFTables bool             // the daemons use nftables
	// Policies: the daemons enforce network policies, from a directory.
	Policies bool
	// FastPath: the daemons use the fast path, and packets have to be fast again after every fault. The kernel must let
	// this process load BPF programs.
	FastPath bool
	Legacy   bool          // iptables is the legacy one, which sends no notifications: the daemons look every second
	Stopped  time.Duration // how long a daemon is stopped while entries could age; default a minute
	Conflict time.Duration // how long another process removes a route of a daemon again and again; default 10 s
	Patience time.Duration // how long anything may take that has no bound of its own; default 30 s
	// PolicyEvery is how often a connection is begun over a path that policies are about; default 10 ms.
	PolicyEvery time.Duration
	Args        []string  // appended to the daemons' arguments
	Log         io.Writer // gets a line for each step of the lab; default none
}

// config is the network config. In any, 10.5.254.0/23 and fd00:5:0:fe::/63 are nobody's: see nowhere. With many leases there
// is room for those of nodes that do not exist, see absent.
func (o Options) config() string {
	var fields []string
	add := func(format string, args ...any) { fields = append(fields, fmt.Sprintf(format, args...)) }
	if many := o.Leases > 0; !slices.Contains(o.Families, subnet.IPv4) {
		add(`"EnableIPv4":false`)
	} else if many {
		add(`"Network":"10.0.0.0/8","SubnetMin":"10.6.0.0","SubnetMax":"10.99.0.0"`)
	} else {
		add(`"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0"`)
	}
	if slices.Contains(o.Families, subnet.IPv6) {
		add(`"EnableIPv6":true,"IPv6Network":"fd00:5::/32","IPv6SubnetMin":"fd00:5:0:1::","IPv6SubnetMax":"fd00:5:0:c7::"`)
	}
	add(`"EnableNFTables":%t`, o.NFTables)
	add(`"Backend":%s`, o.Backend.config())
	return "{" + strings.Join(fields, ",") + "}"
}

// Suite is a lab on which faults are done, one after the other.
type Suite struct {
	options  Options
	families []subnet.Family // of the overlay
	dir      string          // holds the daemon's binary, so that it can be replaced
	lab      *lab.Lab
	hosts    []*host
	leases   []subnet.Lease
	tracks   tracks  // what is sent between pods that policies are about
	sinks    []*sink // what receives that

	endLegacy func() error // nil: it is not used

	mu      sync.Mutex
	version int
}

// New builds the lab, and waits until all is as it should be. It belongs into a sandbox, as the lab does.
func New(ctx context.Context, o Options) (*Suite, error) {
	if o.Stopped == 0 {
		o.Stopped = time.Minute
	}
	if o.Conflict == 0 {
		o.Conflict = 10 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	if o.PolicyEvery == 0 {
		o.PolicyEvery = policyEvery
	}
	if len(o.Families) == 0 {
		o.Families = both()
	}
	if o.Pods == 0 {
		o.Pods = 2
	}
	if o.Backend == "" {
		o.Backend = VXLAN
	}
	if err := o.checkFastPath(); err != nil {
		return nil, err
	}
	s := &Suite{options: o, families: o.Families}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// daemonArgs are what the daemons are started with beyond what the lab gives them: the uplink may get its other name, or a
// device on top.
func (s *Suite) daemonArgs() []string {
	o := s.options
	args := []string{"--iface-regex=^(" + uplinkOther + "|" + uplinkUpper + ")$"}
	if o.Policies {
		args = append(args, "--network-policy=on", "--policy-dir="+s.policyDir())
	}
	if o.FastPath {
		args = append(args, "--fast-path=on")
	}
	if o.Legacy {
		args = append(args, "--iptables-resync=1")
	}
	return append(args, o.Args...)
}

func (s *Suite) build(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*s.options.Patience)
	defer cancel()
	if err := s.copyBinaries(); err != nil {
		return err
	}
	if s.options.Legacy {
		if s.endLegacy, err = useLegacy(s.dir); err != nil {
			return fmt.Errorf("legacy iptables: %w", err)
		}
	}
	namespace := ""
	if s.options.Policies {
		if namespace, err = "default", s.writePolicies(); err != nil {
			return err
		}
	}
	s.lab, err = lab.New(ctx, lab.Options{Nodes: nodes, Families: s.families, Bin: s.dir, Config: s.options.config(),
		WireGuard: s.wireGuards(),
		Store:     s.options.Store, Namespace: namespace, DaemonArgs: s.daemonArgs(), Log: s.options.Log,
		Patience: s.options.Patience})
	if err != nil {
		return err
	}
	if s.options.Policies {
		if err := s.writePods(); err != nil {
			return err
		}
	}
	for _, n := range s.lab.Nodes() {
		h, err := newHost(n, s.options)
		if err != nil {
			return err
		}
		s.hosts = append(s.hosts, h)
		if err := h.rememberUplink(); err != nil {
			return err
		}
		if err := h.plantForeign(ctx); err != nil {
			return err
		}
		for i := range s.options.Pods {
			pod, err := s.lab.AddPod(ctx, n, podName(n, "pod", i))
			if err != nil {
				return err
			}
			h.pods = append(h.pods, pod)
		}
	}
	if s.options.Policies {
		if err := s.addPoliced(ctx); err != nil {
			return err
		}
	}
	if err := s.addLeases(ctx); err != nil {
		return err
	}
	return s.settle(ctx)
}

// settle waits until all is right for the first time, and remembers how that looks.
func (s *Suite) settle(ctx context.Context) (err error) {
	if s.leases, err = s.lab.Store().Leases(ctx); err != nil {
		return err
	}
	if s.options.Policies {
		if err := s.settlePolicies(ctx); err != nil {
			return err
		}
	}
	if problems := s.reach(ctx); problems != nil {
		return fmt.Errorf("before any fault: %q", problems)
	}
	problems, err := s.await(ctx, s.hosts, func(h *host) ([]string, error) {
		tables, err := h.check(s.leases)
		if err != nil {
			return nil, err
		}
		fast, err := h.checkFast(s.leases)
		return append(tables, fast.all()...), err
	})
	if err != nil || problems != nil {
		return fmt.Errorf("before any fault: %q, %w", problems, err)
	}
	if problems, err := s.goesFast(ctx); err != nil || problems != nil {
		return fmt.Errorf("before any fault: %q, %w", problems, err)
	}
	for _, h := range s.hosts {
		our, others, err := h.allRules(ctx)
		if err != nil {
			return err
		}
		h.golden = our.lines
		if h.own, err = h.readOwnSide(); err != nil {
			return err
		}
		if h.others, err = h.foreign(others); err != nil {
			return err
		}
		for _, what := range h.ruleMarks() {
			if !slices.ContainsFunc(h.golden, func(line string) bool { return strings.Contains(line, what) }) {
				return fmt.Errorf("before any fault: there is nothing of %s on %s: %q", what, h.Name(), h.golden)
			}
		}
	}
	return nil
}

// copyBinaries makes a directory like options.Bin in which the daemon can be replaced.
func (s *Suite) copyBinaries() error {
	from, err := filepath.Abs(s.options.Bin)
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "chaos-"); err != nil {
		return err
	}
	names := []string{"selvage", "etcd", "cni"}
	if s.options.Backend == WireGuard {
		names = append(names, "wireguard") // if the kernel has WireGuard, it may be missing
	}
	for _, name := range names {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	binary, err := os.ReadFile(filepath.Join(from, "selvaged"))
	if err != nil {
		return fmt.Errorf("%w: build it with make build", err)
	}
	return os.WriteFile(s.daemonPath(), binary, 0o755)
}

func (s *Suite) daemonPath() string { return filepath.Join(s.dir, "selvaged") }

// Close ends the lab.
func (s *Suite) Close() error {
	var errs []error
	for _, x := range s.sinks {
		x.close()
	}
	for _, h := range s.hosts {
		h.close()
	}
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	if s.endLegacy != nil {
		errs = append(errs, s.endLegacy())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// lease returns the lease of a host.
func (s *Suite) lease(h *host) subnet.Lease {
	i := slices.IndexFunc(s.leases, func(l subnet.Lease) bool { return l.NodeName == h.Name() })
	if i < 0 {
		return subnet.Lease{}
	}
	return s.leases[i]
}

// next is the host that one breaks the path to.
func (s *Suite) next(h *host) *host {
	return s.hosts[(slices.Index(s.hosts, h)+1)%len(s.hosts)]
}

// await polls hosts without pause until check finds nothing wrong with any of them. The problems are what was still wrong at
// the end of the suite's patience.
func (s *Suite) await(ctx context.Context, hosts []*host, check func(*host) ([]string, error)) (problems []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Patience)
	defer cancel()
	for {
		problems = nil
		for _, h := range hosts {
			p, err := check(h)
			if err != nil {
				return nil, err
			}
			problems = append(problems, p...)
		}
		if len(problems) == 0 {
			return nil, nil
		}
		if !pause(ctx, time.Millisecond) {
			return problems, nil
		}
	}
}

// reach probes between all pods, in every family, until all reach each other, and says which do not. Of pods that
// policies are about, it says what is not as the policies have it.
func (s *Suite) reach(ctx context.Context) (problems []string) {
	patience := s.options.Patience / 3
	if n := len(s.hosts); s.options.Backend == WireGuard { // probes are made one after the other
		patience += time.Duration(len(s.families)*n*(n-1)/2) * wireGuardRetry
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var pods []*lab.Endpoint
	for _, h := range s.hosts {
		for _, p := range h.pods {
			pods = append(pods, p.Endpoint)
		}
	}
	for {
		problems = nil
		for _, f := range s.families {
			results := slices.Concat(s.lab.MatrixFamily(ctx, f, pods)...)
			for _, p := range pods {
				results = append(results, s.lab.ProbeFamily(ctx, f, p, s.lab.Outside()))
			}
			for _, r := range results {
				if r.Err != nil {
					problems = append(problems, fmt.Sprintf("%s does not reach %s over %s: %v", r.From, r.To, f, r.Err))
				}
			}
		}
		if problems == nil {
			for _, h := range s.hosts {
				problems = append(problems, s.reachPolicies(ctx, h)...)
			}
			return problems
		}
		if !pause(ctx, 10*time.Millisecond) {
			return problems
		}
	}
}
