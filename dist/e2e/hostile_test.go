package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnettest"
)

const subnetsPrefix = "/coreos.com/network/subnets/"

// TestHostileLeases stores the corpus of bad leases below running nodes, changes it and deletes it, with one node starting
// in the midst of it: the kernel is not touched, no probe is lost, the daemons go on and remain small, and so do their logs.
func TestHostileLeases(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 3, Families: families[:], Config: subnettest.Config})
	ctx := testctx.New(t)
	pods := podOnEach(ctx, t, l)
	probeAll(ctx, t, l, pods)
	good := addPeer(ctx, t, l)
	records := corpus(t, l)
	seed := rand.Uint64()
	attack := attacker{l: l, rnd: rand.New(rand.NewPCG(seed, 0))}
	t.Logf("%d records, the seed is %d", len(records), seed)

	watches := make([]*watched, len(l.Nodes()))
	for i, n := range l.Nodes() {
		watches[i] = watch(t, n)
	}
	var ends []func()
	for i := range pods {
		ends = append(ends, stream(ctx, t, l, pods[i], pods[(i+1)%len(pods)]))
	}
	began := time.Now()
	attack.do(ctx, t, records, put)
	// Part of it changes into what is no better.
	rewritten := slices.Clone(records[:len(records)/3])
	for i := range rewritten {
		rewritten[i].Value = []byte(`{"PublicIP":"10.5.0.1","BackendType":"vxlan"}`)
	}
	attack.do(ctx, t, rewritten, put)
	good.change(ctx, t, l)

	// A node that starts now meets all of it at once.
	late := l.Nodes()[2]
	late.Kill()
	if err := errors.Join(late.Start(), late.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	waitSays(ctx, t, late, fmt.Sprintf("leases=%d quarantined=%d ", len(l.Nodes())+1, len(records)))
	watches[2].pid = late.PID()

	attack.do(ctx, t, records, deletion)
	good.change(ctx, t, l)
	t.Logf("stored, changed and deleted in %s", time.Since(began))
	for _, end := range ends {
		end()
	}
	for _, w := range watches {
		w.check(t)
	}
	for _, n := range l.Nodes() {
		onlyPeers(t, l, n, good.subnet)
	}
	probeAll(ctx, t, l, podOnEach(ctx, t, l))
}

// corpus returns the records that are bad in every cluster of that config, but for the keys that nodes of the lab have.
func corpus(t *testing.T, l *lab.Lab) []subnettest.Record {
	t.Helper()
	all, err := subnettest.Hostile()
	if err != nil {
		t.Fatal(err)
	}
	have := leases(t, l)
	records := slices.DeleteFunc(all, func(r subnettest.Record) bool {
		return r.Needs != "" || strings.Contains(have, subnetsPrefix+r.Key+" = ")
	})
	if len(records) <= 1000 {
		t.Fatalf("%d records, want more than 1000", len(records))
	}
	return records
}

// goodPeer is a node that only etcd knows of, with a good lease.
type goodPeer struct {
	subnet  netip.Prefix
	changes int
}

// addPeer stores the lease of a node that there is not, and waits until all have taken it in.
func addPeer(ctx context.Context, t *testing.T, l *lab.Lab) *goodPeer {
	t.Helper()
	taken := leases(t, l)
	p := &goodPeer{subnet: netip.MustParsePrefix("10.5.1.0/24")}
	for strings.Contains(taken, p.key()) {
		next := p.subnet.Addr().As4()
		next[2]++
		p.subnet = netip.PrefixFrom(netip.AddrFrom4(next), p.subnet.Bits())
	}
	p.put(ctx, t, l)
	return p
}

func (p *goodPeer) key() string {
	return fmt.Sprintf("%s%s-%d", subnetsPrefix, p.subnet.Addr(), p.subnet.Bits())
}

// change changes the node's name, for which nothing in a kernel has to change, and waits until all nodes have taken that in:
// then they have taken in all that was written before as well.
func (p *goodPeer) change(ctx context.Context, t *testing.T, l *lab.Lab) {
	t.Helper()
	p.changes++
	p.put(ctx, t, l)
}

func (p *goodPeer) put(ctx context.Context, t *testing.T, l *lab.Lab) {
	t.Helper()
	value := fmt.Sprintf(`{"PublicIP":"172.31.0.250","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:fa"},"NodeName":"good-%d"}`, p.changes)
	if _, err := l.Etcd().Client().Put(ctx, p.key(), value); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("good-%d ", p.changes)
	for _, n := range l.Nodes() {
		waitFor(ctx, t, "a good peer", func() error {
			out, err := selvaged(ctx, t, n, "peers")
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, name) && strings.Contains(line, "programmed") {
					return nil
				}
			}
			return fmt.Errorf("%s has no %s, %w, among\n%s", n.Name(), name, err, out)
		})
	}
}

// attacker writes to etcd.
type attacker struct {
	l   *lab.Lab
	rnd *rand.Rand
}

