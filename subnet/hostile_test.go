package subnet_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnettest"
)

// ours is the instance id of subnettest.Rules.
const ours = "0000000000000000000000000000000b"

// cluster returns a view of the corpus' cluster, as of revision 50, and its peers.
func cluster(t testing.TB) (*subnet.View, map[string]subnet.Lease) {
	t.Helper()
	rules, err := subnettest.Rules()
	if err != nil {
		t.Fatal(err)
	}
	v := subnet.NewView()
	v.SetRules(rules)
	v.Apply(subnet.Event{Type: subnet.Page, Revision: 50, Put: subnettest.Peers()})
	if changes := v.Apply(subnet.Event{Type: subnet.Synced, Revision: 50}); len(changes) != len(subnettest.Peers()) {
		t.Fatalf("%d peers are let in, want %d", len(changes), len(subnettest.Peers()))
	}
	return v, peersOf(v)
}

func peersOf(v *subnet.View) map[string]subnet.Lease {
	peers := map[string]subnet.Lease{}
	for m := range v.Peers {
		peers[m.Name] = m.Lease
	}
	return peers
}

func hostile(t testing.TB) []subnettest.Record {
	t.Helper()
	records, err := subnettest.Hostile()
	if err != nil {
		t.Fatal(err)
	}
	if len(records) <= 1000 {
		t.Fatalf("%d records, want more than 1000", len(records))
	}
	return records
}

// decoded is a record that was created and not changed.
func decoded(key string, value []byte, revision, lease int64) subnet.Record {
	r := subnet.DecodeRecord(key, value)
	r.Order, r.Version, r.LeaseID = revision, revision, lease
	return r
}

func stored(r subnettest.Record, revision int64) subnet.Record {
	return decoded(r.Key, r.Value, revision, 2)
}

// wantQuarantined fails unless r is quarantined for its own reason, and that is fit to be shown.
func wantQuarantined(t *testing.T, v *subnet.View, r subnettest.Record) {
	t.Helper()
	_, ok, why := v.Get(r.Key)
	if !ok || why == nil || !strings.Contains(why.Error(), r.Why) {
		t.Errorf("key %q, value %q: known %t, the reason is %v, want %s", r.Key, r.Value, ok, why, r.Why)
	} else {
		checkReason(t, why)
	}
}

// checkReason fails if a reason is long or holds what a terminal or a log would do something with.
func checkReason(t testing.TB, why error) {
	t.Helper()
	text := why.Error()
	if len(text) > 600 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("a reason that is not fit to be shown: %q", text)
	}
}

// TestHostileOneByOne stores each record of the corpus alone and deletes it again.
func TestHostileOneByOne(t *testing.T) {
	v, peers := cluster(t)
	revision := int64(100)
	keys := map[string]bool{}
	for _, r := range hostile(t) {
		if keys[r.Key] {
			t.Errorf("key %q comes twice", r.Key)
		}
		keys[r.Key] = true
		revision++
		changes := v.Apply(subnet.Event{Type: subnet.Changed, Revision: revision, Put: []subnet.Record{stored(r, revision)}})
		wantQuarantined(t, v, r)
		revision++
		changes = append(changes, v.Apply(subnet.Event{Type: subnet.Changed, Revision: revision, Deleted: []string{r.Key}})...)
		if len(changes) > 0 {
			t.Errorf("key %q, value %q changes peers: %v", r.Key, r.Value, changes)
		}
		if _, ok, _ := v.Get(r.Key); ok {
			t.Errorf("key %q: still there after it was deleted", r.Key)
		}
	}
	if valid, quarantined := v.Len(); valid != len(peers) || quarantined != 0 {
		t.Errorf("%d valid and %d quarantined in the end, want %d and 0", valid, quarantined, len(peers))
	}
}

