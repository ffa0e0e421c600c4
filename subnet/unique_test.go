package subnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// uniqueRules has the families' data as what only one lease may have.
func uniqueRules(t testing.TB) Rules {
	r := viewRules(t)
	r.Check = func(l Lease) (things []string, err error) {
		for _, f := range Families() {
			if data := l.Endpoints[f].Data; data != "" {
				things = append(things, "MAC "+data+" ("+f.String()+")")
			}
		}
		return things, nil
	}
	return r
}

// withData is a dual-stack record with the given data; empty for none.
func withData(key string, revision int64, instance, data4, data6 string) Record {
	l := Lease{BackendType: "vxlan", InstanceID: instance}
	l.Endpoints[IPv4] = Endpoint{PublicIP: ip("172.31.0.2"), Data: data4}
	l.Endpoints[IPv6] = Endpoint{PublicIP: ip("fd00:31::2"), Data: data6}
	value, err := l.Value()
	if err != nil {
		panic(fmt.Sprintf("value of a lease made up by a test: %v", err))
	}
	return decoded(key, value, revision, revision, 7)
}

// TestUniqueHistory is the life of a machine, of its clones, and of their leases.
func TestUniqueHistory(t *testing.T) {
	v := newView(t, uniqueRules(t))
	revision := int64(1000)
	put := func(r Record) []Change {
		revision = max(revision+1, r.Order)
		return v.Apply(Event{Type: Changed, Revision: revision, Put: []Record{r}})
	}
	gone := func(key string) []Change {
		revision++
		return v.Apply(Event{Type: Changed, Revision: revision, Deleted: []string{key}})
	}
	wantWhy := func(key, want string) {
		t.Helper()
		_, _, why := v.Get(key)
		wantError(t, why, want)
		if duplicate := want != "" && !errors.Is(why, ErrOverlap); errors.Is(why, ErrDuplicate) != duplicate {
			t.Errorf("%s: ErrDuplicate is %t, want %t", key, !duplicate, duplicate)
		}
	}
	const a, b, c = "10.5.10.0-24", "10.5.11.0-24", "10.5.12.0-24"
	const isA, isB = "MAC 1 (IPv4) is that of the older lease " + a, "MAC 1 (IPv4) is that of the older lease " + b
	wantChanges(t, "a machine", put(withData(a, 1001, "", "1", "")), "+"+a)
	wantChanges(t, "a clone", put(withData(b, 1002, "", "1", "")), "")
	wantWhy(b, isA)
	wantChanges(t, "a clone of our own", put(withData(c, 1003, "me", "1", "")), "")
	wantWhy(c, isA)

	// A clone has what it has been given: nobody else gets its subnet.
	wantChanges(t, "one that wants the clone's subnet", put(withData("10.5.11.0-25", 1004, "", "9", "")), "")
	wantWhy("10.5.11.0-25", "overlaps the older lease "+b)
	allocation, err := v.Allocate(Request{InstanceID: "me", Rand: rand.Uint64N})
	if err != nil || allocation.Subnets[IPv4] != pfx("10.5.12.0/24") {
		t.Errorf("we are to keep our subnet, and are given %v (%v)", allocation.Subnets, err)
	}

	ours := withData(c, 1003, "me", "3", "")
	wantChanges(t, "we choose another", put(ours), "")
	wantWhy(c, "")
	wantChanges(t, "the machine renews its lease in flannel's manner", put(withData(a, 1001, "", "1", "")), "")
	wantChanges(t, "the machine has another address", put(withData(a, 1001, "", "2", "")), "~"+a+" +"+b)
	wantChanges(t, "and the old one again", put(withData(a, 1001, "", "1", "")), "~"+a+" -"+b)
	wantWhy(b, isA)
	wantChanges(t, "the machine goes", gone(a), "-"+a+" +"+b)
	wantChanges(t, "the machine is back, and now the younger", put(withData(a, 1010, "", "1", "")), "")
	wantWhy(a, isB)
	spoiled := withData(b, 1002, "", "1", "")
	spoiled = withValue(spoiled, []byte("?"))
	wantChanges(t, "the elder is spoiled", put(spoiled), "-"+b+" +"+a+" +10.5.11.0-25")
	wantChanges(t, "and mended", put(withData(b, 1002, "", "1", "")), "+"+b+" -"+a+" -10.5.11.0-25")

	// Without rules on it, nothing is unique.
	wantChanges(t, "other rules", v.SetRules(viewRules(t)), "+"+a)
	wantChanges(t, "the rules again", v.SetRules(uniqueRules(t)), "-"+a)
}

// TestUniqueChain: who is beaten in one thing keeps no other.
func TestUniqueChain(t *testing.T) {
	const a, b, c = "10.5.10.0-24", "10.5.11.0-24&fd00:5:0:b::-64", "fd00:5:0:c::-64"
	v := newView(t, uniqueRules(t), withData(a, 1, "", "1", ""), withData(b, 2, "", "1", "6"), withData(c, 3, "", "", "6"))
	for key, want := range map[string]string{a: "", b: "MAC 1 (IPv4) is that of the older lease " + a, c: ""} {
		_, _, why := v.Get(key)
		wantError(t, why, want)
	}
	wantChanges(t, "the first goes", v.Apply(Event{Type: Changed, Revision: 1001, Deleted: []string{a}}), "-"+a+" +"+b+" -"+c)
	wantChanges(t, "and is back", v.Apply(Event{Type: Changed, Revision: 1002, Put: []Record{withData(a, 1, "", "1", "")}}), "+"+a+" -"+b+" +"+c)
}

