package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/doctor"
)

// Where a node's container runtime looks, in the lab: each node has a /run of its own.
const (
	cniConfs = "/run/cni/net.d"
	cniBins  = "/run/cni/bin"
	conflist = cniConfs + "/10-selvage.conflist"
)

// patient is a node with a doctor.
type patient struct {
	*lab.Node
	t *testing.T
	l *lab.Lab
}

// admit puts on a node what an installation has.
func admit(t *testing.T, l *lab.Lab, n *lab.Node) *patient {
	t.Helper()
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{n, t, l}
	p.must(n.Do(func() error {
		err := errors.Join(os.MkdirAll(cniConfs, 0o755), os.MkdirAll(cniBins, 0o755), os.WriteFile(conflist, []byte(lab.DefaultCNI), 0o644))
		for from, to := range map[string]string{"selvage": "selvage", "cni/bridge": "bridge", "cni/host-local": "host-local", "cni/portmap": "portmap"} {
			err = errors.Join(err, os.Symlink(filepath.Join(dir, from), filepath.Join(cniBins, to)))
		}
		return err
	}))
	return p
}

func (p *patient) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// run runs a program on the node.
func (p *patient) run(args ...string) {
	p.t.Helper()
	_, err := p.Output(context.WithoutCancel(p.t.Context()), args...)
	p.must(err)
}

// examine has the node examined. The exit code is to be what the report says.
func (p *patient) examine(ctx context.Context, args ...string) (r doctor.Report) {
	p.t.Helper()
	dir, err := filepath.Abs(bin)
	p.must(err)
	argv := append([]string{filepath.Join(dir, "selvaged"), "doctor", "-o", "json", "--cni-conf-dir", cniConfs, "--cni-bin-dir", cniBins}, args...)
	var out, problems bytes.Buffer
	err = p.Exec(ctx, argv, lab.Stdio{Out: &out, Err: &problems})
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		p.must(err)
	}
	if e := json.Unmarshal(out.Bytes(), &r); e != nil || code != map[doctor.Level]int{doctor.Pass: 0, doctor.Failure: 2, doctor.Warning: 3}[r.Result] {
		p.t.Fatalf("exit code %d, %v, %s\n%s", code, e, problems.String(), out.String())
	}
	if problems.Len() > 0 {
		p.t.Errorf("it printed %q where there is no terminal", problems.String())
	}
	return r
}

// cannot has the node examined in a way that cannot be done.
func (p *patient) cannot(says string, args ...string) {
	p.t.Helper()
	dir, err := filepath.Abs(bin)
	p.must(err)
	var problems bytes.Buffer
	err = p.Exec(p.t.Context(), append([]string{filepath.Join(dir, "selvaged"), "doctor"}, args...), lab.Stdio{Err: &problems})
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(problems.String(), says) {
		p.t.Errorf("%q: %v, %q, want exit code 1 and %q", args, err, problems.String(), says)
	}
}

// in runs something in the node's namespaces.
func (p *patient) in(fn func() error) {
	p.t.Helper()
	p.must(p.Do(fn))
}

func (p *patient) write(path, content string) {
	p.t.Helper()
	p.in(func() error { return os.WriteFile(path, []byte(content), 0o644) })
}

func (p *patient) remove(path string) { p.t.Helper(); p.in(func() error { return os.Remove(path) }) }

func (p *patient) stop() {
	p.t.Helper()
	p.must(p.Stop(testctx.New(p.t)))
}

func (p *patient) start() {
	p.t.Helper()
	ctx := testctx.New(p.t)
	p.must(errors.Join(p.Start(), p.WaitReady(ctx)))
}

// link changes an interface.
func (p *patient) link(name string, change func(netlink.Link) error) {
	p.t.Helper()
	p.in(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return change(l)
	})
}

// bridge adds a bridge with addresses.
func (p *patient) bridge(name string, addrs ...string) {
	p.t.Helper()
	p.in(func() error {
		l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		err := netlink.LinkAdd(l)
		for _, a := range addrs {
			err = errors.Join(err, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a))}))
		}
		return errors.Join(err, netlink.LinkSetUp(l))
	})
}

func (p *patient) unlink(name string) { p.t.Helper(); p.link(name, netlink.LinkDel) }

// put and del write to etcd.
func (p *patient) put(key, value string) {
	p.t.Helper()
	_, err := p.l.Etcd().Client().Put(p.t.Context(), key, value)
	p.must(err)
}

func (p *patient) del(keys ...string) {
	p.t.Helper()
	for _, k := range keys {
		_, err := p.l.Etcd().Client().Delete(p.t.Context(), k)
		p.must(err)
	}
}

// lease puts the lease of a node that there is not.
func (p *patient) lease(key, publicIP, mac string) {
	p.t.Helper()
	p.put(subnetsPrefix+key, fmt.Sprintf(`{"PublicIP":%q,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":%q}}`, publicIP, mac))
}
