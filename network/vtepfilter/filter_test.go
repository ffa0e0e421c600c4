package vtepfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/subnet"
)

// TestInput sends to the node.
func TestInput(t *testing.T) {
	l := newLab(t)
	for _, a := range bothFamilies() {
		c := config()
		// What is allowed does not let pods in.
		c.Allow = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("%s/%d", a.allowed, a.bits)), netip.MustParsePrefix(a.wider)}
		l.ensure(c, peers())
		l.test(
			test{a.family + ", a peer", packet{ns: l.outside, from: a.peer, to: a.node, port: port}, arrives},
			test{a.family + ", a stranger", packet{ns: l.outside, from: a.stranger, to: a.node, port: port}, stranger},
			test{a.family + ", a stranger to another port", packet{ns: l.outside, from: a.stranger, to: a.node, port: otherPort}, arrives},
			test{a.family + ", allowed", packet{ns: l.outside, from: a.allowed, to: a.node, port: port}, arrives},
			test{a.family + ", the node itself", packet{ns: l.node, from: a.node, to: a.node, port: port}, arrives},
			test{a.family + ", a pod", packet{ns: l.pod, from: a.pod, to: a.node, port: port}, stranger},
			test{a.family + ", a pod to the node's address in the overlay", packet{ns: l.pod, from: a.pod, to: a.gateway, port: port}, stranger},
			test{a.family + ", a pod with a peer's address", packet{ns: l.pod, from: a.forged, to: a.node, port: port}, stranger},
			test{a.family + ", a pod to another port", packet{ns: l.pod, from: a.pod, to: a.node, port: otherPort}, arrives},
		)
		c.Devices = nil
		l.ensure(c, peers())
		l.test(test{a.family + ", a pod, by its address alone", packet{ns: l.pod, from: a.pod, to: a.node, port: port}, stranger})
	}
}

// TestForward sends through the node, whose rules for forwarding and masquerading are in place.
func TestForward(t *testing.T) {
	l := newLab(t)
	l.do(l.node, func() error {
		_, err := filter.New(subnet.IPv4, subnet.IPv6).Ensure(t.Context(), filter.Policy{Networks: config().Networks, Forward: true, Masquerade: true})
		return err
	})
	l.ensure(config(), peers())
	for _, a := range bothFamilies() {
		l.test(
			test{a.family + ", a pod to another node", packet{ns: l.pod, from: a.pod, to: a.peer, port: port}, aPods},
			test{a.family + ", a pod to another node's other address", packet{ns: l.pod, from: a.pod, to: a.stranger, port: port}, aPods},
			test{a.family + ", a pod with another node's address", packet{ns: l.pod, from: a.forged, to: a.stranger, port: port}, aPods},
			test{a.family + ", a pod with an address of nobody's", packet{ns: l.pod, from: a.behind, to: a.peer, port: port}, aPods},
			test{a.family + ", a pod to a pod", packet{ns: l.pod, from: a.pod, to: a.remotePod, port: port}, arrives},
			test{a.family + ", another node's pod to a pod", packet{ns: l.outside, from: a.remotePod, to: a.pod, port: port}, arrives},
			test{a.family + ", routed for a peer", packet{ns: l.outside, from: a.peer, to: a.behind, port: port}, arrives},
			test{a.family + ", routed for others", packet{ns: l.outside, from: a.stranger, to: a.behind, port: port}, arrives},
		)
		// What may pass is masqueraded, and just so would what may not.
		got, from := l.send(packet{ns: l.pod, from: a.pod, to: a.peer, port: otherPort})
		if want := netip.MustParseAddr(a.node); got != arrives || from != want {
			t.Errorf("%s, a pod to another port: %s, from %s, want from %s", a.family, got, from, want)
		}
	}
	l.whole()
}

// TestUnderlayInNetwork has a network that holds the underlay's addresses too: peers are peers none the less.
func TestUnderlayInNetwork(t *testing.T) {
	l := newLab(t)
	c := config()
	for _, a := range bothFamilies() {
		c.Networks = append(c.Networks, netip.MustParsePrefix(a.underlay))
	}
	l.ensure(c, peers())
	for _, a := range bothFamilies() {
		l.test(test{a.family + ", routed for a peer", packet{ns: l.outside, from: a.peer, to: a.behind, port: port}, arrives})
	}
	l.whole()
}

// TestFragments sends what does not fit into one packet. Nothing has connection tracking put it together before.
func TestFragments(t *testing.T) {
	l := newLab(t)
	l.ensure(config(), peers())
	for _, a := range bothFamilies() {
		l.test(
			test{a.family + ", a peer", packet{ns: l.outside, from: a.peer, to: a.node, port: port, size: 5000}, arrives},
			test{a.family + ", a stranger", packet{ns: l.outside, from: a.stranger, to: a.node, port: port, size: 5000}, stranger},
			test{a.family + ", a stranger to another port", packet{ns: l.outside, from: a.stranger, to: a.node, port: otherPort, size: 5000}, arrives},
			test{a.family + ", a pod to a peer", packet{ns: l.pod, from: a.pod, to: a.peer, port: port, size: 5000}, aPods},
			test{a.family + ", another node's pod to a pod", packet{ns: l.outside, from: a.remotePod, to: a.pod, port: port, size: 5000}, arrives},
			test{a.family + ", a stranger through the node", packet{ns: l.outside, from: a.stranger, to: a.behind, port: otherPort, size: 5000}, arrives},
		)
	}
}

