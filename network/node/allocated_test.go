package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest/memstore"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// nodesStore is a store in memory that looks like the Kubernetes API: it allocates, and has advice for the node.
type nodesStore struct {
	*memstore.Store
	server    *memstore.Server
	said      atomic.Pointer[subnet.NodeAdvice]
	announced atomic.Int32  // calls of AnnounceNetwork, of which the first fails
	silent    chan struct{} // as long as it is open, the watch reports nothing; nil: it reports

	introduction *subnet.Event // what the watch reports before that; nil: nothing
}

func newNodesStore(server *memstore.Server, name string) *nodesStore {
	return &nodesStore{Store: server.OpenNode(name), server: server}
}

func (s *nodesStore) Access() subnet.Access {
	return subnet.Access{Kind: subnet.StoreKubernetes, Endpoints: []string{"https://192.0.2.9:6443"}, Prefix: "flannel.alpha.coreos.com/"}
}

func (s *nodesStore) Advice() subnet.NodeAdvice {
	if a := s.said.Load(); a != nil {
		return *a
	}
	return subnet.NodeAdvice{}
}

func (s *nodesStore) AnnounceNetwork(context.Context) error {
	if s.announced.Add(1) == 1 {
		return errors.New("forbidden")
	}
	return nil
}

// say changes the advice, and has the watch report an event, as the interface has it.
func (s *nodesStore) say(a subnet.NodeAdvice) {
	s.said.Store(&a)
	s.server.Write("subnets/none", "{}") // a record that nobody accepts
	s.server.Delete("subnets/none")
}

func (s *nodesStore) Watch(ctx context.Context, changed func(subnet.Event) error) error {
	if s.introduction != nil {
		if err := changed(*s.introduction); err != nil {
			return err
		}
	}
	if s.silent != nil {
		select {
		case <-s.silent:
		case <-ctx.Done():
			return nil
		}
	}
	return s.Store.Watch(ctx, changed)
}

// waitProblem waits for a problem with a code, and returns its text.
func (r *runningNode) waitReason(t *testing.T, code status.Reason) (p status.Problem) {
	t.Helper()
	eventually(t, "waiting for the problem "+string(code), func() error {
		s, err := r.Status(t.Context())
		if err != nil {
			return err
		}
		for _, p = range s.Problems {
			if p.Code == code {
				return nil
			}
		}
		return fmt.Errorf("problems %v, log\n%s", s.Problems, r.log.String())
	})
	return p
}

// waitSubnet waits until the node is ready with a subnet.
func (r *runningNode) waitSubnet(t *testing.T, want netip.Prefix) {
	t.Helper()
	eventually(t, "waiting for the subnet "+want.String(), func() error {
		s, err := r.Status(t.Context())
		if err != nil {
			return err
		}
		file, fileErr := subnetfile.Read(r.SubnetFile)
		if s.State != status.Ready || s.Lease == nil || s.Lease.Subnets[0] != want || file.Subnets[subnet.IPv4].Masked() != want {
			return fmt.Errorf("state %s, lease %+v, problems %v, subnet file %+v, %v, log\n%s", s.State, s.Lease, s.Problems, file, fileErr, r.log.String())
		}
		return nil
	})
}

