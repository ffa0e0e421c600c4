package subnet

import (
	"errors"
	"net/netip"
	"testing"
)

// first is a Request.Rand that takes the first free subnet.
func first(uint64) uint64 { return 0 }

func TestAllocate(t *testing.T) {
	const dual = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`
	const four = `{"Network":"10.5.0.0/16"}`
	const six = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`
	reserved := func(r Record) Record { r.LeaseID = 0; return r }
	bad := func(r Record) Record { return withValue(r, []byte("?")) }
	me := func(key string, created int64) Record { return record(key, created, "me", "172.31.0.1", "fd00:31::1") }
	other := func(key string, created int64) Record { return record(key, created, "", "172.31.0.2", "fd00:31::2") }
	byIP := func(key string, created int64) Record { return record(key, created, "", "172.31.0.1", "fd00:31::1") }

	tests := map[string]struct {
		config   string
		records  []Record
		previous [2]netip.Prefix
		avoid    []netip.Prefix
		have     string // key; empty: none
		want     string // key of the subnets
	}{
		"nothing there, IPv4": {config: four, want: "10.5.1.0-24"},
		"nothing there, dual": {config: dual, want: "10.5.1.0-24&fd00:5:0:1::-64"},
		"nothing there, IPv6": {config: six, want: "fd00:5:0:1::-64"},

		"own by instance id": {config: four, records: []Record{
			byIP("10.5.8.0-24", 1), record("10.5.9.0-24", 2, "me", "172.31.0.77", "")},
			previous: [2]netip.Prefix{pfx("10.5.7.0/24")}, have: "10.5.9.0-24", want: "10.5.9.0-24"},
		"own by instance id, before a reservation": {config: four,
			records: []Record{reserved(byIP("10.5.8.0-24", 1)), me("10.5.9.0-24", 2)}, have: "10.5.9.0-24", want: "10.5.9.0-24"},
		"own by instance id, the older of two": {config: four,
			records: []Record{me("10.5.9.0-24", 2), me("10.5.8.0-24", 1)}, have: "10.5.8.0-24", want: "10.5.8.0-24"},
		"own by public IP": {config: four, records: []Record{other("10.5.8.0-24", 1), byIP("10.5.9.0-24", 2)},
			previous: [2]netip.Prefix{pfx("10.5.7.0/24")}, have: "10.5.9.0-24", want: "10.5.9.0-24"},
		"own by IPv6 public IP": {config: dual, records: []Record{
			record("10.5.9.0-24&fd00:5:0:9::-64", 2, "", "172.31.0.77", "fd00:31::1")},
			have: "10.5.9.0-24&fd00:5:0:9::-64", want: "10.5.9.0-24&fd00:5:0:9::-64"},
		"own by public IP, a reservation first": {config: four,
			records: []Record{byIP("10.5.8.0-24", 1), reserved(byIP("10.5.9.0-24", 2))}, have: "10.5.9.0-24", want: "10.5.9.0-24"},
		"own by public IP, of an earlier instance": {config: four, records: []Record{
			record("10.5.9.0-24", 2, "me before", "172.31.0.1", "")}, have: "10.5.9.0-24", want: "10.5.9.0-24"},
		"own outside Min and Max": {config: four, records: []Record{me("10.5.0.0-24", 1)},
			have: "10.5.0.0-24", want: "10.5.1.0-24"},
		"own of another length": {config: four, records: []Record{me("10.5.0.0-22", 1)},
			have: "10.5.0.0-22", want: "10.5.1.0-24"}, // its own old subnet does not stand in its way
		"own by public IP of another length is nothing": {config: four, records: []Record{byIP("10.5.0.0-22", 1)},
			want: "10.5.4.0-24"},
		"own that is beaten": {config: four, records: []Record{other("10.5.1.0-25", 1), me("10.5.1.0-24", 2)},
			have: "10.5.1.0-24", want: "10.5.2.0-24"},
		"own that is beaten by one we cannot use": {config: four,
			records: []Record{record("10.5.1.0-25", 1, "", "172.31.0.1", ""), me("10.5.1.0-24", 2)},
			have:    "10.5.1.0-24", want: "10.5.2.0-24"},
		"own that beats": {config: four, records: []Record{me("10.5.1.0-24", 1), other("10.5.1.0-25", 2)},
			have: "10.5.1.0-24", want: "10.5.1.0-24"},
		"own by public IP that is beaten is nothing": {config: four,
			records: []Record{other("10.5.1.0-25", 1), byIP("10.5.1.0-24", 2)}, want: "10.5.2.0-24"},
		"own is beaten in one family": {config: dual,
			records: []Record{other("10.5.1.0-25", 1), me("10.5.1.0-24&fd00:5:0:1::-64", 2)},
			have:    "10.5.1.0-24&fd00:5:0:1::-64", want: "10.5.2.0-24&fd00:5:0:2::-64"},
		"own has one family, the config two": {config: dual, records: []Record{me("10.5.9.0-24", 1)},
			have: "10.5.9.0-24", want: "10.5.9.0-24&fd00:5:0:9::-64"},
		"own has two families, the config one": {config: four, records: []Record{me("10.5.9.0-24&fd00:5:0:9::-64", 1)},
			have: "10.5.9.0-24&fd00:5:0:9::-64", want: "10.5.9.0-24"},
		"own with a bad value is nobody's, and taken": {config: four, records: []Record{bad(me("10.5.1.0-24", 1))},
			want: "10.5.2.0-24"},

		"previous": {config: four, previous: [2]netip.Prefix{pfx("10.5.7.0/24")}, want: "10.5.7.0-24"},
		"previous, one family": {config: dual, previous: [2]netip.Prefix{pfx("10.5.7.0/24")},
			want: "10.5.7.0-24&fd00:5:0:7::-64"},
		"previous, the other family": {config: dual, previous: [2]netip.Prefix{IPv6: pfx("fd00:5:0:7::/64")},
			want: "10.5.1.0-24&fd00:5:0:7::-64"},
		"previous of another length":  {config: four, previous: [2]netip.Prefix{pfx("10.5.7.0/25")}, want: "10.5.1.0-24"},
		"previous of another network": {config: four, previous: [2]netip.Prefix{pfx("10.6.7.0/24")}, want: "10.5.1.0-24"},
		"previous, taken": {config: four, previous: [2]netip.Prefix{pfx("10.5.7.0/24")},
			records: []Record{other("10.5.7.0-24", 1)}, want: "10.5.1.0-24"},
		"previous, a part of it taken": {config: four, previous: [2]netip.Prefix{pfx("10.5.7.0/24")},
			records: []Record{other("10.5.7.128-26", 1)}, want: "10.5.1.0-24"},
		"previous, taken by a bad value": {config: four, previous: [2]netip.Prefix{pfx("10.5.7.0/24")},
			records: []Record{bad(other("10.5.7.0-24", 1))}, want: "10.5.1.0-24"},
		"previous, to be avoided": {config: four, previous: [2]netip.Prefix{pfx("10.5.7.0/24")},
			avoid: []netip.Prefix{pfx("10.5.7.0/24")}, want: "10.5.1.0-24"},
		"previous, in our own way": {config: four, previous: [2]netip.Prefix{pfx("10.5.7.0/24")},
			records: []Record{me("10.5.4.0-22", 1)}, have: "10.5.4.0-22", want: "10.5.7.0-24"},

		"avoid in both families": {config: dual,
			avoid: []netip.Prefix{pfx("10.5.0.0/22"), {}, pfx("fd00:5:0:4::/64")}, want: "10.5.4.0-24&fd00:5:0:1::-64"},
		"same index taken": {config: dual, records: []Record{other("fd00:5:0:1::-64", 1)}, want: "10.5.1.0-24&fd00:5:0:2::-64"},
		"same index outside": {
			config: `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","IPv6SubnetMin":"fd00:5:0:80::"}`,
			want:   "10.5.1.0-24&fd00:5:0:80::-64"},
		"same index, a smaller second range": {
			config: `{"Network":"10.5.0.0/16","SubnetMin":"10.5.64.0","EnableIPv6":true,"IPv6Network":"fd00:5::/60"}`,
			want:   "10.5.64.0-24&fd00:5:0:1::-64"},
		"bad values are taken": {config: four,
			records: []Record{bad(other("10.5.1.0-24", 1)), other("10.5.2.0-24", 1)}, want: "10.5.3.0-24"},
		"leases of another length": {config: four,
			records: []Record{other("10.5.0.0-22", 1), other("10.5.4.64-26", 2)}, want: "10.5.5.0-24"},
		"keys that no lease can have": {config: dual,
			records: []Record{other("0.0.0.0-0&::-0", 1), other("10.5.0.0-16", 1)}, want: "10.5.1.0-24&fd00:5:0:1::-64"},
		"malformed and foreign leases": {config: four,
			records: []Record{other("10.5.1.1-24", 1), other("10.6.1.0-24", 1)}, want: "10.5.1.0-24"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rules := viewRules(t)
			rules.Config = mustConfig(t, tt.config)
			v := newView(t, rules, tt.records...)
			r := Request{InstanceID: "me", PublicIPs: rules.PublicIPs, Previous: tt.previous, Avoid: tt.avoid, Rand: first}
			a, err := v.Allocate(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := FormatKey(a.Subnets[:]...); got != tt.want {
				t.Errorf("subnets %s, want %s", got, tt.want)
			}
			have := Record{}
			for _, r := range tt.records {
				if r.Name == tt.have {
					have = r
				}
			}
			own := v.Own(r)
			if a.Have == nil && tt.have == "" && own == nil {
				return
			}
			if own == nil || own.Key() != tt.have {
				t.Errorf("own lease %+v, want that of %s", own, tt.have)
			}
			if got := a.Have; got == nil || *got != have {
				t.Errorf("own record %+v, want %+v", got, have)
			}
		})
	}
}

