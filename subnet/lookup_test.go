package subnet

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestLookup(t *testing.T) {
	c, err := ParseConfig([]byte(`{"Network":"10.5.0.0/16"}`))
	if err != nil {
		t.Fatal(err)
	}
	v := NewView()
	v.SetRules(Rules{Config: c, InstanceID: "us"})
	record := func(key, instance string, created int64) Record {
		value := fmt.Appendf(nil, `{"PublicIP":"192.0.2.%d","PublicIPv6":null,"BackendType":"vxlan","InstanceID":%q}`, created, instance)
		return decoded(key, value, created, created, 0)
	}
	v.Apply(Event{Type: Synced, Revision: 9, Put: []Record{
		record("10.5.7.0-24", "us", 1), record("10.5.8.0-24", "a", 4), record("10.5.8.0-25", "b", 3), record("10.5.8.128-26", "c", 2),
		record("10.6.0.0-24", "d", 5),
	}})
	for address, want := range map[string][]string{
		"10.5.7.9":  {"10.5.7.0-24"},
		"10.5.8.9":  {"10.5.8.0-25", "10.5.8.0-24"}, // the older one is let in
		"10.5.9.9":  nil,
		"10.6.0.1":  {"10.6.0.0-24"},
		"fd00:5::1": nil,
	} {
		var got []string
		for _, f := range v.Lookup(netip.MustParseAddr(address)) {
			got = append(got, f.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	if found := v.Lookup(netip.MustParseAddr("10.6.0.1")); found[0].Why == nil {
		t.Error("a lease outside Network counts as let in")
	}
}
