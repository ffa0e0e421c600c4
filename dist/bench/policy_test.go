package bench

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPolicy measures a small cluster, with real daemons.
func TestPolicy(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := Run(t.Context(), Options{
		Bin: bin, Only: []string{"policy"}, Rounds: 1, PolicyPods: 500, Policies: 100, PolicyChanges: 2, PolicyTurns: 1,
		PolicyTurn: 10 * time.Millisecond, Rest: time.Millisecond, Log: &log,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	found := map[string]*Figure{}
	for _, f := range r.Figures {
		if strings.ContainsAny(f.Name, " \t") || found[f.Name] != nil {
			t.Errorf("%q is there twice, or has a space in it", f.Name)
		}
		found[f.Name] = f
	}
	for _, name := range []string{
		"PolicyChange/change=pod-added/pods=50/policies=10/p50", "PolicyChange/change=policy-removed/pods=500/policies=100/p99",
		"PolicyMemoryRest/pods=500/policies=100",
	} {
		if f := found[name]; f == nil || f.Value <= 0 {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for name, judged := range map[string]bool{
		"PolicyConnect/policies=0/selecting=0/where=one-node":            false,
		"PolicyConnect/policies=100/selecting=100/where=two-nodes":       false,
		"PolicyRoundTrip/policies=10/selecting=10/where=one-node":        false,
		"PolicyThroughput/policies=100/selecting=0/where=two-nodes":      false,
		"PolicyConnectPart/policies=100/selecting=0/where=one-node":      true,
		"PolicyThroughputPart/policies=100/selecting=100/where=one-node": true,
		"PolicyChangeGrowth/change=own-pod-added/pods=500/policies=100":  true,
	} {
		f := found[name]
		if f == nil || f.Value <= 0 || (f.Reached != nil) != judged {
			t.Errorf("%s: %+v", name, f)
			continue
		}
		if strings.Contains(name, "/where=") && !judged && (f.Floor.Value <= 0 || f.Peer.Value <= 0 || len(f.Bare.Ratios) != 1) {
			t.Errorf("%s: beside it %+v, %+v, %+v", name, f.Floor, f.Peer, f.Bare)
		}
	}
	var picture bytes.Buffer
	if err := r.Picture(&picture); err != nil || !strings.Contains(picture.String(), "kube-router") || len(r.Policies) != 12 {
		t.Errorf("the picture: %v, %d bytes of %d points", err, picture.Len(), len(r.Policies))
	}
}

// TestKubeRouter: the rules allow what the policies allow, and nothing else.
func TestKubeRouter(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Options: Options{Bin: bin, Policies: 10, Log: t.Output()}, report: &Report{}}
	p := &policyPaths{bench: b}
	if p.lab, err = b.policyLab(t.Context(), farNode+1); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := p.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := policySetting{}
	for _, s := range []policySetting{{0, 0}, {10, 0}, {10, 1}, {10, 10}, {10, 3}} {
		if err := p.set(t.Context(), before, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		before = s
		for _, number := range []int{bySelvage, byKubeRouter} {
			n := p.nodes[number]
			for _, run := range []func([]way, time.Duration) ([][]float64, error){connects, datagrams, transfers} {
				for i := range n.ways { // to one server, which has one port
					if _, err := run(n.ways[i:i+1], time.Millisecond); err != nil {
						t.Errorf("%s: %v", s, err)
					}
				}
			}
			// Another port of the server, and another client.
			other := way{name: n.what, from: p.nodes[(number+1)%2].ways[0].from, to: n.ways[0].to}
			for _, x := range []struct {
				what string
				from way
				port int
			}{{"port", n.ways[0], testPort + 1}, {"client", other, testPort}} {
				if passes := x.from.passes(t, x.port); passes != (s.selecting == 0) {
					t.Errorf("%s, %s: a connection from another %s passes: %t", s, n.what, x.what, passes)
				}
			}
		}
	}
}

// passes reports whether a datagram arrives, or an error in the place of an answer.
func (w way) passes(t *testing.T, port int) (passes bool) {
	t.Helper()
	far, err := w.to.bound("udp", port)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(far)
	err = w.from.do(func() error {
		near, err := newSocket(w.from.addr, "udp")
		if err != nil {
			return err
		}
		defer unix.Close(near)
		if err := unix.Connect(near, socketAddressWith(w.to.addr, port)); err != nil {
			return err
		}
		if _, err := unix.Write(near, []byte("x")); err != nil {
			return err
		}
		ends := []unix.PollFd{{Fd: int32(far), Events: unix.POLLIN}, {Fd: int32(near)}} // and errors
		for n := 0; n == 0; {
			if n, err = unix.Poll(ends, int(patience.Milliseconds())); n == 0 && err == nil {
				return unix.ETIMEDOUT
			}
		}
		passes = ends[0].Revents != 0
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return passes
}

func TestKubeRouterRules(t *testing.T) {
	a := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 5, 2, last}) }
	k := kubeRouter{pods: []netip.Addr{a(2), a(3)}, port: 80, policies: []ingressPolicy{
		{name: "one", subjects: []netip.Addr{a(2)}, peers: []netip.Addr{a(3), a(9)}},
		{name: "two", subjects: []netip.Addr{a(2)}},
	}}
	rules := k.rules()
	for what, want := range map[string]int{
		"\n:": 7, "-A KUBE-ROUTER-FORWARD ": 9, "-j KUBE-NWPLCY-DEFAULT": 3, "-A " + k.podChain(a(2)) + " ": 9,
	} {
		if got := strings.Count(rules, what); got != want {
			t.Errorf("%q is there %d times, want %d:\n%s", what, got, want, rules)
		}
	}
	if sets := k.sets(); strings.Count(sets, "create ") != 4 || strings.Count(sets, "add ") != 4 {
		t.Errorf("sets:\n%s", sets)
	}
}

// TestRuleListener finds what it waits for in the messages, and nothing else.
func TestRuleListener(t *testing.T) {
	message := func(subsystem, kind uint16, text string) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(text)))
		b = binary.NativeEndian.AppendUint16(b, subsystem<<8|kind)
		b = append(b, make([]byte, unix.SizeofNlMsghdr-len(b))...)
		b = append(b, text...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	const subsystem, rule, chain = unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_NEWCHAIN
	for _, x := range []struct {
		what  string
		b     []byte
		found bool
	}{
		{"the message", message(subsystem, rule, "of ns/this one"), true},
		{"after others", slices.Concat(message(subsystem, chain, "x"), message(subsystem, rule, "ns/this")), true},
		{"another type", message(subsystem, chain, "ns/this"), false},
		{"another subsystem", message(subsystem+1, rule, "ns/this"), false},
		{"another text", message(subsystem, rule, "ns/other"), false},
		{"half of it", message(subsystem, rule, "ns/this")[:20], false},
	} {
		l := &ruleListener{}
		heard := l.expect([]byte("ns/this"), rule)
		l.take(x.b, time.Now())
		if found := len(heard) == 1; found != x.found {
			t.Errorf("%s: found is %t", x.what, found)
		}
	}
}
