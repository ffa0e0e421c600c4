package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestScopeNames(t *testing.T) {
	long := "/" + strings.Repeat("x", 300)
	for _, tt := range []struct {
		prefix string
		vni    uint32
		alias  string // empty: not compared
		plain  bool
	}{
		{"", 0, "selvage", true},
		{"/coreos.com/network", 1, "selvage", true},
		{"//coreos.com/network/", 1, "selvage", true},
		{"/coreos.com/network", 7, "selvage vni 7", false},
		{"/second", 1, "selvage /second", false},
		{"/second", 2, "selvage /second vni 2", false},
		{"/with space vni 3", 2, "selvage /with space vni 3 vni 2", false},
		{long, 2, "", false},
	} {
		s := NewScope(tt.prefix, tt.vni)
		if got := s.Alias(); tt.alias != "" && got != tt.alias {
			t.Errorf("%v: alias %q, want %q", s, got, tt.alias)
		}
		if s.IsDefault() != tt.plain || (s.Tag() == "") != tt.plain || (s.Name("selvage") == "selvage") != tt.plain {
			t.Errorf("%v: default %t, tag %q, name %q; want plain names: %t", s, s.IsDefault(), s.Tag(), s.Name("selvage"), tt.plain)
		}
		if got, ok := ParseAlias(s.Alias()); !ok || tt.prefix != long && got != s {
			t.Errorf("%q is read as %v, %t; want %v", s.Alias(), got, ok, s)
		}
		if n := len(s.Alias()); n > 255 {
			t.Errorf("%v: alias of %d bytes", s, n)
		}
		if n := len(s.Name("SELVAGE-POSTRTG")); n > 28 {
			t.Errorf("%v: chain of %d bytes", s, n)
		}
	}
	if (Scope{}).Alias() != "selvage" || (Scope{}).Tag() != "" || (Scope{}).Name("x") != "x" {
		t.Error("the zero Scope is not the default one")
	}
	for _, alias := range []string{"", "selvages", "uplink", "selvage vni x", "Selvage"} {
		if s, ok := ParseAlias(alias); ok {
			t.Errorf("%q is read as %v", alias, s)
		}
	}
	if NewScope("/a", 2).Tag() == NewScope("/a", 3).Tag() || NewScope("/a", 2).Tag() == NewScope("/b", 2).Tag() {
		t.Error("two scopes have one tag")
	}
}

func TestOwnershipOfScope(t *testing.T) {
	o := Ownership{
		Scope: NewScope("/second", 2), Former: []Scope{NewScope("/second", 3)},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16")},
	}
	for alias, want := range map[string][2]bool{ // ours, another network's
		"selvage /second vni 2": {true, false},
		"selvage /second vni 3": {true, false},
		"selvage /second":       {false, true},
		"selvage":               {false, true},
		"uplink":                {false, false},
		"":                      {false, false},
	} {
		_, other := o.Other(alias)
		if got := [2]bool{o.OwnsAlias(alias), other}; got != want {
			t.Errorf("%q: ours, another network's: %v, want %v", alias, got, want)
		}
	}
	for prefix, want := range map[string]bool{"10.6.7.0/24": true, "10.6.0.0/16": true, "10.5.7.0/24": false, "10.0.0.0/8": false} {
		if o.OwnsPrefix(netip.MustParsePrefix(prefix)) != want {
			t.Errorf("a route to %s is ours: want %t", prefix, want)
		}
	}
	if !o.OwnsNexthop(NexthopIDOf(netip.MustParseAddr("10.6.7.0"))) || o.OwnsNexthop(NexthopIDOf(netip.MustParseAddr("10.5.7.0"))) {
		t.Error("nexthop objects are not told apart by their numbers")
	}
	if o.Plain = true; len(o.Networks) > 0 {
		if _, other := o.Other("selvage"); other || o.OwnsAlias("selvage") {
			t.Error("a desired device of an earlier version is not adopted, or an undesired one is removed")
		}
	}
}

