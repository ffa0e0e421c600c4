package enforce

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/conntrack"
	"github.com/selvage-net/selvage/network/policy"
)

// udp returns a packet between the pods at two ports of the bridge, with its ports, in a family.
func udp(from, to int, source, port uint16, six bool) probe {
	return probe{source: source, Packet: policy.Packet{Source: podAddress(from, six), Destination: podAddress(to, six),
		Protocol: policy.UDP, Port: port}}
}

// connections returns the entries of addresses as "source destination".
func connections(t *testing.T, list ...netip.Addr) (all []string) {
	t.Helper()
	conn, err := conntrack.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	addresses := map[netip.Addr]bool{}
	for _, a := range list {
		addresses[a] = true
	}
	flows, err := conn.OfAny(addresses)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		all = append(all, fmt.Sprint(f.Source, " ", f.Destination))
	}
	slices.Sort(all)
	return all
}

// TestCut: a change of a policy ends the connections that it denies, in both directions, and no other.
func TestCut(t *testing.T) {
	l := newLab(t)
	var left atomic.Int32 // connections, when the engine last said that it has decided something
	e, stop := start(t, Options{Decided: func() {
		conn, err := conntrack.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		flows, err := conn.OfAny(map[netip.Addr]bool{podAddress(0, false): true, podAddress(0, true): true})
		if err != nil {
			t.Error(err)
		}
		left.Store(int32(len(flows)))
	}})
	allow := func(ports string) func(policy.Objects) {
		return func(to policy.Objects) {
			to.SetNamespace(policy.Namespace{Name: "red"})
			to.SetPod(podAt(0, "web"))
			to.SetPod(podAt(1, "client"))
			to.SetPolicy(decode(t, "web", `{"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
				"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [`+ports+`]}]}`))
		}
	}
	both, one := `{"protocol": "UDP", "port": 80}, {"protocol": "UDP", "port": 81}`, `{"protocol": "UDP", "port": 81}`
	apply(t, e, allow(both))
	exchange := func(want bool, port uint16) {
		t.Helper()
		for _, six := range []bool{false, true} {
			request, answer := udp(1, 0, 4000, port, six), udp(0, 1, port, 4000, six)
			// The answer first: it must not begin a connection either, on which the request is an answer.
			if got := l.send([]probe{request, answer, request}); got[0] != want || got[1] != want || got[2] != want {
				t.Errorf("port %d, IPv6: %t: %t, want %t", port, six, got, want)
			}
		}
	}
	exchange(true, 80)
	exchange(true, 81)
	// The node's own connections are not judged.
	kubelet, err := net.Dial("udp", netip.AddrPortFrom(podAddress(0, false), 80).String())
	l.must(err)
	defer kubelet.Close()
	_, err = kubelet.Write([]byte("probe"))
	l.must(err)
	before := connections(t, podAddress(0, false), podAddress(0, true))
	if len(before) != 5 {
		t.Fatalf("connections: %q", before)
	}

	apply(t, e, allow(one))
	await(t, e, "two cut connections", func() bool { return e.cutCount == 2 })
	after := connections(t, podAddress(0, false), podAddress(0, true))
	want := slices.DeleteFunc(slices.Clone(before), func(c string) bool {
		return c == "10.0.0.2:4000 10.0.0.1:80" || c == "[fd00::2]:4000 [fd00::1]:80"
	})
	if len(want) != 3 || !slices.Equal(after, want) {
		t.Errorf("connections: %q, want %q", after, want)
	}
	if n := left.Load(); n != 3 {
		t.Errorf("the engine last said that it has decided something when there were %d connections, want 3", n)
	}
	for _, six := range []bool{false, true} {
		if got := l.send([]probe{udp(0, 1, 80, 4000, six)}); got[0] {
			t.Error("an answer on a connection that was cut passes")
		}
	}
	exchange(false, 80)
	exchange(true, 81)
	if got := l.send([]probe{udp(0, 1, 80, 4001, false)}); !got[0] {
		t.Error("a connection of the server with other ports does not pass")
	}

	stop()
	exchange(false, 80)
	e, _ = start(t, Options{})
	apply(t, e, allow(one))
	exchange(false, 80)
	apply(t, e, allow(both))
	exchange(true, 80)
	if len(e.cuts) != 0 {
		t.Errorf("cut: %v", e.cuts)
	}
}

// TestBypassed: a connection that began while packets between pods of the node passed unjudged is cut, also if the
// first packet that is seen afterwards is an answer, and one that a server began itself is not.
func TestBypassed(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, webAndClient(t))
	bridged := func(value string) {
		l.must(write(map[string]string{"bridge/bridge-nf-call-iptables": value, "bridge/bridge-nf-call-ip6tables": value}))
	}
	const client, service = 40000, 81
	var requests, answers []probe
	for _, six := range []bool{false, true} {
		requests = append(requests, udp(1, 0, client, service, six))
		answers = append(answers, udp(0, 1, service, client, six))
	}
	own := []probe{udp(0, 1, client, service, false), udp(1, 0, service, client, false)}
	all := func(want bool, lists ...[]probe) {
		t.Helper()
		for _, list := range lists {
			for i, arrived := range l.send(list) {
				if arrived != want {
					t.Errorf("%+v arrived: %t, want %t", list[i].Packet, arrived, want)
				}
			}
		}
	}
	bridged("0")
	all(true, requests, answers)
	bridged("1")
	all(true, answers, requests, own)
	e.Bypassed()
	await(t, e, "two cut connections", func() bool { return e.cutCount == 2 })
	all(false, answers, requests)
	all(true, own)
}

// TestTolerated: an allowed TCP connection that may have gone on untracked is made liberal, also if none are cut, and
// not without a bypass.
func TestTolerated(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			l := newLab(t)
			e, _ := start(t, Options{KeepConnections: keep})
			apply(t, e, webAndClient(t))
			l.send([]probe{tcp(1, 0, 80)})
			conn, err := conntrack.Dial()
			l.must(err)
			defer conn.Close()
			liberal := func() bool {
				t.Helper()
				flows, err := conn.OfAny(map[netip.Addr]bool{podAddress(0, false): true, podAddress(1, false): true})
				if err != nil || len(flows) != 1 {
					t.Fatalf("connections %+v, %v; want one", flows, err)
				}
				return flows[0].Liberal
			}
			if liberal() {
				t.Error("a connection is liberal without a bypass")
			}
			e.Bypassed()
			for limit := time.Now().Add(patient); !liberal(); time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatal("the connection is not made liberal")
				}
			}
		})
	}
}

// TestKeep keeps connections, if that is the option.
func TestKeep(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{KeepConnections: true})
	apply(t, e, func(to policy.Objects) {
		to.SetNamespace(policy.Namespace{Name: "red"})
		to.SetPod(podAt(0, "web"))
		to.SetPod(podAt(5, "other"))
		// The kernel tracks connections while a rule needs it.
		to.SetPolicy(decode(t, "other", `{"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress"]}`))
	})
	request, answer := udp(1, 0, 4000, 80, false), udp(0, 1, 80, 4000, false)
	l.send([]probe{request, answer})
	apply(t, e, func(to policy.Objects) { to.SetPolicy(decode(t, "deny", denyAll)) })
	if got := l.send([]probe{request, answer, udp(1, 0, 4001, 80, false)}); !got[0] || !got[1] || got[2] {
		t.Errorf("two packets of a connection and one of a new one: %t", got)
	}
}
