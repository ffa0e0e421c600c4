package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// crowd is the leases of nodes that there are not, each a record of the lab's etcd.
func crowd(t *testing.T, n int) (ops []clientv3.Op) {
	t.Helper()
	for i := range n {
		l := subnet.Lease{BackendType: "vxlan", NodeName: fmt.Sprintf("absent%d", i)}
		l.Endpoints[subnet.IPv4] = subnet.Endpoint{
			Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + i>>8), byte(i), 0}), 24),
			PublicIP: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), // RFC 6598
			Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"0e:ab:00:00:%02x:%02x"}`, i>>8, i&255),
		}
		value, err := l.Value()
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, clientv3.OpPut(subnetsPrefix+l.Key(), string(value)))
	}
	return ops
}

// commit carries out operations, so many in a transaction.
func commit(ctx context.Context, t *testing.T, l *lab.Lab, ops []clientv3.Op, each int) {
	t.Helper()
	for i := 0; i < len(ops); i += each {
		if _, err := l.Etcd().Client().Txn(ctx).Then(ops[i:min(i+each, len(ops))]...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLogOfManyLeases: what a node logs does not hang on how many leases there are: at its start, as they come and go, and when etcd is
// away. A start is about ten lines.
func TestLogOfManyLeases(t *testing.T) {
	const leases, mostBytes, mostLines = 5000, 5000, 14
	l := start(t, lab.Options{Nodes: 1, Config: `{"Network":"10.0.0.0/8","SubnetMax":"10.99.255.0","Backend":{"Type":"vxlan"}}`, DaemonArgs: []string{"--peer-grace=0"}})
	ctx := testctx.New(t)
	node, logged := l.Nodes()[0], 0
	// since returns what was logged since the last call.
	since := func(what string, lines int) string {
		t.Helper()
		log := logOf(t, node)[logged:]
		logged += len(log)
		n := bytes.Count(log, []byte("\n"))
		t.Logf("%s: %d bytes in %d lines", what, len(log), n)
		if len(log) > mostBytes || n > lines {
			t.Errorf("%s: %d bytes in %d lines are logged, want at most %d in %d:\n%s", what, len(log), n, mostBytes, lines, log)
		}
		return string(log)
	}
	until := func(what, text string) {
		t.Helper()
		waitFor(ctx, t, what, func() error {
			out, _ := selvaged(ctx, t, node, "status") // its exit code tells of what is pending at the moment
			if !strings.Contains(out, text) {
				return fmt.Errorf("no %q in\n%s", text, out)
			}
			return nil
		})
	}
	each := func(ops []clientv3.Op) {
		t.Helper()
		const single = 500 // far more than lines are allowed
		commit(ctx, t, l, ops[:single], 1)
		commit(ctx, t, l, ops[single:], 100)
	}
	if err := node.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	crowded := crowd(t, leases)
	commit(ctx, t, l, crowded, 100)
	logged = len(logOf(t, node))
	if err := errors.Join(node.Start(), node.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the ready line", func() error { return says(node, "msg=ready") }) // the log is written by a goroutine of its own
	text := since("the start", mostLines)
	if !strings.Contains(text, fmt.Sprintf("leases=%d", leases+1)) || !strings.Contains(text, "msg=ready") {
		t.Errorf("it does not say how many leases there are, or that it is ready:\n%s", text)
	}
	until("all peers", fmt.Sprintf("peers     %d programmed\n", leases))
	since("after the start", 2)

	gone := make([]clientv3.Op, leases)
	for i, op := range crowded {
		gone[i] = clientv3.OpDelete(string(op.KeyBytes()))
	}
	each(gone)
	until("no peers", "peers     0 programmed\n")
	each(crowded)
	until("all peers again", fmt.Sprintf("peers     %d programmed\n", leases))
	since("5,000 leases that are removed and added again, 500 of them one by one", 20)

	l.Etcd().Kill()
	waitFor(ctx, t, "the outage", func() error { return says(node, "etcd unavailable") })
	since("etcd is away", 3)
	if err := l.Etcd().Start(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the end of the outage", func() error { return says(node, "reconnected to etcd") })
	until("the end of the outage", "node1: ready")
	since("etcd is back", 3)
}