// TestOtherNetworkIsLeftAlone has the devices, routes and nexthop objects of two networks in one network's tables.
func TestOtherNetworkIsLeftAlone(t *testing.T) {
	tables := NewTables()
	mine, other := NewScope("/second", 2), NewScope("", 1)
	tables.Own(Ownership{Scope: mine, Networks: []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16")}})
	device := func(s Scope) Link {
		return Link{Kind: KindVXLAN, Settings: VXLAN{VNI: s.VNI, Port: 8472}, Alias: s.Alias(), Up: true}
	}
	observe := func(s Scope, name, subnet string) {
		tables.Links.Observe(name, device(s))
		p := netip.MustParsePrefix(subnet)
		route := Route{Link: name, Protocol: RouteProtocol, Type: Unicast}
		tables.Routes.Observe(RouteKey{Prefix: p}, route)
		tables.Nexthops.Observe(NexthopIDOf(p.Addr()), Nexthop{Link: name, Gateway: p.Addr(), Protocol: RouteProtocol})
		// One that selvage does not make, of IPv6: the device tells whose it is.
		tables.Nexthops.Observe(NexthopID(6<<28+s.VNI), Nexthop{Link: name, Gateway: netip.IPv6Unspecified(), Protocol: RouteProtocol})
		direct := Route{Link: "eth0", Gateway: netip.MustParseAddr("192.0.2.7"), Protocol: RouteProtocol, Type: Unicast}
		tables.Routes.Observe(RouteKey{Prefix: p, Metric: 7}, direct)
		tables.FDB.Observe(FDBKey{Link: name, MAC: MAC{2, 1}}, FDB{Permanent: true})
	}
	observe(other, "flannel.1", "10.5.7.0/24")
	if got := tables.Unwanted(); len(got) != 0 {
		t.Errorf("objects of another network would be removed: %q", got)
	}
	observe(mine, "flannel.2", "10.6.7.0/24")
	if got := tables.Unwanted(); len(got) != 6 {
		t.Errorf("would be removed: %q; want the six objects of this network", got)
	}
	// The other network's device has the name and the settings that this one needs.
	want := device(mine)
	want.Alias = mine.Alias()
	taken := device(mine)
	taken.Alias = other.Alias()
	tables.Links.Observe("flannel.9", taken)
	tables.Links.Want(Owner{Name: "node"}, "flannel.9", want)
	if tables.OwnsLink("flannel.9") || tables.linkReady("flannel.9") {
		t.Error("the device of another network is taken over")
	}
	tables.Own(Ownership{Scope: mine, Plain: true})
	if !tables.OwnsLink("flannel.9") {
		t.Error("the device of an earlier version is not taken over")
	}
	// The other network's daemon, when it starts: this network's objects are foreign.
	tables.Own(Ownership{Scope: other, Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}})
	if !tables.OwnsLink("flannel.1") || tables.OwnsLink("flannel.2") {
		t.Error("ownership is not judged again")
	}
}

// TestKubernetesPrefix: the default network has the plain names whichever store it is in, and others names of their own.
func TestKubernetesPrefix(t *testing.T) {
	for annotations, want := range map[string]string{
		"": DefaultPrefix, KubernetesAnnotations: DefaultPrefix, "example.org/": "example.org", "example.org/blue-": "example.org/blue-",
	} {
		if got := KubernetesPrefix(annotations); got != want {
			t.Errorf("%q: %q, want %q", annotations, got, want)
		}
	}
	s := NewScope(KubernetesPrefix("example.org/blue-"), 0)
	if got, ok := ParseAlias(s.Alias()); !ok || got != s || s.IsDefault() || !NewScope(KubernetesPrefix(""), 0).IsDefault() {
		t.Errorf("%v, %t, want %v", got, ok, s)
	}
}
