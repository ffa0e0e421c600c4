package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// policySocket is the daemon's on a node. Its path is of these tests alone: a listener that is closed removes the file in
// the namespace of the one that closes it.
const policySocket = "/run/selvage/attach-test.sock"

// engine stands in for what enforces network policies. Its Attach does what it is told to.
type engine struct {
	attach   func(context.Context, api.Attachment) error
	isolated chan api.Attachment
	detached chan api.Attachment
}

func newEngine() *engine {
	return &engine{isolated: make(chan api.Attachment, 9), detached: make(chan api.Attachment, 9)}
}

func (e *engine) Attach(ctx context.Context, a api.Attachment) error { return e.attach(ctx, a) }
func (e *engine) Isolate(a api.Attachment) error                     { e.isolated <- a; return nil }
func (e *engine) Detach(a api.Attachment)                            { e.detached <- a }

// source is the daemon's other side, which nothing asks here.
type source struct{ api.Source }

// enforcing starts a daemon's server on a host, in front of e. It ends with the test, or when stop is called.
func enforcing(t testing.TB, host *sandbox.Host, e *engine) (stop func()) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	var s *api.Server
	err := host.Do(func() (err error) {
		s, err = api.Listen(api.Options{Socket: policySocket, Log: log, Attacher: e})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, source{}) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// policies is the status of a daemon that enforces them.
func policies() subnetfile.Status {
	return subnetfile.Status{Usable: true, PolicySocket: policySocket}
}

// newPoliced returns a node whose status file says that network policies are in force, and the ADD of a pod.
func newPoliced(t *testing.T, bin, options string) (*node, *libcni.RuntimeConf) {
	t.Helper()
	file := ipv4File()
	file.Networks[subnet.IPv6] = []netip.Prefix{netip.MustParsePrefix("fd00:5::/56")}
	file.Subnets[subnet.IPv6] = netip.MustParsePrefix("fd00:5:0:1d::1/64")
	n := newNode(t, bin, "1.0.0", "selvage", file)
	var err error
	n.list, err = libcni.NetworkConfFromBytes(fmt.Appendf(nil,
		`{"cniVersion":"1.0.0","name":"cbr0","plugins":[{"type":"selvage","delegate":{"isDefaultGateway":true}%s}]}`, options))
	if err != nil {
		t.Fatal(err)
	}
	n.do(func() error { return subnetfile.WriteStatus(subnetFile, policies()) })
	rt := attach(n.pod(), "eth0")
	rt.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "prod"}, {"K8S_POD_NAME", "db-0"},
		{"K8S_POD_INFRA_CONTAINER_ID", "c1"}, {"K8S_POD_UID", "u1"}}
	return n, rt
}

// addErr returns what ADD says.
func (n *node) addErr(rt *libcni.RuntimeConf) error {
	return n.host.Do(func() error {
		_, err := n.cni.AddNetworkList(n.Context(), n.list, rt)
		return err
	})
}

// wantNoPod fails unless the pod's ADD was undone.
func (n *node) wantNoPod(err error, says string) {
	n.Helper()
	e, ok := errors.AsType[*types.Error](err)
	if !ok || e.Code != types.ErrTryAgainLater || !strings.Contains(e.Error(), says) {
		n.Errorf("ADD: %v, want code %d, and that it says %q", err, types.ErrTryAgainLater, says)
	}
	n.wantAddresses()
	n.wantState()
	n.wantVeths(0)
}

func testPolicies(t *testing.T, bin string) {
	t.Run("in force", func(t *testing.T) { testPoliciesInForce(t, bin) })
	t.Run("isolated", func(t *testing.T) { testPoliciesTooLate(t, bin, "isolate") })
	t.Run("fail", func(t *testing.T) { testPoliciesTooLate(t, bin, "fail") })
	t.Run("no daemon", func(t *testing.T) { testPoliciesNoDaemon(t, bin) })
	t.Run("none", func(t *testing.T) { testNoPolicies(t, bin) })
}