func TestAllocateErrors(t *testing.T) {
	r := Request{InstanceID: "me", Rand: first}
	v := NewView()
	_, err := v.Allocate(r)
	wantError(t, err, "allocate: the network config is not known yet")
	if own := v.Own(r); own != nil {
		t.Errorf("own lease %+v without a config", own)
	}
	v.SetRules(Rules{Config: mustConfig(t, `{"Network":"10.5.0.0/28"}`)})
	v.Apply(Event{Type: Page, Revision: 1})
	_, err = v.Allocate(r)
	wantError(t, err, "allocate: the leases are not known yet")

	v = newView(t, Rules{Config: mustConfig(t, `{"Network":"10.5.0.0/28"}`)},
		record("10.5.0.4-30", 1, "", "172.31.0.2", ""), record("10.5.0.8-30", 1, "", "172.31.0.3", ""))
	r.Avoid = []netip.Prefix{pfx("10.5.0.12/30")}
	_, err = v.Allocate(r)
	if !errors.Is(err, ErrFull) {
		t.Errorf("%v is not ErrFull", err)
	}
	wantError(t, err, "no free subnet: all 3 subnets from 10.5.0.4 to 10.5.0.12 (/30) are leased; "+
		"delete leases of nodes that are gone, or widen Network or SubnetMin and SubnetMax in the network config")
}

