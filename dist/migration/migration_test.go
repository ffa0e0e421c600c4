package migration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// bin is where make build, make tools and make bin/flanneld put the programs.
const bin = "../../bin"

const subnetsPrefix = "/coreos.com/network/subnets/"

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

// cluster is a lab that comes from flannel.
type cluster struct {
	*lab.Lab
	t       *testing.T
	ctx     context.Context
	dir     string
	flannel map[string]*Flanneld // by node
}

// newCluster makes a lab whose nodes run flanneld, and have never run selvaged as far as can be seen.
func newCluster(t *testing.T, families []subnet.Family, config string, args ...string) *cluster {
	t.Helper()
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testctx.New(t)
	l, err := lab.New(ctx, lab.Options{Nodes: 3, Families: families, Config: "-", DaemonArgs: args, Bin: dir})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Lab: l, t: t, ctx: ctx, dir: dir, flannel: map[string]*Flanneld{}}
	t.Cleanup(func() { // flanneld ends with ctx, which has been canceled
		for _, f := range c.flannel {
			f.Wait()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range l.Nodes() {
		c.must(n.Stop(ctx))
		c.output(n, filepath.Join(dir, "selvaged"), "cleanup")
	}
	c.must(l.Etcd().PutConfig(ctx, config))
	for _, n := range l.Nodes() {
		c.startFlannel(n)
	}
	for _, n := range l.Nodes() {
		c.wait("flanneld's subnet file", func() error { _, err := n.Subnet(); return err })
	}
	return c
}

func (c *cluster) startFlannel(n *lab.Node) {
	flags := []string{"-etcd-endpoints=" + strings.Join(c.Etcd().Endpoints(), ","), "-iface=eth0", "-ip-masq"}
	c.flannel[n.Name()] = StartFlannel(c.ctx, filepath.Join(c.dir, "flanneld"), n, flags...)
}

func (c *cluster) stopFlannel(n *lab.Node) {
	c.t.Helper()
	c.must(c.flannel[n.Name()].Stop())
	delete(c.flannel, n.Name())
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err == nil {
		return
	}
	for name, f := range c.flannel {
		c.t.Logf("flanneld on %s:\n%s", name, f.Printed())
	}
	c.t.Fatal(err)
}

func (c *cluster) wait(what string, check func() error) {
	c.t.Helper()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-c.ctx.Done():
			c.must(fmt.Errorf("wait for %s: %w", what, err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *cluster) output(n *lab.Node, argv ...string) string {
	c.t.Helper()
	out, err := n.Output(c.ctx, argv...)
	if err != nil {
		c.must(fmt.Errorf("%s: %v: %w\n%s", n.Name(), argv, err, out))
	}
	return string(out)
}

// leases are the keys below subnets/.
func (c *cluster) leases() (keys []string) {
	c.t.Helper()
	answer, err := c.Etcd().Client().Get(c.ctx, subnetsPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	c.must(err)
	for _, kv := range answer.Kvs {
		keys = append(keys, strings.TrimPrefix(string(kv.Key), subnetsPrefix))
	}
	return keys
}

// probes has the pods reach each other and the outside, which knows no way back to pods.
func (c *cluster) probes() {
	c.t.Helper()
	var pods []*lab.Endpoint
	for _, p := range c.Pods() {
		pods = append(pods, p.Endpoint)
	}
	for _, f := range c.Families() {
		results := slices.Concat(c.MatrixFamily(c.ctx, f, pods)...)
		for _, p := range pods {
			results = append(results, c.ProbeFamily(c.ctx, f, p, c.Outside()))
		}
		for _, r := range results {
			if r.Err != nil {
				c.t.Errorf("%s -> %s over %s: %v", r.From, r.To, r.Family, r.Err)
			}
		}
	}
}

// streams has the pods send to each other, round and round, until the end, which says what was lost.
func (c *cluster) streams() (end func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	var sending sync.WaitGroup
	pods := c.Pods()
	for i, from := range pods {
		to := pods[(i+1)%len(pods)]
		sending.Go(func() {
			reports, err := c.StreamShared(ctx, from.Endpoint, to.Endpoint, 2*time.Millisecond)
			if err != nil {
				c.t.Error(err)
			}
			for _, r := range reports {
				c.t.Logf("%s -> %s over %s: %s", from.Name(), to.Name(), r.Family, r)
				if r.Lost > 0 || r.Sent == 0 {
					c.t.Errorf("%s -> %s over %s: %s, want none lost", from.Name(), to.Name(), r.Family, r)
				}
			}
		})
	}
	return func() { cancel(); sending.Wait() }
}

var macOfDevice = regexp.MustCompile(`link/ether ([0-9a-f:]+)`)

// identity is what others know a node by: its subnets, and its devices' MAC addresses.
func (c *cluster) identity(n *lab.Node) (text string) {
	c.t.Helper()
	f, err := n.Subnet()
	c.must(err)
	text = fmt.Sprint(f.Subnets)
	for i, device := range []string{"flannel.1", "flannel-v6.1"} {
		if f.Subnets[i].IsValid() {
			text += " " + macOfDevice.FindString(c.output(n, "ip", "link", "show", "dev", device))
		}
	}
	return text
}

// rulesAre looks whose rules the packet filter has, by the names of chains and tables.
func (c *cluster) rulesAre(n *lab.Node, whose, notWhose string) {
	c.t.Helper()
	rules := ""
	for _, argv := range [][]string{{"nft", "list", "tables"}, {"iptables-save"}, {"ip6tables-save"}} {
		rules += strings.ToLower(c.output(n, argv...))
	}
	if !strings.Contains(rules, whose) || strings.Contains(rules, notWhose) {
		c.t.Errorf("%s is to have rules of %s's, and none of %s's, and has\n%s", n.Name(), whose, notWhose, rules)
	}
}

// TestMigration is Documentation/migration.md: a cluster of flannel's becomes one of selvage's while pods talk, and one node goes back.
func TestMigration(t *testing.T) {
	for _, tt := range []struct {
		name     string
		families []subnet.Family
		config   string
		args     []string
	}{
		{"IPv4, iptables", []subnet.Family{subnet.IPv4}, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, nil},
		{"dual stack, nftables", []subnet.Family{subnet.IPv4, subnet.IPv6},
			`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","EnableNFTables":true,"Backend":{"Type":"vxlan"}}`, nil},
		{"fast path", []subnet.Family{subnet.IPv4, subnet.IPv6},
			`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`,
			[]string{"--fast-path=auto"}},
	} {
		t.Run(tt.name, func(t *testing.T) { newCluster(t, tt.families, tt.config, tt.args...).migrate() })
	}
}

// status asks a node's daemon.
func (c *cluster) status(n *lab.Node) (now status.Status, err error) {
	c.t.Helper()
	err = json.Unmarshal([]byte(c.output(n, filepath.Join(c.dir, "selvaged"), "status", "-o", "json")), &now)
	return now, err
}

// goesFast waits until packets between a node and the others are fast, whatever these run, if its daemon has the fast
// path switched on and the kernel permits it.
func (c *cluster) goesFast(n *lab.Node) {
	c.t.Helper()
	first, err := c.status(n)
	c.must(err)
	if first.FastPath == nil || !fastpath.Permitted() {
		return
	}
	sent, received := first.FastPath.Fast()
	c.wait(n.Name()+" is fast", func() error {
		now, err := c.status(n)
		if err == nil && now.FastPath != nil {
			if s, r := now.FastPath.Fast(); s >= sent+1000 && r >= received+1000 {
				c.t.Logf("%s: %d packets sent and %d received were fast", n.Name(), s, r)
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("the fast path is %+v", now.FastPath))
	})
}

func (c *cluster) migrate() {
	for _, n := range c.Nodes() {
		if _, err := c.AddPod(c.ctx, n, ""); err != nil {
			c.must(err)
		}
	}
	c.wait("flannel's overlay", func() (err error) {
		for _, p := range c.Pods() {
			err = errors.Join(err, c.Probe(c.ctx, c.Pods()[0].Endpoint, p.Endpoint).Err)
		}
		return err
	})
	c.probes()
	keys := c.leases()
	selvaged := filepath.Join(c.dir, "selvaged")
	end := c.streams()
	for i, n := range c.Nodes() {
		before := c.identity(n)
		c.rulesAre(n, "flannel", "selvage")
		c.stopFlannel(n)
		c.must(errors.Join(n.Start(), n.WaitReady(c.ctx)))
		if after := c.identity(n); after != before {
			c.t.Errorf("%s was %s, and is %s", n.Name(), before, after)
		}
		c.wait("all peers", func() error {
			now, err := c.status(n)
			if want := (status.PeerCounts{Programmed: len(c.Nodes()) - 1}); err == nil && now.Peers != want {
				err = fmt.Errorf("peers %+v, want %+v: %+v", now.Peers, want, now)
			}
			return err
		})
		c.goesFast(n)
		c.rulesAre(n, "selvage", "flannel")
		c.t.Logf("%d of %d nodes run selvage", i+1, len(c.Nodes()))
		c.probes()
	}
	if now := c.leases(); !slices.Equal(now, keys) {
		c.t.Errorf("the leases were %q, and are %q", keys, now)
	}

	// And back.
	n := c.Nodes()[0]
	before := c.identity(n)
	c.must(n.Stop(c.ctx))
	c.startFlannel(n)
	c.wait("flanneld", func() error {
		if text := c.flannel[n.Name()].Printed(); !strings.Contains(text, "Running backend") {
			return errors.New("it does not run yet:\n" + text)
		}
		return nil
	})
	c.output(n, selvaged, "cleanup", "--rules")
	c.rulesAre(n, "flannel", "selvage")
	if after := c.identity(n); after != before {
		c.t.Errorf("%s was %s, and after the way back is %s", n.Name(), before, after)
	}
	c.probes()
	end()
	if now := c.leases(); !slices.Equal(now, keys) {
		c.t.Errorf("the leases were %q, and after the way back are %q", keys, now)
	}
	// What flannel's node had before it can still be taken away, and something new be put there.
	c.must(c.DelPod(c.ctx, c.Pods()[0]))
	if _, err := c.AddPod(c.ctx, n, "again"); err != nil {
		c.must(err)
	}
	c.probes()
}
