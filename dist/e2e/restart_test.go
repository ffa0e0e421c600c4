// Package e2e tests selvage from end to end: the real daemon and CNI plugin on the nodes of a lab.
package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
)

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

// bin is where make puts what it builds.
const bin = "../../bin"

func start(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	o.Bin, o.Patience = dir, lab.TestPatience
	// What a test breaks on purpose, and leases without a node, would make nodes degraded at a time of its own.
	o.DaemonArgs = append([]string{"--peer-probe-interval=0"}, o.DaemonArgs...)
	ctx := testctx.New(t)
	l, err := lab.New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes() {
				log, _ := os.ReadFile(n.LogPath())
				t.Logf("%s:\n%s", n.Name(), log)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// monitor collects the rtnetlink notifications in a node's namespace, but for the kernel's own doing, until stop is
// called.
func monitor(t *testing.T, n *lab.Node) (stop func() []string) {
	t.Helper()
	var socket *nl.NetlinkSocket
	err := n.Do(func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	heard, done := []string{}, make(chan struct{})
	go func() {
		defer close(done)
		for {
			messages, _, err := socket.Receive()
			if err != nil {
				return
			}
			for _, m := range messages {
				// Neighbours of the underlay are resolved and age all the time: that is the kernel's own doing, and
				// ours are permanent (ndm_state at offset 8).
				if m.Header.Type == unix.RTM_NEWNEIGH || m.Header.Type == unix.RTM_DELNEIGH {
					if state := nl.NativeEndian().Uint16(m.Data[8:]); state&unix.NUD_PERMANENT == 0 {
						continue
					}
				}
				// A bridge reports its ports when timers of its own expire.
				if m.Header.Type == unix.RTM_NEWLINK && m.Data[0] == unix.AF_BRIDGE {
					continue
				}
				heard = append(heard, fmt.Sprintf("rtnetlink message %d: % x", m.Header.Type, m.Data))
			}
		}
	}()
	return func() []string {
		socket.Close()
		<-done
		return heard
	}
}

// TestRestartChangesNothing restarts each daemon, by SIGTERM and by SIGKILL: the kernel is not touched, etcd is not
// written, and no probe between pods is lost.
func TestRestartChangesNothing(t *testing.T) {
	l := start(t, lab.Options{Nodes: 3})
	ctx := testctx.New(t)
	pods := podOnEach(ctx, t, l)
	if probeAll(ctx, t, l, pods); t.Failed() {
		return
	}
	before := leases(t, l)
	node := l.Nodes()[0]

	endStream := stream(ctx, t, l, pods[0], pods[1])
	heard := monitor(t, node)
	for _, end := range []func(context.Context) error{
		node.Stop,
		func(context.Context) error { node.Kill(); return nil },
	} {
		if err := end(ctx); err != nil {
			t.Fatal(err)
		}
		if err := node.Start(); err != nil {
			t.Fatal(err)
		}
		waitForReady(ctx, t, node)
	}
	for _, message := range heard() {
		t.Errorf("the restart changed something in the kernel: %s", message)
	}
	endStream()
	if after := leases(t, l); after != before {
		t.Errorf("the restart wrote to etcd:\nbefore %s\nafter  %s", before, after)
	}
}

// waitForReady waits until the present run of the daemon has said that it is ready.
func waitForReady(ctx context.Context, t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// leases returns all lease keys with their values and revisions as text.
func leases(t *testing.T, l *lab.Lab) string {
	t.Helper()
	r, err := l.Etcd().Client().Get(t.Context(), "/coreos.com/network/subnets/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, kv := range r.Kvs {
		fmt.Fprintf(&b, "%s = %s (created %d, modified %d)\n", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision)
	}
	return b.String()
}

// TestLeaseKeyDeleted: a node whose key somebody deletes claims the same subnet again, and no probe is lost.
func TestLeaseKeyDeleted(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2})
	ctx := testctx.New(t)
	pods := podOnEach(ctx, t, l)
	before, err := l.Nodes()[1].Subnet()
	if err != nil {
		t.Fatal(err)
	}
	endStream := stream(ctx, t, l, pods[0], pods[1])
	first := leases(t, l)
	client := l.Etcd().Client()
	if _, err := client.Delete(ctx, "/coreos.com/network/subnets/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the leases", func() error {
		if now := leases(t, l); strings.Count(now, "\n") != strings.Count(first, "\n") {
			return fmt.Errorf("not all are back: %s", now)
		}
		return nil
	})
	if err := l.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	endStream()
	after, err := l.Nodes()[1].Subnet()
	if err != nil || after.Subnets != before.Subnets {
		t.Errorf("node2 has %v, %v, want %v as before", after.Subnets, err, before.Subnets)
	}
}

// TestNothingWrittenOutside: the lab leaves no file in the working directory.
func TestNothingWrittenOutside(t *testing.T) {
	count := func() (n int) {
		_ = filepath.WalkDir(".", func(string, fs.DirEntry, error) error { n++; return nil })
		return n
	}
	before := count()
	start(t, lab.Options{Nodes: 1})
	if after := count(); after != before {
		t.Errorf("%d files and folders, before %d", after, before)
	}
}
