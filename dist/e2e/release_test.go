package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestRelease gives leases back on the command line: a node's own, one by its subnet, and a reservation only if it must be.
func TestRelease(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2})
	ctx := testctx.New(t)
	daemon, err := filepath.Abs(filepath.Join(bin, "selvaged"))
	if err != nil {
		t.Fatal(err)
	}
	release := func(n *lab.Node, args ...string) (string, error) {
		var out []byte
		err := n.Do(func() (err error) {
			args := append([]string{"release", "--etcd-endpoints", strings.Join(l.Etcd().Endpoints(), ",")}, args...)
			out, err = exec.CommandContext(ctx, daemon, args...).CombinedOutput()
			return err
		})
		return string(out), err
	}
	refused := func(n *lab.Node, want string, args ...string) {
		t.Helper()
		before := leases(t, l)
		if out, err := release(n, args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("release %v: %v, %q, want %q", args, err, out, want)
		}
		if after := leases(t, l); after != before {
			t.Errorf("release %v was refused and changed\n%s\ninto\n%s", args, before, after)
		}
	}
	key := func(n *lab.Node) string {
		f, err := n.Subnet()
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(f.Subnets[subnet.IPv4].Masked().String(), "/", "-")
	}
	one, two := l.Nodes()[0], l.Nodes()[1]
	first, second := key(one), key(two)
	for _, n := range l.Nodes() {
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}

	if out, err := release(one); err != nil || out != "released "+first+"\n" {
		t.Errorf("this node's own: %v, %q", err, out)
	}
	if has := leases(t, l); strings.Contains(has, first) || !strings.Contains(has, second) {
		t.Errorf("after the release of %s there is\n%s", first, has)
	}
	refused(one, "no such lease")
	refused(one, "10.5.77.1/24\" is not a subnet", "10.5.77.1/24")
	refused(one, "no such lease", "10.5.0.0/24") // the first one of the network is never given to a node
	refused(one, "--state-dir", "--state-dir=/nowhere")

	reserved := strings.ReplaceAll(second, "-", "/")
	value, err := l.Etcd().Client().Get(ctx, "/coreos.com/network/subnets/"+second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Etcd().Client().Put(ctx, "/coreos.com/network/subnets/"+second, string(value.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	refused(one, "reservation", reserved)
	if out, err := release(one, "--force", reserved); err != nil || out != "released "+second+"\n" {
		t.Errorf("a reservation, by force: %v, %q", err, out)
	}
	if has := leases(t, l); has != "" {
		t.Errorf("left is\n%s", has)
	}
	// Who comes back claims anew.
	if err := one.Start(); err != nil {
		t.Fatal(err)
	}
	if err := one.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if again := key(one); again != first {
		t.Errorf("it has %s now, and had %s, which is free", again, first)
	}
}
