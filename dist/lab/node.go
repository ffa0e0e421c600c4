package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// subnetFile is where a node's daemon writes its subnet file.
const subnetFile = "/run/flannel/subnet.env"

// Node is a host of the lab, with a daemon on it. As an [Endpoint] it answers at its underlay address.
type Node struct {
	*Endpoint
	host *sandbox.Host
	argv []string // of the daemon: what the lab needs
	env  []string // of the daemon
	log  string   // file of the daemon's output

	wireGuards []*WireGuardProgram

	mu     sync.Mutex
	args   []string // of the daemon: what may be changed
	daemon *daemon  // nil if it is not to run
}

// addNode makes node number i, from 0, and starts its daemon.
func (l *Lab) addNode(ctx context.Context, i int) error {
	name := fmt.Sprintf("node%d", i+1)
	host, err := sandbox.NewHost(name)
	if err != nil {
		return err
	}
	n := &Node{host: host, log: filepath.Join(l.dir, name+".log")}
	var store []string
	if l.kube != nil {
		store, n.env = l.kube.daemonArgs(name)
		if err := l.kube.addNode(ctx, name, i, l.options.Families, host.Do); err != nil {
			return err
		}
	} else {
		store = []string{"--etcd-endpoints", strings.Join(l.etcd.Endpoints(), ",")}
	}
	n.argv = slices.Concat([]string{filepath.Join(l.options.Bin, "selvaged")}, store, []string{
		"--node-name", name, "--state-dir", "/var/lib/selvage", "--ip-masq",
	})
	n.args = append([]string{"--iface", uplink}, l.options.DaemonArgs...)
	n.Endpoint = &Endpoint{name: name, do: host.Do, echo: &echoServer{}}
	l.nodes = append(l.nodes, n)
	if err := useIPTables(host, l.options.IPTables); err != nil {
		return err
	}
	if err := l.attachNode(host, i); err != nil {
		return err
	}
	endpoint, err := newEndpoint(name, host.Do, addrsOf(l.nodeAddr(i)))
	if err != nil {
		return err
	}
	n.Endpoint = endpoint
	n.source = n.checkSource
	for _, device := range l.served {
		log := filepath.Join(l.dir, name+"-"+device+".log")
		if err := n.serveWireGuard(ctx, device, log, l.options.Bin); err != nil {
			return err
		}
	}
	return n.Start()
}

// checkSource says what is wrong with the source address of a packet of the node's: it is to be one that the node has.
func (n *Node) checkSource(seen netip.Addr, _ *Endpoint) error {
	own, err := in(n.do, func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("%s: read the addresses: %w", n.name, err)
	}
	if !slices.ContainsFunc(own, func(a netlink.Addr) bool { return addrOf(a.IP) == seen }) {
		return fmt.Errorf("the source address seen is %s, which %s does not have", seen, n.name)
	}
	return nil
}

// Start starts the daemon if it does not run. It does not wait until it is ready, see [Node.WaitReady].
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.daemon != nil && n.daemon.running() {
		return nil
	}
	d, err := startDaemon(n.do, n.log, slices.Concat(n.argv, n.args), n.env...)
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	n.daemon = d
	return nil
}

// SetDaemonArgs has the daemon's next start use other arguments: these stand in for [Options.DaemonArgs], and for --iface=eth0
// too, which is the lab's.
func (n *Node) SetDaemonArgs(args ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.args = args
}

// Stop ends the daemon with SIGTERM and waits until it has ended. If ctx ends first, the daemon is killed, and that is an error.
func (n *Node) Stop(ctx context.Context) error {
	if p := n.take(); p != nil {
		if err := p.stop(ctx); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return nil
}

// Kill ends the daemon with SIGKILL.
func (n *Node) Kill() {
	if p := n.take(); p != nil {
		p.kill()
	}
}

// Restart is Stop and Start.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.Stop(ctx); err != nil {
		return err
	}
	return n.Start()
}

