package lab

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

	"github.com/selvage-net/selvage/subnet"
)

const (
	defaultMTU = 1500 // of Ethernet
	// MinMTU is the smallest MTU, in bytes: an interface with less takes no IPv6 address (RFC 8200, section 5).
	MinMTU = 1280
)

// Defaults of [Options].
const (
	DefaultNodes  = 3
	DefaultConfig = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}` // for IPv4; see NetworkConfig for others
	// DefaultCNI is the network configuration list that pods are added with.
	DefaultCNI = `{"cniVersion":"1.0.0","name":"cbr0","plugins":[` +
		`{"type":"selvage","delegate":{"hairpinMode":true,"isDefaultGateway":true}},` +
		`{"type":"portmap","capabilities":{"portMappings":true}}]}`
)

// Options describe a lab. The zero value of each field means its default.
type Options struct {
	Nodes int // how many nodes, at most 200 a segment; default 3
	// Families are those of the overlay. Without IPv4 among them, there is none on the underlay either. [Lab.WaitReady] waits
	// for subnets of each; if none is named, for what the nodes got. Default IPv4, and it has to agree with Config if that
	// is given too.
	Families    []subnet.Family
	Segments    int              // underlay networks, 172.31.0.0/24 and up, that the nodes are spread over; default 1
	MTU         int              // of every uplink, in bytes; default 1500
	Store       subnet.StoreKind // of the leases: etcd, or a stand-in for the Kubernetes API server; default etcd
	KubeTLS     bool             // that server speaks TLS, and takes the daemons' token alone
	EtcdMembers int              // default 1
	Config      string           // the network configuration, JSON, or "-" for none; default what NetworkConfig says for Families
	CNI         string           // the CNI network configuration list, JSON; default DefaultCNI
	IPTables    string           // the nodes' iptables: "nft", "legacy" or "none"; default the machine's
	// WireGuard names devices that each node needs. On a kernel without WireGuard, the program wireguard of Bin serves
	// them, see [Node.WireGuardProgram]; else the daemons make them. Default none.
	WireGuard []string
	// Namespace is the Kubernetes namespace in the CNI arguments of each pod, with the pod's name as its UID, as
	// Kubernetes' runtimes pass them; default none: there are no such arguments.
	Namespace  string
	DaemonArgs []string  // appended to selvaged's arguments
	Bin        string    // directory of selvaged, selvage, etcd, cni/ and wireguard; default the running program's own
	Log        io.Writer // gets a line for each step; default none
	// Patience is how long an answer is awaited before a path counts as broken, and how long a daemon may have a problem
	// that it retries before its start counts as failed. Default 5 s, for people who wait; a test on a busy machine has
	// more.
	Patience time.Duration
}

// TestPatience is the Patience of tests: far longer than an answer takes on a machine with many times as much work as
// cores.
const TestPatience = 2 * time.Minute

// Lab is a running cluster. Its methods are safe for concurrent use.
type Lab struct {
	options Options
	dir     string   // logs and etcd's data, on the sandbox's tmpfs
	served  []string // WireGuard devices of each node that a program serves
	store   Store
	etcd    *Etcd // nil: the store is another one
	kube    *Kube // the same
	nodes   []*Node
	outside *outside
	bridges []string

	mu       sync.Mutex
	pods     []*Pod
	podNames map[string]bool // also of those being added
}

// New builds a lab and waits until every node can reach every other: each daemon has said that it is ready, and has a
// route to the subnet of each of the others. An error carries the last lines of the log of what failed. ctx ends the waiting, not the lab.
func New(ctx context.Context, o Options) (*Lab, error) {
	l, err := start(ctx, o)
	if err != nil || o.Config == "-" { // without it the daemons wait, so they are not waited for
		return l, err
	}
	if err := l.waitStarted(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// start builds a lab and does not wait for its daemons.
func start(ctx context.Context, o Options) (*Lab, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	l := &Lab{options: o, podNames: map[string]bool{}}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (o *Options) setDefaults() error {
	o.Nodes = orDefault(o.Nodes, DefaultNodes)
	o.Segments = orDefault(o.Segments, 1)
	o.MTU = orDefault(o.MTU, defaultMTU)
	o.EtcdMembers = orDefault(o.EtcdMembers, 1)
	o.Patience = orDefault(o.Patience, 5*time.Second)
	o.Config = orDefault(o.Config, NetworkConfig(o.Families, "", NodesChoose))
	o.CNI = orDefault(o.CNI, DefaultCNI)
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Nodes < 1 || o.Segments < 1 || o.Segments > 9 || (o.Nodes+o.Segments-1)/o.Segments > 200 {
		return fmt.Errorf("%d nodes on %d segments: want 1 to 9 segments and 1 to 200 nodes on each", o.Nodes, o.Segments)
	}
	for i, f := range o.Families {
		if f > subnet.IPv6 || slices.Contains(o.Families[:i], f) {
			return fmt.Errorf("families %v: want IPv4, IPv6 or both", o.Families)
		}
	}
	if !slices.Contains([]string{"", "nft", "legacy", "none"}, o.IPTables) {
		return fmt.Errorf("iptables %q: want nft, legacy or none", o.IPTables)
	}
	if o.MTU < MinMTU {
		return fmt.Errorf("an MTU of %d: want %d or more", o.MTU, MinMTU)
	}
	var err error
	if o.Store, err = ParseStore(string(o.Store)); err != nil {
		return err
	}
	if o.EtcdMembers < 1 || o.EtcdMembers > 9 {
		return fmt.Errorf("%d etcd members: want 1 to 9", o.EtcdMembers)
	}
	if o.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find selvaged: %w", err)
		}
		o.Bin = filepath.Dir(exe)
	}
	if o.Bin, err = filepath.Abs(o.Bin); err != nil { // the plugins' path must hold in every node
		return fmt.Errorf("find selvaged: %w", err)
	}
	for _, name := range []string{"selvaged", "selvage", "etcd", "cni/bridge", "cni/host-local"} {
		if _, err := os.Stat(filepath.Join(o.Bin, name)); err != nil {
			return fmt.Errorf("a lab needs %s: %w: build it with make build", name, err)
		}
	}
	return nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// build does the work of start, leaving in l whatever has to be undone.
func (l *Lab) build(ctx context.Context) (err error) {
	// Debian leaves sbin, where iptables is, out of an ordinary user's PATH.
	if path := os.Getenv("PATH"); !strings.Contains(path, "/usr/sbin") {
		os.Setenv("PATH", path+":/usr/sbin:/sbin")
	}
	if l.dir, err = os.MkdirTemp("/run", "lab-"); err != nil {
		return fmt.Errorf("%w: a lab runs in a sandbox only, see sandbox.Run", err)
	}
	if l.served, err = l.options.servedWireGuards(kernelHasWireGuard); err != nil {
		return err
	}
	l.step("making the underlay, its router and the outside")
	if err := l.buildUnderlay(); err != nil {
		return err
	}
	if err := l.startStore(ctx); err != nil {
		return err
	}
	if l.options.Config != "-" {
		if err := l.store.PutConfig(ctx, l.options.Config); err != nil {
			return err
		}
	}
	l.step("starting the nodes (%d)", l.options.Nodes)
	for i := range l.options.Nodes {
		if err := l.addNode(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// startStore starts the lease store.
func (l *Lab) startStore(ctx context.Context) (err error) {
	host := firstAddr(l.onUnderlay(underlayAddr(0, 1)))
	if l.options.Store == subnet.StoreKubernetes {
		l.step("starting a stand-in for the Kubernetes API server")
		dir := ""
		if l.options.KubeTLS {
			dir = filepath.Join(l.dir, "kube")
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
		if l.kube, err = startKube(host, dir); err == nil {
			l.store = l.kube
		}
		return err
	}
	l.step("starting etcd")
	if l.etcd, err = startEtcd(ctx, l.dir, l.options.Bin, host, l.options.EtcdMembers); err == nil {
		l.store = l.etcd
	}
	return err
}

// step tells the user what is done next.
func (l *Lab) step(format string, args ...any) {
	fmt.Fprintf(l.options.Log, format+"\n", args...)
}

// WaitReady waits until each running daemon has said that it is ready, and each such node has a route to the subnet of each
// of the others, in every family. It fails when ctx ends, or a daemon does.
func (l *Lab) WaitReady(ctx context.Context) error {
	for _, n := range l.nodes {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	for _, n := range l.nodes {
		if err := n.waitRoutes(ctx, l.nodes, l.options.Families); err != nil {
			return err
		}
	}
	return nil
}

// Nodes returns the nodes, node1 first.
func (l *Lab) Nodes() []*Node { return append([]*Node(nil), l.nodes...) }

// Pods returns the pods, in the order in which they were added.
func (l *Lab) Pods() []*Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Pod(nil), l.pods...)
}

// Store returns the lab's lease store.
func (l *Lab) Store() Store { return l.store }

// Etcd returns the lab's etcd; nil if the leases are elsewhere.
func (l *Lab) Etcd() *Etcd { return l.etcd }

// Kube returns the lab's stand-in for the API server of Kubernetes; nil if the leases are elsewhere.
func (l *Lab) Kube() *Kube { return l.kube }

// Outside is the endpoint in another network.
func (l *Lab) Outside() *Endpoint { return l.outside.Endpoint }

// Close ends every process and removes every namespace and interface. It does so without asking the daemons: what a clean
// stop does is for a test to find out.
func (l *Lab) Close() error {
	var errs []error
	for _, p := range l.Pods() {
		errs = append(errs, p.close())
	}
	for _, n := range l.nodes {
		errs = append(errs, n.close())
	}
	if l.store != nil {
		errs = append(errs, l.store.close())
	}
	errs = append(errs, l.removeUnderlay())
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// in calls fn in the namespaces that do leads to and returns its result.
func in[T any](do func(func() error) error, fn func() (T, error)) (result T, err error) {
	err = do(func() (err error) {
		result, err = fn()
		return err
	})
	return result, err
}