// TestHostileTogether stores the whole corpus at once, in whatever order, around the peers. The peers stay as they are,
// a new node finds a subnet, and when the corpus goes nothing of it is left.
func TestHostileTogether(t *testing.T) {
	records := hostile(t)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 3 {
		v, peers := cluster(t)
		rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		page := subnettest.Peers()
		var keys []string
		for i, r := range records {
			page = append(page, stored(r, 100+int64(i)))
			keys = append(keys, r.Key)
		}
		v.Apply(subnet.Event{Type: subnet.Page, Revision: 9000, Put: page})
		if changes := v.Apply(subnet.Event{Type: subnet.Synced, Revision: 9000}); len(changes) > 0 {
			t.Errorf("the corpus changes peers: %v", changes)
		}
		for _, r := range records {
			wantQuarantined(t, v, r)
		}
		if valid, quarantined := v.Len(); valid != len(peers) || quarantined != len(records) {
			t.Errorf("%d valid and %d quarantined, want %d and %d", valid, quarantined, len(peers), len(records))
		}
		a, err := v.Allocate(subnet.Request{InstanceID: "new", Rand: rnd.Uint64N})
		if err != nil {
			t.Errorf("a new node finds no subnet: %v", err)
		}
		mine := decoded(subnet.FormatKey(a.Subnets[:]...), []byte(`{"PublicIP":"172.31.0.15","PublicIPv6":"fd00:31::15","BackendType":"vxlan",`+
			`"BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:0f"},"BackendV6Data":{"VNI":1,"VtepMAC":"0e:05:00:00:06:0f"}}`), 9001, 1)
		if changes := v.Apply(subnet.Event{Type: subnet.Changed, Revision: 9001, Put: []subnet.Record{mine}}); len(changes) != 1 {
			_, _, why := v.Get(mine.Name)
			t.Errorf("the new node's lease gives %v: %v", changes, why)
		}
		v.Apply(subnet.Event{Type: subnet.Changed, Revision: 9002, Deleted: append(keys, mine.Name)})
		if got := peersOf(v); len(got) != len(peers) {
			t.Errorf("peers %v, want %v", got, peers)
		}
		if _, quarantined := v.Len(); quarantined != 0 {
			t.Errorf("%d are quarantined after all are gone", quarantined)
		}
		if t.Failed() {
			t.Fatalf("the seed was %d", seed)
		}
	}
}

// TestHostileElders stores what is bad by itself before the peers come: age is no merit of a bad lease.
func TestHostileElders(t *testing.T) {
	rules, err := subnettest.Rules()
	if err != nil {
		t.Fatal(err)
	}
	v := subnet.NewView()
	v.SetRules(rules)
	var page []subnet.Record
	for _, r := range hostile(t) {
		if r.Needs == "" {
			page = append(page, stored(r, 1))
		}
	}
	_, peers := cluster(t)
	v.Apply(subnet.Event{Type: subnet.Page, Revision: 50, Put: slices.Concat(page, subnettest.Peers())})
	v.Apply(subnet.Event{Type: subnet.Synced, Revision: 50})
	for key, lease := range peers {
		if got, ok := peersOf(v)[key]; !ok || got != lease {
			_, _, why := v.Get(key)
			t.Errorf("%s is %+v (%t): %v", key, got, ok, why)
		}
	}
}

// TestHostileMemory stores the corpus under many more keys, and records that are as large as a store takes.
func TestHostileMemory(t *testing.T) {
	v, _ := cluster(t)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	records := hostile(t)
	huge := []byte(`{"PublicIP":"` + strings.Repeat("x", 1<<20) + `"}`)
	before := heap()
	revision, n := int64(100), 0
	var page []subnet.Record
	flush := func() {
		revision++
		if changes := v.Apply(subnet.Event{Type: subnet.Changed, Revision: revision, Put: page}); len(changes) > 0 {
			t.Fatalf("changes %v", changes)
		}
		page = nil
	}
	put := func(key string, value []byte) {
		n++
		page = append(page, decoded(key, value, revision+1, 0))
		if len(page) == 1000 {
			flush()
		}
	}
	for i := range 100_000 {
		r := records[i%len(records)]
		put(fmt.Sprintf("%s %d", r.Key, i), r.Value)
	}
	for i := range 50 {
		put(strings.Repeat(string(rune('a'+i)), 1<<20), huge)
	}
	flush()
	garbage := heap() - before
	if _, quarantined := v.Len(); quarantined != n {
		t.Errorf("%d are quarantined, want %d", quarantined, n)
	}
	if garbage > 6<<20 {
		t.Errorf("%d garbage keys take %d bytes, want less than 6 MB", n, garbage)
	}

	bad := [][]byte{huge, slices.Concat(huge[:2000], []byte(`"}`)), []byte(`{"NodeName":` + strings.Repeat("9", 4000) + `}`)}
	before, n = heap(), 0
	for i := range 2000 { // keys that a lease can have, with values that none can
		key := subnet.FormatKey(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(128 + i>>4), byte(i << 4)}), 28))
		put(key, bad[i%len(bad)])
	}
	flush()
	each := (heap() - before) / 2000
	if each > 1000 {
		t.Errorf("a bad value takes %d bytes, want less than 1000", each)
	}
	t.Logf("%d bytes of 100,050 garbage keys, %d bytes of each bad value", garbage, each)
	runtime.KeepAlive(v)
	runtime.KeepAlive(records)
	runtime.KeepAlive(bad)
}
