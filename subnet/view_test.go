package subnet

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The config of the tests here, and a lease of our own and one of a peer that is good in it.
const viewConfig = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`

func viewRules(t testing.TB) Rules {
	r := Rules{Config: mustConfig(t, viewConfig), InstanceID: "me"}
	r.PublicIPs[IPv4], r.PublicIPs[IPv6] = ip("172.31.0.1"), ip("fd00:31::1")
	return r
}

// record returns a record of a vxlan node with the given public addresses.
func record(key string, revision int64, instance, public4, public6 string) Record {
	return decoded(key, valueOf(instance, public4, public6), revision, revision, 7)
}

// keysOf lists changes as +key, -key and ~key, sorted.
func keysOf(changes []Change) []string {
	list := []string{}
	for _, c := range changes {
		switch {
		case c.Before == nil:
			list = append(list, "+"+c.Name)
		case c.After == nil:
			list = append(list, "-"+c.Name)
		default:
			list = append(list, "~"+c.Name)
		}
	}
	slices.Sort(list)
	return list
}

// wantChanges fails unless changes are exactly those listed, separated by spaces.
func wantChanges(t *testing.T, step string, changes []Change, want string) {
	t.Helper()
	if got, want := keysOf(changes), slices.Sorted(slices.Values(strings.Fields(want))); !slices.Equal(got, want) {
		t.Errorf("%s: changes %v, want %v", step, got, want)
	}
}

func TestViewQuarantineReasons(t *testing.T) {
	const dual = "10.5.29.0-24&fd00:5:0:1d::-64"
	host := func(r Record) Record {
		r = withValue(r, []byte(strings.Replace(text(r), "vxlan", "host-gw", 1)))
		return r
	}
	invalid := func(r Record) Record { return withValue(r, []byte(`{"PublicIP":7}`)) }
	tests := []struct {
		r    Record
		want string
	}{
		{record("10.5.29.0-24", 5, "", "172.31.0.2", ""), ""},
		{record(dual, 5, "", "172.31.0.2", "fd00:31::2"), ""},
		{record("fd00:5:0:1d::-64", 5, "", "", "fd00:31::2"), ""},
		{record("10.5.29.0-24", 5, "me", "172.31.0.1", ""), ""},
		{record("10.5.29.1-24", 5, "", "172.31.0.2", ""),
			`key "10.5.29.1-24": 10.5.29.1/24 has host bits set, want 10.5.29.0/24`},
		{invalid(record("10.5.29.0-24", 5, "", "", "")), `key 10.5.29.0-24: value: PublicIP is 7, want a string`},
		{record("10.6.0.0-24", 5, "", "172.31.0.2", ""), `subnet 10.6.0.0/24 is not inside Network 10.5.0.0/16`},
		{record("172.31.0.0-24", 5, "", "172.31.0.2", ""), `subnet 172.31.0.0/24 is not inside Network 10.5.0.0/16`},
		{record("10.5.0.0-17", 5, "", "172.31.0.2", ""),
			`subnet 10.5.0.0/17: length is 17, want 18 to 30 in Network 10.5.0.0/16`},
		{record("10.5.29.0-24&fd00:6::-64", 5, "", "172.31.0.2", "fd00:31::2"),
			`subnet fd00:6::/64 is not inside Network fd00:5::/56`},
		{record("10.5.29.0-24", 5, "", "127.0.0.1", ""), `public IP 127.0.0.1 is not a unicast address`},
		{record("10.5.29.0-24", 5, "", "0.0.0.0", ""), `public IP 0.0.0.0 is not a unicast address`},
		{record("10.5.29.0-24", 5, "", "255.255.255.255", ""), `public IP 255.255.255.255 is not a unicast address`},
		{record("10.5.29.0-24", 5, "", "224.0.0.1", ""), `public IP 224.0.0.1 is not a unicast address`},
		{record(dual, 5, "", "172.31.0.2", "fe80::1"), `public IP fe80::1 is not a unicast address`},
		{record("10.5.29.0-24", 5, "", "10.5.30.1", ""), `public IP 10.5.30.1 is inside the overlay 10.5.0.0/16`},
		{record("10.5.29.0-24", 5, "me", "10.5.30.1", ""), `public IP 10.5.30.1 is inside the overlay 10.5.0.0/16`},
		{record("10.5.29.0-24", 5, "", "172.31.0.1", ""), `public IP 172.31.0.1 is our own`},
		{record("fd00:5:0:1d::-64", 5, "other", "", "fd00:31::1"), `public IP fd00:31::1 is our own`},
		{host(record("10.5.29.0-24", 5, "", "172.31.0.2", "")), `backend is "host-gw", want "vxlan"`},
		{record("10.5.29.0-24", 5, "", "172.31.0.66", ""), "the backend does not like 172.31.0.66"},
		{record("10.5.9.0-26", 5, "", "172.31.0.2", ""), "overlaps the older lease 10.5.9.0-24"},
		{record("10.5.0.0-18", 5, "", "172.31.0.2", ""), "overlaps the older lease 10.5.9.0-24"},
		{record("10.5.9.0-24&fd00:5:0:9::-64", 5, "", "172.31.0.2", "fd00:31::2"), "overlaps the older lease 10.5.9.0-24"},
		{record("10.5.9.0-26", 4, "", "172.31.0.2", ""), "overlaps the older lease 10.5.9.0-24"}, // as old; the key decides
		{record("10.5.8.0-22", 3, "", "172.31.0.2", ""), ""},
		{record("10.5.29.0-24", 5, "", "0.31.0.2", ""), `public IP 0.31.0.2 is not a unicast address`},
		// the underlay
		{record("10.5.77.0-24", 5, "", "172.31.0.2", ""), "subnet 10.5.77.0/24 holds 10.5.77.0/24 of the underlay"},
		{record("10.5.76.0-23", 5, "", "172.31.0.2", ""), "subnet 10.5.76.0/23 holds 10.5.77.0/24 of the underlay"},
		{record("10.5.77.0-25", 5, "", "172.31.0.2", ""), ""}, // lies inside
		{record("10.5.76.0-24", 5, "", "172.31.0.2", ""), ""}, // lies beside
		{record("10.5.99.0-24", 5, "", "172.31.0.2", ""), "subnet 10.5.99.0/24 holds 10.5.99.1/32 of the underlay"},
		{record("10.5.99.0-30", 5, "", "172.31.0.2", ""), "subnet 10.5.99.0/30 holds 10.5.99.1/32 of the underlay"},
		{record("10.5.99.0-24&fd00:5:0:1d::-64", 5, "", "172.31.0.2", "fd00:31::2"),
			"subnet 10.5.99.0/24 holds 10.5.99.1/32 of the underlay"},
		{record("fd00:5:0:63::-64", 5, "", "", "fd00:31::2"), "subnet fd00:5:0:63::/64 holds fd00:5:0:63::1/128 of the underlay"},
		{record("10.5.29.0-24", 5, "", "172.31.255.255", ""), "public IP 172.31.255.255 is the broadcast address of 172.31.0.0/16"},
		{record("10.5.29.0-24", 5, "", "172.30.0.3", ""), "public IP 172.30.0.3 is the broadcast address of 172.30.0.0/30"},
		{record("10.5.29.0-24", 5, "", "172.30.0.5", ""), ""}, // the upper end of a /31
		{record("10.5.99.0-24", 5, "me", "172.31.0.1", ""), ""},
		// what only one may have
		{record("10.5.29.0-24", 5, "", "172.31.0.60", ""), "the number 60 is that of the older lease 10.5.10.0-24"},
		{record("10.5.29.0-24", 5, "me", "172.31.0.60", ""), "the number 60 is that of the older lease 10.5.10.0-24"},
		{record("10.5.29.0-24", 3, "", "172.31.0.60", ""), ""},
	}
	rules := viewRules(t)
	rules.Underlay = []netip.Prefix{
		pfx("172.31.0.0/16"), pfx("172.30.0.0/30"), pfx("172.30.0.4/31"), pfx("10.0.0.0/8"), pfx("fd00::/8"), {},
		netip.MustParsePrefix("10.5.77.5/24"), // as an address has it
		pfx("10.5.99.1/32"), pfx("fd00:5:0:63::1/128"),
	}
	rules.Check = func(l Lease) (unique []string, err error) {
		switch l.Endpoints[IPv4].PublicIP {
		case ip("172.31.0.60"):
			return []string{"the number 60"}, nil
		case ip("172.31.0.66"):
			return nil, errors.New("the backend does not like 172.31.0.66")
		}
		return nil, nil
	}
	for _, tt := range tests {
		t.Run(tt.r.Name+" "+tt.want, func(t *testing.T) {
			v := newView(t, rules, tt.r, record("10.5.9.0-24", 4, "", "172.31.0.9", ""),
				record("10.5.10.0-24", 4, "", "172.31.0.60", ""))
			m, ok, why := v.Get(tt.r.Name)
			wantError(t, why, tt.want)
			if !ok || m.Name != tt.r.Name || m.Order != tt.r.Order || m.Version != tt.r.Version || m.LeaseID != 7 {
				t.Errorf("got %+v (%t)", m, ok)
			}
		})
	}
}

// TestViewRulesOfTheConfig looks at what depends on the config alone.
func TestViewRulesOfTheConfig(t *testing.T) {
	rules := viewRules(t)
	rules.Config = mustConfig(t, `{"Network":"10.5.0.0/16"}`)
	v := newView(t, rules,
		record("10.5.29.0-24&fd00:77::-64", 1, "", "172.31.0.2", "fe80::1"),
		record("10.5.30.0-24&fd00:77::-64", 2, "", "172.31.0.3", "fd00:31::3"), // overlaps where nothing is in use
		record("fd00:5:0:1d::-64", 3, "", "", "fd00:31::4"))
	for _, key := range []string{"10.5.29.0-24&fd00:77::-64", "10.5.30.0-24&fd00:77::-64"} {
		_, _, why := v.Get(key)
		wantError(t, why, "")
	}
	_, _, why := v.Get("fd00:5:0:1d::-64")
	wantError(t, why, "no subnet in a family that the network config enables")

	// What was not checked is not told either.
	changes := v.Apply(Event{Type: Changed, Revision: 2000, Put: []Record{
		record("10.5.31.0-24&fd00:99::-64", 2000, "", "172.31.0.5", "fe80::1")}})
	want := Lease{BackendType: "vxlan"}
	want.Endpoints[IPv4] = Endpoint{Subnet: pfx("10.5.31.0/24"), PublicIP: ip("172.31.0.5")}
	if len(changes) != 1 || changes[0].Before != nil || *changes[0].After != want {
		t.Errorf("told %+v, want %+v", changes, want)
	}
}

// TestViewLocalRules: a lease that only this node cannot use holds its subnet all the same. Otherwise this node would
// send to a newer one what all the others send to the older one.
func TestViewLocalRules(t *testing.T) {
	rules := viewRules(t)
	v := newView(t, rules,
		record("10.5.29.0-24", 1, "stranger", "172.31.0.1", ""),
		record("10.5.29.0-25", 2, "", "172.31.0.2", ""))
	_, _, why := v.Get("10.5.29.0-25")
	wantError(t, why, "overlaps the older lease 10.5.29.0-24")
	rules.PublicIPs = [2]netip.Addr{IPv4: ip("10.5.29.200")}
	wantChanges(t, "our address is in the overlay", v.SetRules(rules), "")
	_, _, why = v.Get("10.5.29.0-24")
	wantError(t, why, "subnet 10.5.29.0/24 holds our own public IP 10.5.29.200")

	// Without an instance id of our own, nobody's lease is ours.
	rules = viewRules(t)
	rules.InstanceID = ""
	v = newView(t, rules)
	wantChanges(t, "flannel's node", v.Apply(Event{Type: Changed, Revision: 1001, Put: []Record{
		record("10.5.30.0-24", 1001, "", "172.31.0.3", "")}}), "+10.5.30.0-24")
}

// TestViewTellsNothingEarly: until there are rules and a whole snapshot, in whatever order they come.
func TestViewTellsNothingEarly(t *testing.T) {
	page := Event{Type: Page, Revision: 9, Put: []Record{record("10.5.29.0-24", 1, "", "172.31.0.2", "")}}
	synced := Event{Type: Synced, Revision: 9}
	for name, rulesAt := range map[string]int{"rules first": 0, "rules amid": 1, "rules last": 2} {
		v := NewView()
		for i, e := range []Event{page, synced} {
			if i == rulesAt {
				wantChanges(t, name, v.SetRules(viewRules(t)), "")
			}
			want := ""
			if e.Type == Synced && rulesAt < 2 {
				want = "+10.5.29.0-24"
			}
			if _, ok, why := v.Get("10.5.29.0-24"); ok && why == nil {
				t.Errorf("%s: let in too early", name)
			}
			wantChanges(t, name, v.Apply(e), want)
		}
		if rulesAt == 2 {
			wantChanges(t, name, v.SetRules(viewRules(t)), "+10.5.29.0-24")
		}
	}
}

// TestViewHistory goes through one peer's life, and that of the one that waits for its subnet.
func TestViewHistory(t *testing.T) {
	rules := viewRules(t)
	v := newView(t, rules)
	if v.Revision() != 1000 || !v.Synced() {
		t.Errorf("revision %d, synced %t", v.Revision(), v.Synced())
	}
	put := func(revision int64, r Record) []Change {
		r.Version = revision
		return v.Apply(Event{Type: Changed, Revision: revision, Put: []Record{r}})
	}
	gone := func(revision int64, key string) []Change {
		return v.Apply(Event{Type: Changed, Revision: revision, Deleted: []string{key}})
	}
	a, b := record("10.5.29.0-24", 1001, "", "172.31.0.2", ""), record("10.5.29.0-25", 1002, "", "172.31.0.3", "")
	wantChanges(t, "a comes", put(1001, a), "+10.5.29.0-24")
	wantChanges(t, "b comes", put(1002, b), "")
	wantChanges(t, "our own", put(1003, record("10.5.1.0-24", 1003, "me", "172.31.0.1", "")), "")
	wantChanges(t, "a is renewed in flannel's manner", put(1004, a), "")
	a = withValue(a, valueOf("", "172.31.0.4", ""))
	wantChanges(t, "a moves", put(1005, a), "~10.5.29.0-24")
	a = withValue(a, []byte("?"))
	wantChanges(t, "a is spoiled", put(1006, a), "+10.5.29.0-25 -10.5.29.0-24")
	if m, _, _ := v.Get(a.Name); m.Lease != (Lease{Endpoints: [2]Endpoint{{Subnet: pfx("10.5.29.0/24")}}}) {
		t.Errorf("of a spoiled lease is left: %+v", m.Lease)
	}
	a = withValue(a, valueOf("", "172.31.0.2", ""))
	wantChanges(t, "a is mended", put(1007, a), "-10.5.29.0-25 +10.5.29.0-24")
	a.Order = 1008
	wantChanges(t, "a is made anew", put(1008, a), "+10.5.29.0-25 -10.5.29.0-24")
	wantChanges(t, "a goes", gone(1009, a.Name), "")
	wantChanges(t, "b goes", gone(1010, b.Name), "-10.5.29.0-25")
	wantChanges(t, "b goes again", gone(1011, b.Name), "")
	rules.InstanceID = "somebody else"
	rules.PublicIPs[IPv4] = ip("172.31.0.99")
	wantChanges(t, "we are another", v.SetRules(rules), "+10.5.1.0-24")
	if valid, quarantined := v.Len(); valid != 1 || quarantined != 0 {
		t.Errorf("%d valid and %d quarantined, want 1 and 0", valid, quarantined)
	}
	if m, ok, why := v.Get("10.5.77.0-24"); !reflect.DeepEqual(m, Record{}) || ok || why != nil {
		t.Errorf("of an unknown key: %+v, %t, %v", m, ok, why)
	}
}

func TestViewSnapshots(t *testing.T) {
	a, b := record("10.5.29.0-24", 1, "", "172.31.0.2", ""), record("10.5.30.0-24", 1001, "", "172.31.0.3", "")
	v := newView(t, viewRules(t), a)
	page := func(revision int64, put ...Record) []Change {
		return v.Apply(Event{Type: Page, Revision: revision, Put: put})
	}
	synced := func(revision int64) []Change { return v.Apply(Event{Type: Synced, Revision: revision}) }

	wantChanges(t, "b comes", v.Apply(Event{Type: Changed, Revision: 1001, Put: []Record{b}}), "+10.5.30.0-24")
	wantChanges(t, "a page without b", page(1005, a), "")
	wantChanges(t, "a snapshot without b", synced(1005), "-10.5.30.0-24")

	wantChanges(t, "a page of a snapshot that ends early", page(1006, b), "")
	if v.Revision() != 1005 {
		t.Errorf("revision %d amid a snapshot, want that of the one before", v.Revision())
	}
	wantChanges(t, "the next attempt, b gone by now", page(1008, a), "")
	wantChanges(t, "its end", synced(1008), "")

	page(1010, a)
	wantChanges(t, "a page, then an empty snapshot", synced(1011), "-10.5.29.0-24")

	page(2, a)
	wantChanges(t, "the store is wiped and has a again", synced(2), "+10.5.29.0-24")
	a = withValue(a, valueOf("", "172.31.0.9", ""))
	page(2, a)
	wantChanges(t, "wiped again, the same revisions, another value", synced(2), "~10.5.29.0-24")
}

func TestViewQuarantinedStops(t *testing.T) {
	v := newView(t, viewRules(t), decoded("a", nil, 0, 0, 0), decoded("b", nil, 0, 0, 0))
	n := 0
	for range v.Quarantined {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}
