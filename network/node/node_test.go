package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// limit is how long a test waits for what is to happen, on a machine that may be busy.
const limit = 2 * time.Minute

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// safeBuffer is a log's output, read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// ownUplink makes a device that carries the overlay, with 172.31.0.11/24.
func ownUplink(t *testing.T) {
	t.Helper()
	up := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "uplink1"}}
	if err := errors.Join(netlink.LinkAdd(up), setAddress(netlink.AddrAdd, 11), netlink.LinkSetUp(up)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"flannel.1", "cni7", "uplink1"} {
			if l, err := netlink.LinkByName(name); err == nil {
				_ = netlink.LinkDel(l) // it ends with the sandbox anyway
			}
		}
	})
}

// setAddress adds or deletes 172.31.0.last/24 on the uplink.
func setAddress(do func(netlink.Link, *netlink.Addr) error, last byte) error {
	l, err := netlink.LinkByName("uplink1")
	if err != nil {
		return err
	}
	return do(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 31, 0, last), Mask: net.CIDRMask(24, 32)}})
}

// runningNode is a node in the sandbox, on a store in memory and the real kernel.
type runningNode struct {
	*node
	log  safeBuffer
	stop func()
}

// startNode runs a node until the test or stop ends it. Its files are in dir.
func startNode(t *testing.T, store subnet.Store, dir string) *runningNode {
	t.Helper()
	return startNodeOf(t, store, dir, "", "subnet.env")
}

// startNodeOf does the same for the network under a prefix of the store, with a subnet file of that name.
func startNodeOf(t *testing.T, store subnet.Store, dir, prefix, subnetFile string) *runningNode {
	t.Helper()
	return startNodeWith(t, store, dir, func(o *Options) {
		o.StorePrefix, o.SubnetFile = prefix, filepath.Join(dir, subnetFile)
	})
}

// startNodeWith is startNode with other options.
func startNodeWith(t *testing.T, store subnet.Store, dir string, change func(*Options)) *runningNode {
	t.Helper()
	r := &runningNode{}
	log := logrus.New()
	log.Out = &r.log
	log.Formatter = &logrus.TextFormatter{DisableTimestamp: true, DisableQuote: true}
	options := Options{
		Store: store, Uplink: uplink.Options{Ifaces: []string{"uplink1"}}, NodeName: "node1", Version: "test",
		SubnetFile: filepath.Join(dir, "subnet.env"), StateDir: dir, IPMasq: true, Forward: true, VTEPFilter: true,
		RulesResync: time.Minute, Resync: time.Hour, PeerGrace: time.Hour, LeaseTTL: 24 * time.Hour, CachedStart: true,
		BlackholeRoute: true, Log: log,
	}
	change(&options)
	n, err := newNode(options)
	if err != nil {
		t.Fatal(err)
	}
	r.node = n
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.run(ctx); err != nil {
			t.Error(err)
		}
	}()
	r.stop = func() { cancel(); <-ended }
	t.Cleanup(r.stop)
	return r
}

func (r *runningNode) waitLog(t *testing.T, text string) {
	t.Helper()
	eventually(t, "waiting for a log line", func() error {
		if !strings.Contains(r.log.String(), text) {
			return fmt.Errorf("no %q in\n%s", text, r.log.String())
		}
		return nil
	})
}

func (r *runningNode) waitState(t *testing.T, want status.State) (s status.Status) {
	t.Helper()
	eventually(t, "waiting for state "+string(want), func() (err error) {
		// A node that claims its lease again is ready as far as its problems go.
		if s, err = r.Status(t.Context()); err == nil && (s.State != want || want == status.Ready && s.Lease == nil) {
			err = fmt.Errorf("state %s, problems %v, log\n%s", s.State, s.Problems, r.log.String())
		}
		return err
	})
	return s
}