// TestOtherOverlay has two overlays on one port, each with a filter of its own: each judges its own packets only.
func TestOtherOverlay(t *testing.T) {
	l := newLab(t)
	l.ensure(config(), peers())
	other := l.filter
	for _, a := range bothFamilies() {
		l.test(
			test{a.family + ", another overlay's peer",
				packet{ns: l.outside, from: a.stranger, to: a.node, port: port, otherVNI: true}, arrives},
			test{a.family + ", a fragment of it",
				packet{ns: l.outside, from: a.stranger, to: a.node, port: port, size: 5000, otherVNI: true}, arrives},
			test{a.family + ", a pod of this overlay",
				packet{ns: l.pod, from: a.pod, to: a.node, port: port, otherVNI: true}, stranger},
			test{a.family + ", a pod to another overlay's peer",
				packet{ns: l.pod, from: a.pod, to: a.stranger, port: port, otherVNI: true}, aPods},
		)
	}
	if err := l.node.Do(func() (err error) { l.filter, err = Open(Table + "-other"); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() { l.filter.Close(); l.filter = other }()
	c := config()
	c.VNI = 'E'<<16 | 'T'<<8 | ' '
	c.Networks, c.Devices = prefixes("10.77.0.0/16"), []string{"flannel.2"}
	l.ensure(c, nil)
	for _, a := range bothFamilies() {
		l.test(
			test{a.family + ", a stranger to both, by the other filter",
				packet{ns: l.outside, from: a.stranger, to: a.node, port: port, otherVNI: true}, stranger},
			test{a.family + ", a peer of the first overlay only",
				packet{ns: l.outside, from: a.peer, to: a.node, port: port}, arrives},
		)
	}
}

// TestPeersChange adds and removes peers, and changes the port.
func TestPeersChange(t *testing.T) {
	l := newLab(t)
	l.ensure(config(), nil)
	try := func(what string, port int, want fate) {
		t.Helper()
		for _, a := range bothFamilies() {
			l.test(test{a.family + ", " + what, packet{ns: l.outside, from: a.peer, to: a.node, port: port}, want})
		}
	}
	apply := func(add, remove []netip.Addr) {
		t.Helper()
		for range 2 { // the second time there is nothing to do
			if err := l.filter.Apply(add, remove); err != nil {
				t.Fatal(err)
			}
		}
	}
	try("not a peer yet", port, stranger)
	apply(peers(), nil)
	try("a peer", port, arrives)
	apply(nil, peers())
	try("not a peer any more", port, stranger)
	apply(peers(), peers())
	try("added and removed", port, arrives)
	c := config()
	c.Port = otherPort
	l.ensure(c, nil)
	try("another port", otherPort, arrives)
	apply(nil, peers())
	try("another port, not a peer any more", otherPort, stranger)
	try("not the port any more", port, arrives)
	if err := l.filter.Remove(); err != nil {
		t.Fatal(err)
	}
	try("no filter", otherPort, arrives)
}

// TestConfig goes from one configuration to another, back and forth.
func TestConfig(t *testing.T) {
	f := newFilter(t, newNet(t))
	ranges := config()
	ranges.Allow = prefixes("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "192.0.2.7/32", "255.255.255.0/24", "128.0.0.0/1", "2001:db8::/32", "::/0")
	all := config()
	all.Allow, all.Networks, all.Devices = prefixes("0.0.0.0/0", "ffff::/16"), nil, nil
	another := config()
	another.Port, another.Devices = 4789, []string{"cni0", "flannel.1", "cni0", "fifteen-letters"}
	for i, c := range []Config{config(), ranges, all, another, ranges, config()} {
		for _, want := range []bool{true, false} {
			changed, err := f.Ensure(c, slices.Values(peers()))
			if err != nil || changed != want {
				t.Errorf("configuration %d: changed %t, %v, want %t", i, changed, err, want)
			}
		}
		// As for a daemon that was restarted.
		g := &Filter{table: f.table}
		if changed, err := g.Ensure(c, nil); err != nil || changed {
			t.Errorf("configuration %d, once more: changed %t, %v", i, changed, err)
		}
		if present, ok := read(t, f); !ok || !slices.Equal(present, peers()) {
			t.Errorf("configuration %d reads as %v, %t", i, present, ok)
		}
	}
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestValidate(t *testing.T) {
	f := newFilter(t, newNet(t))
	for name, c := range map[string]Config{
		"no port":                {},
		"no prefix":              {Port: port, Networks: []netip.Prefix{{}}},
		"host bits":              {Port: port, Allow: prefixes("192.0.2.1/24")},
		"IPv4 in IPv6":           {Port: port, Allow: prefixes("::ffff:192.0.2.0/120")},
		"device without a name":  {Port: port, Devices: []string{""}},
		"device, name too long":  {Port: port, Devices: []string{"sixteen-letters."}},
		"device, name with path": {Port: port, Devices: []string{"a/b"}},
	} {
		if changed, err := f.Ensure(c, nil); err == nil || changed {
			t.Errorf("%s: changed %t, %v", name, changed, err)
		}
	}
	if _, ok, err := f.Read(); ok || err != nil {
		t.Errorf("nothing was to be done, and it reads as %t, %v", ok, err)
	}
}