// TestNodeAllocated runs a node on a store that gives the subnets, from its start before it has one, through the
// deletion of its Node and a subnet outside the network.
func TestNodeAllocated(t *testing.T) {
	ownUplink(t)
	server, dir := memstore.NewAllocating(), t.TempDir()
	defer server.Close()
	store := newNodesStore(server, "this")
	n := startNode(t, store, dir)
	n.waitLog(t, "to the file of --net-config-path")
	server.Write("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)

	p := n.waitReason(t, status.NotAllocated)
	if s, err := n.Status(t.Context()); err != nil || s.State != status.Starting || s.Store.Kind != status.KindKubernetes || s.Etcd != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if p.Topic != "lease" || p.Warning {
		t.Errorf("the problem is %+v", p)
	}
	server.AddNode("this")
	server.AddNode("other")
	first, second := netip.MustParsePrefix("10.5.3.0/24"), netip.MustParsePrefix("10.5.9.0/24")
	server.Allocate("this", first)
	server.Allocate("other", netip.MustParsePrefix("10.5.7.0/24"))
	n.waitReason(t, status.NotAnnounced)
	n.waitLog(t, "network condition: problem resolved")
	n.waitSubnet(t, first)
	server.Publish("other", vxlanLease(7))
	n.waitPeers(t, "10.5.7.0/24 programmed")
	if got := strings.Count(n.log.String(), "waiting for the API server to give this node a subnet"); got != 1 {
		t.Errorf("%d lines about the wait:\n%s", got, n.log.String())
	}

	t.Run("another config is followed", func(t *testing.T) {
		server.Write("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}`)
		eventually(t, "the device's MTU", func() error {
			if l, err := netlink.LinkByName("flannel.1"); err != nil || l.Attrs().MTU != 1350 {
				return fmt.Errorf("%v, %v", l, err)
			}
			return nil
		})
	})
	t.Run("its Node comes again with another subnet", func(t *testing.T) {
		server.RemoveNode("this")
		n.waitReason(t, status.NotAllocated)
		n.waitState(t, status.Degraded)
		n.waitPeers(t, "10.5.7.0/24 programmed")
		server.AddNode("this")
		server.Allocate("this", second)
		n.waitSubnet(t, second)
		eventually(t, "its network is announced again", func() error {
			if got := store.announced.Load(); got != 3 {
				return fmt.Errorf("announced %d times", got)
			}
			return nil
		})
		n.waitLog(t, "the API server gave this node the subnet 10.5.9.0/24 instead of 10.5.3.0/24")
	})
	t.Run("a subnet outside the network", func(t *testing.T) {
		server.RemoveNode("this")
		n.waitReason(t, status.NotAllocated)
		server.AddNode("this")
		server.Allocate("this", netip.MustParsePrefix("10.66.1.0/24"))
		p := n.waitReason(t, status.SubnetOutside)
		if !strings.Contains(string(p.Text), "10.66.1.0/24 is not inside Network 10.5.0.0/16") {
			t.Errorf("the problem is %+v", p)
		}
		n.waitState(t, status.Degraded)
		n.waitPeers(t, "10.5.7.0/24 programmed", "10.66.1.0/24 quarantined")
		l, err := netlink.LinkByName("flannel.1")
		if err != nil {
			t.Fatal(err)
		}
		addresses, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil || len(addresses) != 1 || addresses[0].IP.String() != "10.5.9.0" {
			t.Errorf("the device has %v, %v", addresses, err)
		}
		if file, err := subnetfile.Read(n.SubnetFile); err != nil || file.Subnets[subnet.IPv4].Masked() != second {
			t.Errorf("the subnet file has %+v, %v", file, err)
		}
		server.RemoveNode("this")
		server.AddNode("this")
		server.Allocate("this", first)
		n.waitSubnet(t, first)
	})
}

// TestNodeAllocatedFromCache: without its store, a node whose subnets that gives comes up from the cached leases. Those
// of another kind of store are ignored.
func TestNodeAllocatedFromCache(t *testing.T) {
	ownUplink(t)
	server, dir := memstore.NewAllocating(), t.TempDir()
	defer server.Close()
	server.Write("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	own := netip.MustParsePrefix("10.5.3.0/24")
	for name, p := range map[string]netip.Prefix{"this": own, "other": netip.MustParsePrefix("10.5.7.0/24")} {
		server.AddNode(name)
		server.Allocate(name, p)
	}
	server.Publish("other", vxlanLease(7))
	n := startNode(t, newNodesStore(server, "this"), dir)
	n.waitSubnet(t, own)
	n.waitPeers(t, "10.5.7.0/24 programmed")
	eventually(t, "the cached leases", func() error { _, err := os.Stat(filepath.Join(dir, cacheFile)); return err })
	n.stop()

	store := newNodesStore(server, "this")
	store.silent = make(chan struct{})
	n = startNode(t, store, dir)
	n.waitLog(t, "starting from cached leases")
	n.waitPeers(t, "10.5.7.0/24 programmed")
	if p := n.waitReason(t, status.CachedLeases); !strings.HasPrefix(string(p.Text), "the API server has not answered yet") {
		t.Errorf("the problem is %+v", p)
	}
	n.waitLog(t, "msg=ready")
	close(store.silent)
	n.waitLog(t, "reconnected to the lease store")
	n.waitSubnet(t, own)
	n.stop()

	n = startNode(t, etcdStore{newMemStore()}, dir)
	n.waitLog(t, "ignoring cached leases from an earlier run: they are from the API server")
}

// etcdStore is a store that says that it is etcd.
type etcdStore struct{ *memStore }

func (etcdStore) Access() subnet.Access { return subnet.Access{Kind: subnet.StoreEtcd} }

// TestNodeAdvice: what an operator says of the node in the store is announced, at the start and live, and what cannot be
// used is named and ignored.
func TestNodeAdvice(t *testing.T) {
	ownUplink(t)
	if err := setAddress(netlink.AddrAdd, 12); err != nil {
		t.Fatal(err)
	}
	server := memstore.NewAllocating()
	defer server.Close()
	server.Write("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	server.AddNode("this")
	server.Allocate("this", netip.MustParsePrefix("10.5.3.0/24"))
	addr := netip.MustParseAddr
	ip := func(a string) [2]netip.Addr { return [2]netip.Addr{subnet.IPv4: addr(a)} }
	const node, overwrite = "annotation node-public-ip", "annotation public-ip-overwrite"
	sources := func(a subnet.NodeAdvice) subnet.NodeAdvice {
		a.PublicIPSource[subnet.IPv4], a.AnnouncedSource[subnet.IPv4] = node, overwrite
		return a
	}
	store := newNodesStore(server, "this")
	store.say(sources(subnet.NodeAdvice{PublicIP: ip("172.31.0.12")}))
	n := startNodeWith(t, store, t.TempDir(), func(o *Options) {
		o.Uplink.Ifaces, o.Uplink.PublicIP = nil, ip("172.31.0.11") // of which the annotation takes precedence
	})
	announces := func(local, public string) {
		t.Helper()
		eventually(t, "announcing "+public, func() error {
			s, err := n.Status(t.Context())
			if err != nil {
				return err
			}
			if s.Uplink == nil || s.Uplink.Local[0] != addr(local) || s.Uplink.PublicIP[0] != addr(public) {
				return fmt.Errorf("uplink %+v, log\n%s", s.Uplink, n.log.String())
			}
			for _, r := range server.Records() {
				if r.Name == "this" && r.Endpoints[subnet.IPv4].PublicIP == addr(public) {
					return nil
				}
			}
			return errors.New("not in the lease")
		})
	}
	announces("172.31.0.12", "172.31.0.12")
	n.waitLog(t, "it has "+node+"=172.31.0.12")

	store.say(sources(subnet.NodeAdvice{PublicIP: ip("172.31.0.12"), Announced: ip("203.0.113.5")}))
	announces("172.31.0.12", "203.0.113.5")

	store.say(sources(subnet.NodeAdvice{Announced: ip("224.0.0.5"), Bad: `annotation node-public-ip="x" is not an address`}))
	p := n.waitReason(t, status.AdviceBad)
	for _, want := range []string{overwrite + "=224.0.0.5: want an IPv4 address that other nodes can send to", `"x" is not an address`} {
		if !strings.Contains(string(p.Text), want) {
			t.Errorf("the problem is %+v, want %q", p, want)
		}
	}
	announces("172.31.0.11", "172.31.0.11")

	store.say(subnet.NodeAdvice{})
	n.waitState(t, status.Ready)
	announces("172.31.0.11", "172.31.0.11")
}

// introduce has the watch report at first what the store has of this node alone.
func (s *nodesStore) introduce(config string, own ...subnet.Record) {
	s.introduction = &subnet.Event{
		Type: subnet.Page, Revision: 1, Own: true, ConfigSet: true, Config: []byte(config), Put: own,
	}
}

// TestNodeIntroduced: with what the store has of this node alone, the device is made and the lease claimed while all
// leases are still being read. The node is ready once they are known, and nothing of another node is touched before.
func TestNodeIntroduced(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	ownUplink(t)
	server, dir := memstore.NewAllocating(), t.TempDir()
	defer server.Close()
	server.Write("config", config)
	own := netip.MustParsePrefix("10.5.3.0/24")
	for name, p := range map[string]netip.Prefix{"this": own, "other": netip.MustParsePrefix("10.5.7.0/24")} {
		server.AddNode(name)
		server.Allocate(name, p)
	}
	server.Publish("other", vxlanLease(7))
	start := func(own ...subnet.Record) (*runningNode, *nodesStore) {
		store := newNodesStore(server, "this")
		store.silent = make(chan struct{})
		store.introduce(config, own...)
		return startNode(t, store, dir), store
	}
	record := func() (r subnet.Record) {
		for _, r = range server.Records() {
			if r.Name == "this" {
				return r
			}
		}
		return subnet.Record{}
	}
	n, store := start()
	eventually(t, "the claim", func() error {
		if _, err := netlink.LinkByName("flannel.1"); err != nil || record().InstanceID == "" {
			return fmt.Errorf("device: %v, record %+v, log\n%s", err, record(), n.log.String())
		}
		return nil
	})
	if s := n.waitState(t, status.Starting); s.Lease != nil {
		t.Errorf("the lease is final before all leases are known: %+v", s.Lease)
	}
	if _, err := os.Stat(n.SubnetFile); err == nil {
		t.Error("the subnet file is written before all leases are known")
	}
	close(store.silent)
	n.waitSubnet(t, own)
	n.waitPeers(t, "10.5.7.0/24 programmed")
	eventually(t, "the cached leases", func() error { _, err := os.Stat(filepath.Join(dir, cacheFile)); return err })
	n.stop()

	// Again, with a store that falls silent then: the node comes up from the cached leases.
	routes := len(kernelRoutes(t))
	n, store = start(record())
	n.waitLog(t, "overlay device")
	if got := len(kernelRoutes(t)); got != routes || routes != 1 {
		t.Errorf("%d routes to peers while the leases are read, %d before, want one", got, routes)
	}
	n.waitLog(t, "starting from cached leases")
	n.waitLog(t, "msg=ready")
	n.waitPeers(t, "10.5.7.0/24 programmed")
	server.RemoveNode("other")
	close(store.silent)
	n.waitLog(t, "reconnected to the lease store")
	n.waitSubnet(t, own)
	n.waitPeers(t, "10.5.7.0/24 grace")
}

// TestNodeIntroducedRetains: a peer whose lease was gone after a restart is retained, as at any other start.
func TestNodeIntroducedRetains(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	ownUplink(t)
	server, dir := memstore.NewAllocating(), t.TempDir()
	defer server.Close()
	server.Write("config", config)
	for name, p := range map[string]string{"this": "10.5.3.0/24", "other": "10.5.7.0/24", "third": "10.5.8.0/24"} {
		server.AddNode(name)
		server.Allocate(name, netip.MustParsePrefix(p))
	}
	server.Publish("other", vxlanLease(7))
	server.Publish("third", vxlanLease(8))
	for round := range 2 {
		store := newNodesStore(server, "this")
		store.introduce(config)
		n := startNode(t, store, dir)
		if round == 0 {
			n.waitPeers(t, "10.5.7.0/24 programmed", "10.5.8.0/24 programmed")
			eventually(t, "the cached leases", func() error { _, err := os.Stat(filepath.Join(dir, cacheFile)); return err })
			n.stop()
			server.RemoveNode("third")
			continue
		}
		n.waitPeers(t, "10.5.7.0/24 programmed", "10.5.8.0/24 grace")
	}
}
