package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
)

// systemctlStub is a systemctl that says what it is called with, and of a unit that runs that it does.
const systemctlStub = `#!/bin/sh
echo "$*" >>%[1]s/calls
case "$1" in
cat) test -e %[1]s/installed ;;
is-active) test -e %[1]s/running ;;
start) test ! -e %[1]s/slow || exec sleep 1000 ;;
esac
`

// TestSetup: the first start of a node, then the same again, and what is in the way of it. systemd is not there: a
// whole one is tried in dist/debian.
func TestSetup(t *testing.T) {
	ctx := testctx.New(t)
	l := start(t, lab.Options{Nodes: 1})
	n := l.Nodes()[0]
	const dir = "/run/setup" // of the node
	inNode := func(do func() error) {
		t.Helper()
		if err := n.Do(do); err != nil {
			t.Fatal(err)
		}
	}
	plugins, err := filepath.Abs(filepath.Join(bin, "cni"))
	if err != nil {
		t.Fatal(err)
	}
	env, cni := filepath.Join(dir, "selvaged.env"), filepath.Join(dir, "cni")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	inNode(func() error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "systemctl"), fmt.Appendf(nil, systemctlStub, dir), 0o755)
	})
	touch := func(name string) {
		t.Helper()
		inNode(func() error { return os.WriteFile(filepath.Join(dir, name), nil, 0o600) })
	}
	calls := func() (lines string) {
		t.Helper()
		inNode(func() error {
			b, err := os.ReadFile(filepath.Join(dir, "calls"))
			lines = strings.Join(strings.Split(strings.TrimSpace(string(b)), "\n"), "; ")
			return errors.Join(err, os.Remove(filepath.Join(dir, "calls")))
		})
		return lines
	}
	endpoints := "--etcd-endpoints=" + strings.Join(l.Etcd().Endpoints(), ",")
	setup := func(args ...string) (string, error) {
		return selvaged(ctx, t, n, append([]string{"setup", "--env-file=" + env, "--wait=10s", "--cni-bin-dir=" + cni,
			"--cni-conf-dir=" + cni, "--reference-plugins=" + plugins}, args...)...)
	}
	fails := func(want string, args ...string) {
		t.Helper()
		if out, err := setup(args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("setup %v: %v, %s\nwant %q in it", args, err, out, want)
		}
		inNode(func() error {
			if _, err := os.Stat(env); err == nil {
				t.Errorf("setup %v failed, and has changed the environment file", args)
			}
			return nil
		})
	}
	fails("the unit selvaged.service is not installed", endpoints)
	touch("installed")
	calls()
	fails("name another one with --etcd-endpoints", "--etcd-endpoints=http://127.0.0.1:9")
	fails("give one, such as --network=10.244.0.0/16", endpoints, "--etcd-prefix=/other")
	fails("etcd has a network config without 10.9.0.0/16", endpoints, "--network=10.9.0.0/16")
	fails("10.9.0.0/99", endpoints, "--etcd-prefix=/other", "--network=10.9.0.0/99")
	if got := calls(); strings.Contains(got, "start") {
		t.Errorf("after failures, systemctl was called with %s", got)
	}

	has := func(out string, err error, want ...string) {
		t.Helper()
		for _, w := range want {
			if err != nil || !strings.Contains(out, w) {
				t.Errorf("got %v:\n%s\nwant %q in it", err, out, w)
			}
		}
	}
	out, err := setup(endpoints, "--iface=eth0")
	has(out, err, "network config: /coreos.com/network/config has {",
		"flags: set SELVAGED_ETCD_ENDPOINTS, SELVAGED_IFACE in "+env,
		"daemon: started, enabled at boot; ready with subnet 10.5.", "among 1 nodes", cni+"/selvage", "set up: ")
	if got, want := calls(), "cat selvaged.service; enable selvaged.service; is-active --quiet selvaged.service; "+
		"start selvaged.service"; got != want {
		t.Errorf("systemctl was called with %s, want %s", got, want)
	}
	inNode(func() error {
		content, err := os.ReadFile(env)
		want := "SELVAGED_ETCD_ENDPOINTS=" + l.Etcd().Endpoints()[0] + "\nSELVAGED_IFACE=eth0\n"
		if string(content) != want {
			t.Errorf("the environment file is %q, %v; want %q", content, err, want)
		}
		info, err := os.Stat(env)
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("others may read the environment file: %s", info.Mode())
		}
		return err
	})

	touch("running")
	out, err = setup() // the endpoints are those of the file now
	has(out, err, "flags: "+env+" has them already", "daemon: ran already", cni+"/10-selvage.conflist is up to date")
	if got := calls(); !strings.HasSuffix(got, "; start selvaged.service") {
		t.Errorf("with the same flags, systemctl was called with %s", got)
	}
	touch("slow") // systemctl waits for what does not come
	out, err = setup("--wait=1s", "--no-cni")
	has(out, err, "ready with subnet 10.5.")

	out, err = setup("--etcd-prefix=/other", "--network=10.9.0.0/16", "--backend=host-gw", "--no-cni")
	has(out, err, `network config: {"Network":"10.9.0.0/16","Backend":{"Type":"host-gw"}}`, "set /other/config",
		"flags: set SELVAGED_ETCD_PREFIX in", "daemon: restarted")
	if got, err := l.Etcd().Client().Get(ctx, "/other/config"); err != nil || len(got.Kvs) != 1 {
		t.Errorf("the network config in etcd: %v, %v", got, err)
	}
}