func put(r subnettest.Record) clientv3.Op {
	return clientv3.OpPut(subnetsPrefix+r.Key, string(r.Value))
}

func deletion(r subnettest.Record) clientv3.Op { return clientv3.OpDelete(subnetsPrefix + r.Key) }

// do makes the same of all records, in a random order and in bursts of random size, each a transaction.
func (a attacker) do(ctx context.Context, t *testing.T, records []subnettest.Record, op func(subnettest.Record) clientv3.Op) {
	t.Helper()
	var ops []clientv3.Op
	for _, i := range a.rnd.Perm(len(records)) {
		ops = append(ops, op(records[i]))
	}
	for len(ops) > 0 {
		const most = 100 // etcd takes 128 in a transaction
		burst := ops[:min(len(ops), 1+a.rnd.IntN(most))]
		ops = ops[len(burst):]
		if _, err := a.l.Etcd().Client().Txn(ctx).Then(burst...).Commit(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(a.rnd.IntN(20)) * time.Millisecond) // at times the daemons see several at once, at times one
	}
}

// watched is a node as it was before, and what has happened to it since.
type watched struct {
	node     *lab.Node
	filter   *vtepfilter.Filter
	overlay  []string
	pid      int
	resident int // bytes
	logged   int // bytes
	heard    func() []string
}

func watch(t *testing.T, n *lab.Node) *watched {
	t.Helper()
	w := &watched{node: n, filter: filterOf(t, n), pid: n.PID()}
	w.overlay, w.resident, w.logged = overlayOf(t, n, w.filter), resident(t, n), len(logOf(t, n))
	w.heard = monitor(t, n)
	return w
}

// check fails unless all is as it was.
func (w *watched) check(t *testing.T) {
	t.Helper()
	name := w.node.Name()
	if heard := w.heard(); len(heard) > 0 {
		t.Errorf("%s: %d changes in the kernel, want none; the first is %s", name, len(heard), heard[0])
	}
	if now := overlayOf(t, w.node, w.filter); !slices.Equal(now, w.overlay) {
		t.Errorf("%s holds of the overlay\n%s\nbefore\n%s", name, strings.Join(now, "\n"), strings.Join(w.overlay, "\n"))
	}
	if pid := w.node.PID(); pid != w.pid || !w.node.Running() {
		t.Errorf("%s: the daemon has the process id %d, running: %t, want %d", name, pid, w.node.Running(), w.pid)
	}
	const most = 20 << 20
	now := resident(t, w.node)
	if now-w.resident > most {
		t.Errorf("%s: %d bytes are resident, %d before, want at most %d more", name, now, w.resident, most)
	}
	log := logOf(t, w.node)[w.logged:]
	if len(log) > 64<<10 || !bytes.Contains(log, []byte("lease rejected")) || bytes.Contains(log, []byte("panic")) {
		t.Errorf("%s: it logged %d bytes, want some and less than 64 KiB, and no panic", name, len(log))
	}
	t.Logf("%s: %d entries, resident %.1f MiB, before %.1f, %.1f KiB logged, in %d lines", name, len(w.overlay),
		float64(now)/(1<<20), float64(w.resident)/(1<<20), float64(len(log))/(1<<10), bytes.Count(log, []byte("\n")))
}

func logOf(t *testing.T, n *lab.Node) []byte {
	t.Helper()
	log, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// resident reads how much memory the daemon has.
func resident(t *testing.T, n *lab.Node) (bytes int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
	if _, err := fmt.Sscanf(rest, "%d kB", &bytes); err != nil {
		t.Fatalf("%s: VmRSS: %v", n.Name(), err)
	}
	return bytes << 10
}

// onlyPeers fails unless the routes by a node's overlay devices are to the subnets of the other nodes and to one more, and
// nowhere else.
func onlyPeers(t *testing.T, l *lab.Lab, n *lab.Node, more netip.Prefix) {
	t.Helper()
	want := map[netip.Prefix]bool{more: true}
	for _, peer := range l.PeersOf(n) {
		file, err := peer.Subnet()
		if err != nil {
			t.Fatal(err)
		}
		for _, own := range file.Subnets {
			want[own.Masked()] = true
		}
	}
	have := map[netip.Prefix]bool{}
	err := n.Do(func() error {
		for _, link := range devices(t) {
			for _, r := range routesOf(t, link, unix.RT_TABLE_MAIN) {
				if r.Protocol == unix.RTPROT_KERNEL { // for addresses of the device
					continue
				}
				address, _ := netip.AddrFromSlice(r.Dst.IP)
				bits, _ := r.Dst.Mask.Size()
				have[netip.PrefixFrom(address.Unmap(), bits)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(have, want) {
		t.Errorf("%s: routes lead by the overlay's devices to %v, want %v", n.Name(), slices.Collect(maps.Keys(have)), slices.Collect(maps.Keys(want)))
	}
}
