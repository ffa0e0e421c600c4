package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

const (
	nodes       = 3
	podsPerNode = 2
	// probeEvery is how often a datagram is sent while something is broken.
	probeEvery = 2 * time.Millisecond
	// deadline is how long anything may take that has no bound of its own.
	deadline = 30 * time.Second
)

// networks are the network configs. In either, 10.5.254.0/23 is nobody's: see nowhere. With many leases, those of nodes
// that do not exist are in the upper half.
const (
	fewLeases  = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan"}}`
	manyLeases = `{"Network":"10.0.0.0/8","SubnetMin":"10.6.0.0","SubnetMax":"10.99.0.0","Backend":{"Type":"vxlan"}}`
)

// Options describe a suite. The zero value of each field but Bin means its default.
type Options struct {
	Bin     string        // directory of selvaged, selvage, etcd and cni/
	Leases  int           // leases of nodes that do not exist, beside those of the three that do; default none
	Legacy  bool          // iptables is the legacy one, whose changes nobody is told of: the daemons look every second
	Stopped time.Duration // how long a daemon is stopped while entries could age; default a minute
	Fight   time.Duration // how long somebody fights a daemon for a route; default 10 s
	Log     io.Writer     // gets a line for each step of the lab; default none
}

// Suite is a lab on which faults are done, one after the other.
type Suite struct {
	options Options
	dir     string // holds the daemon's binary, so that it can be replaced
	lab     *lab.Lab
	hosts   []*host
	leases  []subnet.Lease

	endLegacy func() error // nil: it is not used

	mu      sync.Mutex
	version int
}

// New builds the lab, and waits until all is as it should be. It belongs into a sandbox, as the lab does.
func New(ctx context.Context, o Options) (*Suite, error) {
	if o.Stopped == 0 {
		o.Stopped = time.Minute
	}
	if o.Fight == 0 {
		o.Fight = 10 * time.Second
	}
	s := &Suite{options: o}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// daemonArgs are what the daemons are started with beyond what the lab gives them: the uplink may get its other name, or a
// device on top.
func (o Options) daemonArgs() []string {
	args := []string{"--iface-regex=^(" + uplinkOther + "|" + uplinkUpper + ")$"}
	if o.Legacy {
		args = append(args, "--iptables-resync=1")
	}
	return args
}

func (s *Suite) build(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.copyBinaries(); err != nil {
		return err
	}
	if s.options.Legacy {
		if s.endLegacy, err = useLegacy(s.dir); err != nil {
			return fmt.Errorf("legacy iptables: %w", err)
		}
	}
	config := fewLeases
	if s.options.Leases > 0 {
		config = manyLeases
	}
	s.lab, err = lab.New(ctx, lab.Options{Nodes: nodes, Bin: s.dir, Config: config, DaemonArgs: s.options.daemonArgs(), Log: s.options.Log})
	if err != nil {
		return err
	}
	for _, n := range s.lab.Nodes() {
		h, err := newHost(n)
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
		for range podsPerNode {
			pod, err := s.lab.AddPod(ctx, n, "")
			if err != nil {
				return err
			}
			h.pods = append(h.pods, pod)
		}
	}
	if err := s.addLeases(ctx); err != nil {
		return err
	}
	return s.settle(ctx)
}

// settle waits until all is right for the first time, and remembers how that looks.
func (s *Suite) settle(ctx context.Context) (err error) {
	if s.leases, err = s.lab.Etcd().Leases(ctx); err != nil {
		return err
	}
	if problems := s.reach(ctx); problems != nil {
		return fmt.Errorf("before any fault: %q", problems)
	}
	_, problems, err := s.await(ctx, s.hosts, func(h *host) ([]string, error) { return h.check(s.leases) })
	if err != nil || problems != nil {
		return fmt.Errorf("before any fault: %q, %w", problems, err)
	}
	for _, h := range s.hosts {
		if h.others, err = h.foreign(ctx); err != nil {
			return err
		}
		if h.golden, _, err = h.rules(ctx); err != nil {
			return err
		}
		if len(h.golden) == 0 {
			return fmt.Errorf("before any fault: iptables-save shows no rule of selvage's on %s", h.Name())
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
	for _, name := range []string{"selvage", "etcd", "cni"} {
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

// await polls hosts without pause until check finds nothing wrong with any of them, and returns when that was. The problems
// are what was still wrong at the deadline.
func (s *Suite) await(ctx context.Context, hosts []*host, check func(*host) ([]string, error)) (right time.Time, problems []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		problems = nil
		for _, h := range hosts {
			p, err := check(h)
			if err != nil {
				return right, nil, err
			}
			problems = append(problems, p...)
		}
		right = time.Now()
		if len(problems) == 0 {
			return right, nil, nil
		}
		if !pause(ctx, time.Millisecond) {
			return right, problems, nil
		}
	}
}

// reach probes between all pods until all reach each other, and says which do not.
func (s *Suite) reach(ctx context.Context) (problems []string) {
	ctx, cancel := context.WithTimeout(ctx, deadline/3)
	defer cancel()
	var pods []*lab.Endpoint
	for _, h := range s.hosts {
		for _, p := range h.pods {
			pods = append(pods, p.Endpoint)
		}
	}
	for {
		problems = nil
		for _, r := range slices.Concat(s.lab.Matrix(ctx, pods)...) {
			if r.Err != nil {
				problems = append(problems, fmt.Sprintf("%s does not reach %s: %v", r.From, r.To, r.Err))
			}
		}
		for _, p := range pods {
			if r := s.lab.Probe(ctx, p, s.lab.Outside()); r.Err != nil {
				problems = append(problems, fmt.Sprintf("%s does not reach %s: %v", r.From, r.To, r.Err))
			}
		}
		if problems == nil || !pause(ctx, 10*time.Millisecond) {
			return problems
		}
	}
}
