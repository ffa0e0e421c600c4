package subnet

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// manyLeases returns the records of n vxlan nodes in 10.0.0.0/8, up to 65,535, as selvage writes them.
func manyLeases(b *testing.B, r Range, n int) []Record {
	records := make([]Record, n)
	for i := range records {
		l := Lease{
			BackendType: "vxlan",
			InstanceID:  fmt.Sprintf("4be4e2b8-3e0c-4a8f-a9d5-%012d", i),
			NodeName:    fmt.Sprintf("node-%d", i),
		}
		l.Endpoints[IPv4] = Endpoint{
			Subnet:   r.At(uint64(i)),
			PublicIP: number(ip("172.16.0.1")).add(uint128{0, uint64(i)}).addr(true),
			Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"72:30:36:d0:%02x:%02x"}`, i>>8, i&255),
		}
		value, err := l.Value()
		if err != nil {
			b.Fatal(err)
		}
		records[i] = decoded(l.Key(), value, int64(i+1), int64(i+1), 1)
	}
	return records
}

// stored returns what decodes the records from a store's bytes, as the store does for each event.
func stored(records []Record) (decode func() []Record) {
	values := make([][]byte, len(records))
	for i, r := range records {
		values[i] = []byte(text(r))
	}
	return func() []Record {
		all := make([]Record, len(records))
		for i, r := range records {
			all[i] = decoded(strings.Clone(r.Name), values[i], r.Order, r.Version, r.LeaseID)
		}
		return all
	}
}

// BenchmarkViewApply is the cost of one change, which does not depend on how many leases there are.
func BenchmarkViewApply(b *testing.B) {
	for _, n := range []int{100, 1000, 5000, 20000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			c := mustConfig(b, `{"Network":"10.0.0.0/8"}`)
			records := manyLeases(b, c.Ranges[IPv4], n+1)
			v := newView(b, Rules{Config: c, InstanceID: "me"}, records[:n]...)
			one, revision := records[n], int64(100000)
			value := []byte(text(one))
			b.ReportAllocs()
			for b.Loop() { // it is added and removed
				revision++
				v.Apply(Event{Type: Changed, Revision: revision, Put: []Record{decoded(one.Name, value, revision, revision, 1)}})
				v.Apply(Event{Type: Changed, Revision: revision, Deleted: []string{one.Name}})
			}
		})
	}
}

// BenchmarkViewSnapshot is the cost of a whole snapshot, and the memory that a lease takes from then on.
func BenchmarkViewSnapshot(b *testing.B) {
	const n = 5000
	c := mustConfig(b, `{"Network":"10.0.0.0/8"}`)
	decode := stored(manyLeases(b, c.Ranges[IPv4], n))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var v *View
	for b.Loop() {
		v = newView(b, Rules{Config: c, InstanceID: "me"}, decode()...)
	}
	b.ReportMetric(float64(heap()-before)/n, "B/lease")
	runtime.KeepAlive(v)
	runtime.KeepAlive(decode)
}

// dataIsUnique are rules under which no two leases may have the same data.
func dataIsUnique(c Config) Rules {
	return Rules{Config: c, InstanceID: "me", Check: func(l Lease) ([]string, error) {
		return []string{l.Endpoints[IPv4].Data}, nil
	}}
}

// BenchmarkViewUnique is the cost of one change, and the memory of a lease, where something must be unique.
func BenchmarkViewUnique(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			c := mustConfig(b, `{"Network":"10.0.0.0/8"}`)
			records := manyLeases(b, c.Ranges[IPv4], n+1)
			heap := func() uint64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			decode := stored(records[:n])
			before := heap()
			v := newView(b, dataIsUnique(c), decode()...)
			size := heap() - before
			runtime.KeepAlive(decode)
			one, revision := records[n], int64(100000)
			value := []byte(text(one))
			b.ReportAllocs()
			for b.Loop() {
				revision++
				v.Apply(Event{Type: Changed, Revision: revision, Put: []Record{decoded(one.Name, value, revision, revision, 1)}})
				v.Apply(Event{Type: Changed, Revision: revision, Deleted: []string{one.Name}})
			}
			b.ReportMetric(float64(size)/float64(n), "B/lease")
			runtime.KeepAlive(records)
		})
	}
}

// BenchmarkViewCrowded is the cost of one change where a crowd wants what an older lease has: its subnet, or its data.
// It does not depend on how many they are.
func BenchmarkViewCrowded(b *testing.B) {
	for _, what := range []string{"subnet", "data"} {
		for _, n := range []int{100, 10000} {
			b.Run(fmt.Sprintf("%s/leases=%d", what, n), func(b *testing.B) {
				c := mustConfig(b, `{"Network":"10.0.0.0/8"}`)
				records := manyLeases(b, c.Ranges[IPv4], n+2)
				for i, r := range records[1:] {
					if what == "subnet" {
						key := fmt.Sprintf("%s&fd00::%x:0-112", records[0].Name, 1+i)
						records[1+i] = decoded(key, []byte(text(r)), r.Order, r.Version, r.LeaseID)
					} else {
						own := fmt.Sprintf("%02x:%02x", (1+i)>>8, (1+i)&255)
						records[1+i] = withValue(r, []byte(strings.Replace(text(r), own, "00:00", 1)))
					}
				}
				v := newView(b, dataIsUnique(c), records[:n+1]...)
				if valid, _ := v.Len(); valid != 1 {
					b.Fatalf("%d are accepted, want 1", valid)
				}
				one, revision := records[n+1], int64(100000)
				value := []byte(text(one))
				b.ReportAllocs()
				for b.Loop() {
					revision++
					v.Apply(Event{Type: Changed, Revision: revision, Put: []Record{decoded(one.Name, value, revision, revision, 1)}})
					v.Apply(Event{Type: Changed, Revision: revision, Deleted: []string{one.Name}})
				}
			})
		}
	}
}

// BenchmarkAllocate is the cost of finding a free subnet in a /8: proportional to the leases there are.
func BenchmarkAllocate(b *testing.B) {
	for _, n := range []int{600, 6000, 60000} {
		b.Run(fmt.Sprintf("leases=%d", n), func(b *testing.B) {
			c := mustConfig(b, `{"Network":"10.0.0.0/8"}`)
			v := newView(b, Rules{Config: c, InstanceID: "me"}, manyLeases(b, c.Ranges[IPv4], n)...)
			rnd := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Allocate(Request{InstanceID: "me", Rand: rnd.Uint64N}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/lease")
		})
	}
}
