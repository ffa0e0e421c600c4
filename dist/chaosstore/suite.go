package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
)

const (
	nodes = 3
	// probeEvery is how often a datagram is sent from one pod to another.
	probeEvery = 2 * time.Millisecond
	// deadline is how long anything may take that has no bound of its own.
	deadline = time.Minute
)

// config is the network config. What is above SubnetMax is for nodes that do not exist.
const config = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan"}}`

// Options describe how things are broken.
type Options struct {
	Bin string // directory of selvaged, selvage, etcd and cni/
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
	Members int    // of etcd
	Secure  bool   // TLS, client certificates and roles
	Config  string // the network config; empty: config
}

func (s Scene) String() string {
	text := "one member"
	if s.Members > 1 {
		text = fmt.Sprintf("%d members", s.Members)
	}
	if s.Secure {
		text += " with TLS and roles"
	}
	if s.Config != "" && s.Config != config {
		text += ", few subnets"
	}
	return text
}

// Suite is a lab whose store is broken, in one way after the other.
type Suite struct {
	options Options
	scene   Scene
	dir     string // the daemons' binaries and arguments, and certificates; in /tmp, which nodes share
	data    string // etcd's; in /run, which is memory
	store   *store
	lab     *lab.Lab
	hosts   []*host
	markers int // nodes that did not exist, so far
}

// New builds the lab, and waits until all is right. It belongs into a sandbox, as the lab does.
func New(ctx context.Context, o Options, scene Scene) (*Suite, error) {
	if scene.Config == "" {
		scene.Config = config
	}
	s := &Suite{options: o, scene: scene}
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
	if err := s.store.put(ctx, "config", s.scene.Config); err != nil {
		return err
	}
	for i := range nodes {
		if err := s.writeArgs(fmt.Sprintf("node%d", i+1)); err != nil {
			return err
		}
	}
	// The lab has an etcd of its own, which nobody asks anything.
	if s.lab, err = lab.New(ctx, lab.Options{Nodes: nodes, Bin: s.dir, Log: s.options.Log}); err != nil {
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
		for _, row := range s.lab.Matrix(ctx, pods) {
			for _, r := range row {
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