// waitPeers waits until the node's peers are these: "subnet state".
func (r *runningNode) waitPeers(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, "waiting for peers", func() error {
		peers, err := r.Peers(t.Context())
		if err != nil {
			return err
		}
		var got []string
		for _, p := range peers {
			got = append(got, fmt.Sprint(p.Subnets[0], " ", p.State))
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
}

func vxlanLease(n byte) subnet.Lease {
	l := leaseOf(fmt.Sprintf("%032x", 0x100+int(n)), fmt.Sprintf("10.5.%d.0/24", n), n)
	l.Endpoints[subnet.IPv4].PublicIP = netip.AddrFrom4([4]byte{172, 31, 0, n})
	return l
}

// kernelRoutes are the routes to subnets of peers in the kernel.
func kernelRoutes(t *testing.T) (all []netlink.Route) {
	t.Helper()
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: network.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Type == 1 { // unicast
			all = append(all, r)
		}
	}
	return all
}

// TestNode runs a whole node through what can happen to it: its start, changes of the leases, of the kernel, of its
// files, of the uplink and of the network config, and the loss of its lease.
func TestNode(t *testing.T) {
	ownUplink(t)
	store, dir := newMemStore(), t.TempDir()
	n := startNode(t, store, dir)

	s := n.waitState(t, status.Starting)
	n.waitLog(t, errNoConfig.Error())
	if e, err := n.Explain(t.Context(), netip.MustParseAddr("10.5.7.9")); err != nil || e.OK {
		t.Errorf("explained before the network is known: %+v, %v", e, err)
	}
	if s.Backend != nil || s.Lease != nil {
		t.Errorf("%+v before there is a config", s)
	}
	store.putConfig(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.100.0","SubnetMax":"10.5.200.0","Backend":{"Type":"vxlan"}}`)
	s = n.waitState(t, status.Ready)
	if len(s.Lease.Subnets) != 1 || s.Backend.Type != "vxlan" || !s.Filter.InForce || s.Uplink.Name != "uplink1" {
		t.Errorf("status %+v", s)
	}
	own := s.Lease.Subnets[0]
	file, err := subnetfile.Read(n.SubnetFile)
	if err != nil || file.Subnets[subnet.IPv4].Masked() != own {
		t.Errorf("the subnet file has %+v, %v, want %s", file, err, own)
	}

	seven, eight := vxlanLease(7), vxlanLease(8)
	store.put(seven)
	store.put(eight)
	n.waitPeers(t, "10.5.7.0/24 programmed", "10.5.8.0/24 programmed")
	n.waitLog(t, "peers changed")
	if got := len(kernelRoutes(t)); got != 2 {
		t.Errorf("%d routes in the kernel, want 2", got)
	}
	for address, ok := range map[string]bool{"10.5.7.9": true, "10.5.9.9": false, "172.31.0.11": true, "fd00::1": false} {
		e, err := n.Explain(t.Context(), netip.MustParseAddr(address))
		if err != nil || e.OK != ok || e.Verdict == "" {
			t.Errorf("%s: %+v, %v", address, e, err)
		}
	}
	bad := vxlanLease(9)
	bad.Endpoints[subnet.IPv4].Data = `{"VNI":1}`
	store.put(bad)
	n.waitLog(t, "lease rejected")
	n.waitPeers(t, "10.5.7.0/24 programmed", "10.5.8.0/24 programmed", "10.5.9.0/24 quarantined")
	store.delete(bad.Key())

	if err := netlink.RouteDel(&netlink.Route{Dst: kernelRoutes(t)[0].Dst}); err != nil {
		t.Fatal(err)
	}
	n.waitLog(t, "repaired external changes to managed kernel entries")
	if got := len(kernelRoutes(t)); got != 2 {
		t.Errorf("%d routes in the kernel after the repair, want 2", got)
	}
	if err := os.Remove(n.SubnetFile); err != nil {
		t.Fatal(err)
	}
	n.waitLog(t, "repaired external change to the subnet file")
	eventually(t, "the subnet file", func() error { _, err := os.Stat(n.SubnetFile); return err })
	if s = n.waitState(t, status.Ready); len(s.Repairs.Last) < 2 {
		t.Errorf("repairs %+v, want one of a route and one of the file", s.Repairs)
	}

	store.delete(seven.Key())
	n.waitPeers(t, "10.5.7.0/24 grace", "10.5.8.0/24 programmed")
	if e, err := n.Explain(t.Context(), netip.MustParseAddr("10.5.7.9")); err != nil || len(e.Steps) == 0 {
		t.Errorf("a peer in its grace period: %+v, %v", e, err)
	}

	// Another network config, one that cannot be applied, and none.
	store.putConfig(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.100.0","SubnetMax":"10.5.200.0","Backend":{"Type":"vxlan","DirectRouting":true}}`)
	n.waitLog(t, "network config changed; applying it")
	eventually(t, "direct routes", func() error {
		for _, r := range kernelRoutes(t) {
			if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().Name == "uplink1" {
				return nil
			}
		}
		return errors.New("no route leads out of the uplink")
	})
	store.putConfig(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":9}}`)
	n.waitLog(t, "cannot be applied while selvaged runs")
	store.putConfig(``)
	n.waitState(t, status.Degraded)
	store.putConfig(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.100.0","SubnetMax":"10.5.200.0","Backend":{"Type":"vxlan","DirectRouting":true}}`)
	n.waitState(t, status.Ready)

	if err := errors.Join(setAddress(netlink.AddrDel, 11), setAddress(netlink.AddrAdd, 12)); err != nil {
		t.Fatal(err)
	}
	n.waitLog(t, "uplink changed; applying it")
	eventually(t, "the new public IP in the lease", func() error {
		if a := store.record(n.ownKey(own)).Endpoints[subnet.IPv4].PublicIP.String(); a != "172.31.0.12" {
			return errors.New(a)
		}
		return nil
	})

	// The VXLAN device of another node gets our MAC address before we do.
	s, _ = n.Status(t.Context())
	clone := vxlanLease(20)
	clone.Endpoints[subnet.IPv4].Data = fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, s.Backend.Devices[0].MAC)
	store.server.Put(clone, -1)
	n.waitLog(t, "choosing a new one")
	n.waitPeers(t, "10.5.7.0/24 grace", "10.5.8.0/24 programmed", "10.5.20.0/24 programmed")

	// Another node takes over our subnet.
	thief := vxlanLease(21)
	thief.Endpoints[subnet.IPv4].Subnet = own
	store.put(thief)
	n.waitLog(t, "this node lost its subnet "+own.String()+" to another node")
	if s = n.waitState(t, status.Ready); s.Lease.Subnets[0] == own {
		t.Errorf("it has the subnet %s still", own)
	}
}

// ownKey is the key of a lease of one IPv4 subnet.
func (r *runningNode) ownKey(p netip.Prefix) string {
	l := subnet.Lease{}
	l.Endpoints[subnet.IPv4].Subnet = p
	return l.Key()
}

// TestNodeStartsFromCache: a node whose store is silent comes up from its cached leases, removes nothing, and follows
// the store when that is back.
func TestNodeStartsFromCache(t *testing.T) {
	ownUplink(t)
	store, dir := newMemStore(), t.TempDir()
	store.putConfig(`{"Network":"10.5.0.0/16","SubnetMin":"10.5.100.0","Backend":{"Type":"vxlan"}}`)
	seven, eight := vxlanLease(7), vxlanLease(8)
	store.put(seven)
	store.put(eight)
	n := startNode(t, expiring{store}, dir)
	s := n.waitState(t, status.Ready)
	own := s.Lease.Subnets[0]
	eventually(t, "the cached leases", func() error { _, err := os.Stat(filepath.Join(dir, cacheFile)); return err })
	n.stop()

	store.set(func() { store.silent = true })
	store.delete(seven.Key())
	n = startNode(t, expiring{store}, dir)
	n.waitLog(t, "starting from cached leases")
	n.waitPeers(t, "10.5.7.0/24 programmed", "10.5.8.0/24 programmed")
	n.waitLog(t, "msg=ready")
	if s, err := n.Status(t.Context()); err != nil || s.State != status.Degraded || s.Lease == nil || s.Lease.Subnets[0] != own {
		t.Errorf("%+v, %v", s, err)
	}
	store.set(func() { store.silent = false })
	n.waitLog(t, "reconnected to the lease store")
	n.waitPeers(t, "10.5.7.0/24 grace", "10.5.8.0/24 programmed")
	if s := n.waitState(t, status.Ready); s.Lease.Subnets[0] != own {
		t.Errorf("it has %v, want %s again", s.Lease.Subnets, own)
	}
	n.stop()

	// Restarted with the store at hand, it retains what its predecessor knew.
	store.delete(eight.Key())
	n = startNode(t, expiring{store}, dir)
	n.waitState(t, status.Ready)
	n.waitPeers(t, "10.5.8.0/24 grace")
}

// expiring is a store that knows when a lease expires.
type expiring struct{ *memStore }

func (expiring) Expires(subnet.Record) time.Time { return time.Now().Add(time.Hour) }