// Running tells whether the daemon runs.
func (n *Node) Running() bool {
	p := n.current()
	return p != nil && p.running()
}

// PID is the daemon's process id in the lab's pid namespace, or 0 if it does not run.
func (n *Node) PID() int {
	if p := n.current(); p != nil && p.running() {
		return p.cmd.Process.Pid
	}
	return 0
}

func (n *Node) current() *daemon {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.daemon
}

// take leaves the node without a daemon that is to run.
func (n *Node) take() *daemon {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.daemon
	n.daemon = nil
	return p
}

// LogPath is the file, in the lab process's own mount namespace, that holds the daemon's output of all its runs.
func (n *Node) LogPath() string { return n.log }

// Subnet reads the node's subnet file. Before the daemon wrote it, the error matches [fs.ErrNotExist].
func (n *Node) Subnet() (subnetfile.File, error) {
	f, err := in(n.do, func() (subnetfile.File, error) { return subnetfile.Read(subnetFile) })
	if err != nil {
		return f, fmt.Errorf("%s: %w", n.name, err)
	}
	return f, nil
}

// SubnetStatus reads the status file beside the node's subnet file.
func (n *Node) SubnetStatus() (subnetfile.Status, error) {
	s, err := in(n.do, func() (subnetfile.Status, error) { return subnetfile.ReadStatus(subnetFile) })
	if err != nil {
		return s, fmt.Errorf("%s: %w", n.name, err)
	}
	return s, nil
}

// WaitReady waits until the daemon, in its present run, has said that all is in place (READY=1, sd_notify(3)). It fails when
// ctx ends or the daemon does. A daemon that is not to run is not waited for.
func (n *Node) WaitReady(ctx context.Context) error {
	d := n.current()
	if d == nil {
		return nil
	}
	select {
	case <-d.ready:
		return nil
	case <-d.done:
		return fmt.Errorf("%s: %w", n.name, d.ended())
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w%s", n.name, ctx.Err(), tail(n.log, 15))
	}
}

// waitRoutes waits until the node has a route to the subnets of the other nodes, unless its daemon is not to run. Each of
// those nodes is to have one of each of the families.
func (n *Node) waitRoutes(ctx context.Context, others []*Node, families []subnet.Family) error {
	d := n.current()
	if d == nil {
		return nil
	}
	err := poll(ctx, d.done, func() error { return n.checkRoutes(others, families) })
	if err != nil && !d.running() {
		return fmt.Errorf("%s: %w", n.name, d.ended())
	}
	if err != nil {
		return fmt.Errorf("wait for %s: %w%s", n.name, err, tail(n.log, 15))
	}
	return nil
}

// checkRoutes says which route to another node's subnet is missing, or which subnet.
func (n *Node) checkRoutes(others []*Node, families []subnet.Family) error {
	routes, err := n.routes()
	if err != nil {
		return err
	}
	for _, other := range others {
		if other == n {
			continue
		}
		file, err := other.Subnet()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its daemon never ran
		}
		if err != nil {
			return err
		}
		for _, f := range families {
			if !file.Subnets[f].IsValid() {
				return fmt.Errorf("%s has no %s subnet", other.name, f)
			}
		}
		for _, gateway := range file.Subnets {
			if gateway.IsValid() && !slices.Contains(routes, gateway.Masked()) {
				return fmt.Errorf("%s has no route to %s of %s", n.name, gateway.Masked(), other.name)
			}
		}
	}
	return nil
}

// routes returns the destinations of the node's routes, of both families.
func (n *Node) routes() ([]netip.Prefix, error) {
	routes, err := in(n.do, func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("%s: read the routes: %w", n.name, err)
	}
	prefixes := make([]netip.Prefix, len(routes))
	for i, r := range routes {
		prefixes[i] = prefixOf(r.Dst)
	}
	return prefixes, nil
}

func (n *Node) close() error {
	n.Kill()
	for _, w := range n.wireGuards {
		w.close()
	}
	n.Endpoint.close()
	return n.host.Close()
}
