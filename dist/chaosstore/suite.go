package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

const (
	nodes = 3
	// probeEvery is how often a datagram is sent from one pod to another.
	probeEvery = 2 * time.Millisecond
	// deadline is how long anything may take that has no bound of its own.
	deadline = time.Minute
)

// room is where nodes get their subnets from. Those of nodes that do not exist lie above.
type room struct{ min, max byte }

// The rooms there are: one in which nobody lacks a subnet, and one with a subnet for each of the nodes and one more.
func wide() room   { return room{1, 199} }
func narrow() room { return room{1, 4} }

// number returns subnet number n of each of the families: 10.5.7.0/24 and fd00:5:0:7::/64, the number being written as if it
// were hexadecimal.
func number(families []subnet.Family, n byte) (s subnets) {
	for _, f := range families {
		s[f] = netip.MustParsePrefix(fmt.Sprintf([...]string{"10.5.%d.0/24", "fd00:5:0:%d::/64"}[f], n))
	}
	return s
}

// config is the network config for nodes that get their subnets there.
func (r room) config(families []subnet.Family) string {
	var fields []string
	low, high := number(families, r.min), number(families, r.max)
	for _, f := range families {
		fields = append(fields, fmt.Sprintf([...]string{
			`"Network":"10.5.0.0/16","SubnetMin":"%s","SubnetMax":"%s"`,
			`"EnableIPv6":true,"IPv6Network":"fd00:5::/48","IPv6SubnetMin":"%s","IPv6SubnetMax":"%s"`,
		}[f], low[f].Addr(), high[f].Addr()))
	}
	if !slices.Contains(families, subnet.IPv4) {
		fields = append(fields, `"EnableIPv4":false`)
	}
	return "{" + strings.Join(append(fields, `"Backend":{"Type":"vxlan"}`), ",") + "}"
}

// Options describe how things are broken.
type Options struct {
	Bin      string          // directory of selvaged, selvage, etcd and cni/
	Families []subnet.Family // of the overlay; default both. IPv4 has to be among them: etcd is reached by it
	Args     []string        // of the daemons, beyond those of the lab
	// Short makes what lasts last for a second or two, for tests.
	Short bool
	Log   io.Writer // gets a line for each step of the labs; default none
}

// lasting returns how long something lasts.
func (o Options) lasting(long, short time.Duration) time.Duration {
	if o.Short {
		return short
	}
	return long
}

// Scene is what a fault needs around it.
type Scene struct {
	Members int  // of etcd
	Secure  bool // TLS, client certificates and roles
	Narrow  bool // there are hardly more subnets than nodes
}

func (s Scene) String() string {
	text := "one member"
	if s.Members > 1 {
		text = fmt.Sprintf("%d members", s.Members)
	}
	if s.Secure {
		text += " with TLS and roles"
	}
	if s.Narrow {
		text += ", few subnets"
	}
	return text
}

// Suite is a lab whose store is broken, in one way after the other.
type Suite struct {
	options Options
	scene   Scene
	config  string // of the network
	dir     string // the daemons' binaries and arguments, and certificates; in /tmp, which nodes share
	data    string // etcd's; in /run, which is memory
	store   *store
	lab     *lab.Lab
	hosts   []*host
	markers int // nodes that did not exist, so far
}

// New builds the lab, and waits until all is right. It belongs into a sandbox, as the lab does.
func New(ctx context.Context, o Options, scene Scene) (*Suite, error) {
	if len(o.Families) == 0 {
		o.Families = []subnet.Family{subnet.IPv4, subnet.IPv6}
	}
	s := &Suite{options: o, scene: scene, config: wide().config(o.Families)}
	if scene.Narrow {
		s.config = narrow().config(o.Families)
	}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("build the lab: %w", err), s.Close())
	}
	return s, nil
}

func (s *Suite) build(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if s.dir, err = os.MkdirTemp("", "chaosstore-"); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if s.data, err = os.MkdirTemp("/run", "chaosstore-"); err != nil {
		return fmt.Errorf("%w: this needs a sandbox, see sandbox.Run", err)
	}
	if err := prepareBinaries(s.dir, s.options.Bin); err != nil {
		return err
	}
	if s.store, err = newStore(ctx, s.dir, s.data, s.dir, s.scene.Members, s.scene.Secure); err != nil {
		return err
	}
	if err := s.store.put(ctx, "config", s.config); err != nil {
		return err
	}
	for i := range nodes {
		if err := s.writeArgs(fmt.Sprintf("node%d", i+1)); err != nil {
			return err
		}
	}
	// The lab has an etcd of its own, which nobody asks anything.
	if s.lab, err = lab.New(ctx, lab.Options{
		Nodes: nodes, Families: s.options.Families, Config: s.config, Bin: s.dir, Log: s.options.Log, Patience: deadline,
	}); err != nil {
		return err
	}
	for _, n := range s.lab.Nodes() {
		h := &host{Node: n, suite: s}
		if h.pod, err = s.lab.AddPod(ctx, n, ""); err != nil {
			return err
		}
		s.hosts = append(s.hosts, h)
	}
	return s.settle(ctx)
}

// settle waits until all is right and the pods reach each other.
func (s *Suite) settle(ctx context.Context) error {
	if _, wrong := s.converge(ctx, nil, time.Now()); wrong != nil {
		return fmt.Errorf("before any fault: %q", wrong)
	}
	var pods []*lab.Endpoint
	for _, h := range s.hosts {
		pods = append(pods, h.pod.Endpoint)
	}
	return insist(ctx, "probe before any fault", func(ctx context.Context) error {
		var errs []error
		for _, f := range s.options.Families {
			for _, r := range slices.Concat(s.lab.MatrixFamily(ctx, f, pods)...) {
				errs = append(errs, r.Err)
			}
		}
		return errors.Join(errs...)
	})
}

// Close ends the lab and the store.
func (s *Suite) Close() error {
	var errs []error
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.close())
	}
	for _, dir := range []string{s.dir, s.data} {
		if dir != "" {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}
