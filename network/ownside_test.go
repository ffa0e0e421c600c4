package network

import (
	"slices"
	"testing"
	"time"
)

// TestSeen: what a desired bridge or port leaves open is not compared; all else is.
func TestSeen(t *testing.T) {
	actual := Bridge{Kind: KindBridge, MTU: 1400, Up: true, Promisc: true}
	for _, tt := range []struct {
		what    string
		desired Bridge
		same    bool
	}{
		{"any MTU, promiscuous or not", Bridge{Kind: KindBridge, Up: true}, true},
		{"its own values", actual, true},
		{"with or without VLANs", Bridge{Kind: KindBridge, Up: true, VLANFiltering: true}, true},
		{"another MTU", Bridge{Kind: KindBridge, MTU: 1450, Up: true}, false},
		{"down", Bridge{Kind: KindBridge}, false},
	} {
		if same := tt.desired.Seen(actual) == tt.desired; same != tt.same {
			t.Errorf("bridge, %s: in sync %t, want %t", tt.what, same, tt.same)
		}
	}
	if desired := (Bridge{Kind: KindBridge, Up: true, Promisc: true}); desired.Seen(Bridge{Kind: KindBridge, Up: true}) == desired {
		t.Error("a bridge that is not promiscuous is one that has to be")
	}
	for _, tt := range []struct {
		what            string
		desired, actual Port
		same            bool
	}{
		{"any MTU", Port{Up: true}, Port{Up: true, MTU: 1400}, true},
		{"another MTU", Port{Up: true, MTU: 1450}, Port{Up: true, MTU: 1400}, false},
		{"the ARP of a bridge's port", Port{Master: "cni0", Up: true}, Port{Master: "cni0", Up: true, NoARP: true}, true},
		{"the ARP of a device without a bridge", Port{Up: true}, Port{Up: true, NoARP: true}, false},
		{"no bridge", Port{Master: "cni0", Up: true}, Port{Up: true}, false},
	} {
		if same := tt.desired.Seen(tt.actual) == tt.desired; same != tt.same {
			t.Errorf("port, %s: in sync %t, want %t", tt.what, same, tt.same)
		}
	}
}

// TestOwnSide: a pods' bridge comes before its settings and its routes, is repaired while it is desired, whatever name
// it has been given, and stays when it is not desired any more.
func TestOwnSide(t *testing.T) {
	r, kernel := newReconciler()
	const setting = "net/ipv4/conf/cni0/forwarding"
	var calls []string
	renamedFrom, refuse := "", true
	r.Tables.ApplyBridges(func(name string, c Change[Bridge]) (LinkEffects, error) {
		calls = append(calls, "bridge "+name)
		if refuse {
			return LinkEffects{}, errRefused
		}
		return LinkEffects{RenamedFrom: renamedFrom}, nil
	})
	r.Tables.Ports.ApplyEach(func(name string, c Change[Port]) error { calls = append(calls, "port "+name); return nil })
	r.Tables.Sysctls.ApplyEach(func(path string, _ Change[Sysctl]) error { calls = append(calls, path); return nil })
	desired := State{
		Bridges: []Item[string, Bridge]{{"cni0", Bridge{Kind: KindBridge, Up: true}}},
		Ports:   []Item[string, Port]{{"veth1", Port{Master: "cni0", Up: true}}},
		Sysctls: []Item[string, Sysctl]{{setting, "1"}},
	}
	now := start
	expect := func(what string, want ...string) {
		t.Helper()
		calls = nil
		now = now.Add(time.Minute)
		r.Pass(now)
		if !slices.Equal(calls, want) {
			t.Errorf("%s: %q, want %q", what, calls, want)
		}
	}
	r.Tables.Replace(self, State{}, desired)
	expect("the bridge cannot be made", "bridge cni0")
	refuse = false
	expect("it can", "bridge cni0", "port veth1", setting)
	if !r.Tables.Tends("cni0") || !r.Tables.Tends("veth1") || r.Tables.Tends(device) {
		t.Error("tends other devices than those that are desired")
	}

	r.Tables.LinkGone("cni0")
	r.Tables.Links.Observe("br9", Link{Kind: KindBridge})
	r.Tables.Routes.Observe(RouteKey{Prefix: prefix("192.0.2.0/24")}, Route{Link: "br9"})
	renamedFrom = "br9"
	expect("it has another name", "bridge cni0", "port veth1")
	if r.Tables.Links.Get("br9").Present || r.Tables.CarriesRoutes("br9") {
		t.Error("what was on the bridge under its other name is taken to be there still")
	}

	r.Tables.Ports.Observe("veth1", Port{Master: "cni0"})
	expect("a port is down", "port veth1")
	r.Tables.Replace(self, desired, State{})
	expect("nothing is desired")
	if got := r.Tables.Unwanted(); len(got) != 0 {
		t.Errorf("to be removed: %q", got)
	}
	if len(kernel.links) != 0 {
		t.Errorf("devices of ours: %v", kernel.links)
	}
}

func TestSettingDevice(t *testing.T) {
	for path, want := range map[string]string{
		"net/ipv4/conf/cni0/forwarding":          "cni0",
		"net/ipv6/conf/eth0.7/disable_ipv6":      "eth0.7",
		"net/ipv4/ip_forward":                    "",
		"net/bridge/bridge-nf-call-iptables":     "",
		"net/ipv4/neigh/cni0/gc_stale_time":      "",
		"net/netfilter/nf_conntrack_tcp_loose":   "",
		"net/ipv4/conf/cni0/forwarding/whatever": "",
	} {
		if got := SettingDevice(path); got != want {
			t.Errorf("SettingDevice(%q) = %q, want %q", path, got, want)
		}
	}
}