// TestUniqueInAnyOrder has several views learn of the same leases in different orders, in steps and in snapshots.
func TestUniqueInAnyOrder(t *testing.T) {
	rnd := newRand(t)
	for range 200 {
		var records []Record
		for i := range 12 {
			data := func() string { return []string{"", "1", "2", "3", "4"}[rnd.IntN(5)] }
			key := FormatKey(netip.PrefixFrom(ip(fmt.Sprintf("10.5.%d.0", rnd.IntN(12))), 24),
				netip.PrefixFrom(ip(fmt.Sprintf("fd00:5:0:%x::", rnd.IntN(12))), 64))
			records = append(records, withData(key, int64(100+i), "", data(), data()))
		}
		slices.SortFunc(records, func(a, b Record) int { return strings.Compare(a.Name, b.Name) })
		records = slices.CompactFunc(records, func(a, b Record) bool { return a.Name == b.Name })
		whys := func(v *View) map[string]string {
			m := map[string]string{}
			for _, r := range records {
				if _, _, why := v.Get(r.Name); why != nil {
					m[r.Name] = why.Error()
				}
			}
			return m
		}
		want := whys(newView(t, uniqueRules(t), records...))
		for range 5 {
			rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
			v, n := newView(t, uniqueRules(t)), int64(1000)
			for part := range slices.Chunk(records, 1+rnd.IntN(4)) {
				n++
				v.Apply(Event{Type: Changed, Revision: n, Put: part})
			}
			if got := whys(v); !reflect.DeepEqual(got, want) {
				t.Fatalf("in the order %v:\ngot  %v\nwant %v", records, got, want)
			}
		}
	}
}

// TestUniqueCost: what a change costs does not depend on how many others there are, nor on how many share a thing with
// somebody else.
func TestUniqueCost(t *testing.T) {
	asked := 0
	rules := uniqueRules(t)
	check := rules.Check
	rules.Check = func(l Lease) ([]string, error) { asked++; return check(l) }
	var records []Record
	for i := range 200 { // half of them are clones of one machine
		data := "1"
		if i%2 == 0 {
			data = fmt.Sprint(i)
		}
		records = append(records, withData(fmt.Sprintf("10.5.%d.0-24", i), int64(1+i), "", data, ""))
	}
	v := newView(t, rules, records...)
	for _, r := range []Record{records[10], records[1], records[101], withData("10.5.250.0-24", 1001, "", "1", "")} {
		asked = 0
		v.Apply(Event{Type: Changed, Revision: v.Revision() + 1, Put: []Record{r}})
		if asked != 1 {
			t.Errorf("%s: %d leases were looked at, want 1", r.Name, asked)
		}
	}
	asked = 0
	wantChanges(t, "the eldest goes", v.Apply(Event{Type: Changed, Revision: v.Revision() + 1, Deleted: []string{"10.5.1.0-24"}}), "-10.5.1.0-24 +10.5.3.0-24")
	if asked < 100 || asked > 202 {
		t.Errorf("%d leases were looked at, want those that share its thing, once or twice", asked)
	}
}

func TestSamePublicIP(t *testing.T) {
	rules := viewRules(t)
	a, b, c := record("10.5.10.0-24", 3, "", "172.31.0.2", ""), record("10.5.11.0-24", 2, "", "172.31.0.2", ""),
		record("10.5.12.0-24&fd00:5:0:c::-64", 1, "", "172.31.0.2", "fd00:31::2")
	v := newView(t, rules, a, b, c,
		record("fd00:5:0:d::-64", 4, "", "", "fd00:31::2"),
		record("fd00:5:0:e::-64", 5, "", "", "fd00:31::3"),
		record("10.5.13.0-24", 6, "", "172.31.0.1", ""),   // ours, and a stranger's
		record("10.5.14.0-24", 7, "me", "172.31.0.1", "")) // our own
	wantSame := func(step string, want map[netip.Addr][]string) {
		t.Helper()
		got := map[netip.Addr][]string{}
		for ip, keys := range v.SamePublicIP {
			got[ip] = keys
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", step, got, want)
		}
	}
	six := []string{c.Name, "fd00:5:0:d::-64"}
	wantSame("at first", map[netip.Addr][]string{ip("172.31.0.2"): {c.Name, b.Name, a.Name}, ip("fd00:31::2"): six})
	n := 0
	for range v.SamePublicIP {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	v.Apply(Event{Type: Changed, Revision: 1001, Deleted: []string{b.Name}})
	wantSame("one goes", map[netip.Addr][]string{ip("172.31.0.2"): {c.Name, a.Name}, ip("fd00:31::2"): six})
	a = withValue(a, valueOf("", "172.31.0.7", ""))
	v.Apply(Event{Type: Changed, Revision: 1002, Put: []Record{a}})
	wantSame("one moves", map[netip.Addr][]string{ip("fd00:31::2"): six})
	rules.Config = mustConfig(t, `{"Network":"10.5.0.0/16"}`)
	v.SetRules(rules)
	wantSame("IPv6 is off", map[netip.Addr][]string{})
}
