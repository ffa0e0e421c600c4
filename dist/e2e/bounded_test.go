package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

// TestBadLeasesAreNamed: a bad lease is named by a node that has seen others come and go, however long their keys were.
func TestBadLeasesAreNamed(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	ctx := testctx.New(t)
	client, node := l.Etcd().Client(), l.Nodes()[0]
	for i := range 6 { // in a minute ten are named
		key := fmt.Sprintf("%s%s%d", subnetsPrefix, strings.Repeat("x", 200), i)
		if _, err := client.Put(ctx, key, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(node.Restart(ctx), node.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Delete(ctx, subnetsPrefix+"xxx", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, subnetsPrefix+"the-last", "{}"); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "a bad lease after others", func() error { return says(node, "lease=the-last") })
}

// TestLongKeysAreNotKept: neither the log nor the memory holds what a key of a megabyte says.
func TestLongKeysAreNotKept(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	ctx := testctx.New(t)
	client, node := l.Etcd().Client(), l.Nodes()[0]
	good := addPeer(ctx, t, l)
	before, logged := resident(t, node), len(logOf(t, node))
	for i := range 60 {
		key := fmt.Sprintf("%s%d%s", subnetsPrefix, i, strings.Repeat("x", 1<<20))
		if _, err := client.Put(ctx, key, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	good.change(ctx, t, l)
	if now := resident(t, node); now > before+40<<20 {
		t.Errorf("%d MiB are resident, before %d", now>>20, before>>20)
	}
	if n := len(logOf(t, node)) - logged; n > 64<<10 {
		t.Errorf("%d bytes were logged", n)
	}
}

// TestChurnIsNotLogged: who stores and deletes one bad lease again and again does not fill the log.
func TestChurnIsNotLogged(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	ctx := testctx.New(t)
	client, node := l.Etcd().Client(), l.Nodes()[0]
	good := addPeer(ctx, t, l)
	logged := len(logOf(t, node))
	for range 1000 {
		if _, err := client.Put(ctx, subnetsPrefix+"bad", "{}"); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Delete(ctx, subnetsPrefix+"bad"); err != nil {
			t.Fatal(err)
		}
	}
	good.change(ctx, t, l)
	log := logOf(t, node)[logged:]
	if len(log) > 64<<10 {
		t.Errorf("%d bytes were logged", len(log))
	}
}

// TestNumberIsSaid: of many bad leases that come while the node runs, the number is said.
func TestNumberIsSaid(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	ctx := testctx.New(t)
	for i := range 100 {
		if _, err := l.Etcd().Client().Put(ctx, fmt.Sprintf("%sbad%d", subnetsPrefix, i), "{}"); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(ctx, t, "the number of bad leases", func() error { return says(l.Nodes()[0], "many leases rejected") })
}

// TestFlappingLease: a lease that is written and deleted again and again is no fight over the filter, and each time let in
// at once.
func TestFlappingLease(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","SubnetMin":"10.5.128.0","Backend":{"Type":"vxlan"}}`
	l := start(t, lab.Options{Nodes: 1, Config: config, DaemonArgs: []string{"--peer-grace=0"}})
	ctx := testctx.New(t)
	client, node := l.Etcd().Client(), l.Nodes()[0]
	filter, peer := filterOf(t, node), netip.MustParseAddr("172.31.0.250")
	const key = subnetsPrefix + "10.5.1.0-24"
	const value = `{"PublicIP":"172.31.0.250","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:fa"}}`
	var times []time.Duration
	for range 10 {
		began := time.Now()
		if _, err := client.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
		times = append(times, letIn(ctx, t, filter, peer, true).Sub(began))
		if _, err := client.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		letIn(ctx, t, filter, peer, false)
	}
	slices.Sort(times)
	t.Logf("let in after %v, the slowest %v", times[len(times)/2], times[len(times)-1])
	if says(node, "another process keeps changing") == nil {
		t.Errorf("it is taken for a fight: %s", logOf(t, node))
	}
}

// TestTableDeletedForEver: who keeps deleting the table does not fill the log.
func TestTableDeletedForEver(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	node := l.Nodes()[0]
	ctx := testctx.New(t)
	f := filterOf(t, node)
	logged := len(logOf(t, node))
	const repairs = 12 // each later than the one before: the daemon backs off
	for range repairs {
		if err := f.Remove(); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "table", func() error { return hasTable(node, vtepfilter.Table, true) })
	}
	log := logOf(t, node)[logged:]
	if lines := bytes.Count(log, []byte("\n")); lines > repairs/2 {
		t.Errorf("%d lines, the last: %s", lines, log[max(0, len(log)-500):])
	}
}