// testPoliciesInForce: the rules can be made of what ADD reports, and ADD returns after them.
func testPoliciesInForce(t *testing.T, bin string) {
	n, rt := newPoliced(t, bin, `,"policyWait":60`)
	e := newEngine()
	var returned atomic.Bool
	e.attach = func(_ context.Context, a api.Attachment) error {
		want := api.Attachment{UID: "u1", Namespace: "prod", Name: "db-0", ContainerID: "c1", Interface: a.Interface,
			Addresses: [2]netip.Addr{netip.MustParseAddr("10.5.29.2"), netip.MustParseAddr("fd00:5:0:1d::2")}}
		if a != want || returned.Load() {
			t.Errorf("reported is %+v, want %+v, before ADD returns (it has: %t)", a, want, returned.Load())
		}
		return n.host.Do(func() error { // it is a port of the bridge already
			link, err := netlink.LinkByName(a.Interface)
			if err != nil {
				return err
			}
			if link.Type() != "veth" || link.Attrs().MasterIndex == 0 {
				return fmt.Errorf("%s is a %s of %d", a.Interface, link.Type(), link.Attrs().MasterIndex)
			}
			return nil
		})
	}
	enforcing(t, n.host, e)
	n.add(rt)
	returned.Store(true)
	n.del(rt)
	if got, want := <-e.detached, (api.Attachment{UID: "u1", Namespace: "prod", Name: "db-0", ContainerID: "c1"}); got != want {
		t.Errorf("the end of %+v was reported, want %+v", got, want)
	}
	n.del(rt)
	n.wantAddresses()
	n.wantVeths(0)
	n.quiet()
	if len(e.detached) > 0 {
		t.Error("the end was reported twice")
	}
}

// testPoliciesTooLate: the rules are not in force in time.
func testPoliciesTooLate(t *testing.T, bin, failure string) {
	n, rt := newPoliced(t, bin, `,"policyWait":0.05,"policyFailure":"`+failure+`"`)
	e := newEngine()
	e.attach = func(ctx context.Context, a api.Attachment) error {
		<-ctx.Done()
		return fmt.Errorf("no pod %s/%s in the API: %w", a.Namespace, a.Name, ctx.Err())
	}
	enforcing(t, n.host, e)
	if failure == "isolate" {
		n.add(rt)
		n.wantVeths(1)
		if a := <-e.isolated; a.Name != "db-0" || a.Interface == "" {
			t.Errorf("isolated is %+v", a)
		}
		if got := n.stderr.String(); !strings.Contains(got, "the pod is isolated until its network policies are in force") {
			t.Errorf("on stderr: %s", got)
		}
		return
	}
	n.wantNoPod(n.addErr(rt), "no pod prod/db-0 in the API")
	<-e.detached
	if len(e.isolated) > 0 {
		t.Error("a pod that was removed is isolated")
	}
	n.quiet()
}

// testPoliciesNoDaemon: without the daemon, no pod starts that its policies would not hold for; with it again, it does.
func testPoliciesNoDaemon(t *testing.T, bin string) {
	n, rt := newPoliced(t, bin, `,"policyWait":0.05`)
	n.wantNoPod(n.addErr(rt), "no process listens on "+policySocket)
	e := newEngine()
	e.attach = func(context.Context, api.Attachment) error { return nil }
	enforcing(t, n.host, e)() // its socket is left behind, as when it is killed
	n.wantNoPod(n.addErr(rt), "no process listens on "+policySocket)

	n.list, _ = libcni.NetworkConfFromBytes([]byte(strings.ReplaceAll(string(n.list.Bytes), "0.05", "60")))
	added := make(chan error, 1)
	go func() { added <- n.addErr(rt) }()
	enforcing(t, n.host, e)
	if err := <-added; err != nil {
		t.Error(err)
	}
	n.wantVeths(1)
	n.del(rt)
	<-e.detached
	n.quiet()
}

// testNoPolicies: without the word in the status file, no daemon is asked.
func testNoPolicies(t *testing.T, bin string) {
	n, rt := newPoliced(t, bin, "")
	e := newEngine()
	e.attach = func(_ context.Context, a api.Attachment) error {
		t.Errorf("%+v was reported", a)
		return nil
	}
	stop := enforcing(t, n.host, e)
	for _, s := range []subnetfile.Status{{Usable: true}, {Reason: "no lease"}} {
		n.do(func() error { return subnetfile.WriteStatus(subnetFile, s) })
		n.add(rt)
		n.del(rt)
	}
	stop()
	if len(e.detached) > 0 {
		t.Error("an end was reported")
	}
	n.quiet()
}