// TestAllocateSaturated: leases beyond the first 1<<63 subnets of a range are in nobody's way.
func TestAllocateSaturated(t *testing.T) {
	v := newView(t, Rules{Config: mustConfig(t,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/20","IPv6SubnetLen":126}`)},
		record("fd00::4-126", 1, "", "", "fd00:31::2"),
		record("fd00:fff:ffff:ffff:ffff:ffff:ffff:fff8-126", 2, "", "", "fd00:31::3"))
	for want, n := range map[string]uint64{"fd00::8/126": 0, "fd00::2:0:0:0:0/126": 1<<63 - 2} {
		a, err := v.Allocate(Request{Rand: func(free uint64) uint64 {
			if free != 1<<63-1 {
				t.Errorf("%d free, want all but one", free)
			}
			return n
		}})
		if err != nil || a.Subnets[IPv6] != pfx(want) {
			t.Errorf("got %s (%v), want %s", a.Subnets[IPv6], err, want)
		}
	}
}

// TestByInstance: a node's own lease is found without rules, also one that would not be let in; of several, the oldest.
func TestByInstance(t *testing.T) {
	v := NewView()
	v.Apply(Event{Type: Page, Revision: 9, Put: []Record{
		record("10.5.30.0-24", 7, "me", "172.31.0.2", ""), record("10.77.0.0-24", 3, "me", "172.31.0.3", ""),
		record("10.5.31.0-24", 1, "another", "172.31.0.4", ""), decoded("10.5.32.0-24", []byte("?"), 1, 0, 0),
	}})
	if l := v.ByInstance("me"); l == nil || l.Endpoints[IPv4].Subnet != pfx("10.77.0.0/24") {
		t.Errorf("found %+v", l)
	}
	if l := v.ByInstance("nobody"); l != nil {
		t.Errorf("found %+v", l)
	}
}
