package fastpath

import (
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// BenchmarkPrograms measures how long the programs take with a fast packet of UDP, as the kernel measures it. The
// result is the median.
func BenchmarkPrograms(b *testing.B) {
	if !loadable(b) {
		return
	}
	r := newRig(b)
	all := packets()
	for _, inner := range []string{"IPv4", "IPv6"} {
		frame := all[inner+" UDP"]
		key, _ := tupleOf(frame)
		for i, way := range []string{"over IPv4", "over IPv6", "directly"} {
			class := parse(frame[14:], inner == "IPv6").class
			r.learn(r.configs[i], key, key, class, frame)
			for _, program := range []struct {
				name string
				of   *ebpf.Program
				in   []byte
			}{{"from_pod", r.objects.FromPod, frame}, {"from_wire", r.objects.FromWire, r.wire(r.configs[i], frame)}} {
				b.Run(inner+" "+way+"/"+program.name, func(b *testing.B) { median(b, program.of, program.in) })
			}
		}
	}
}

func median(b *testing.B, program *ebpf.Program, in []byte) {
	b.Helper()
	var each []time.Duration
	for b.Loop() {
		verdict, took, err := program.Benchmark(in, 1, nil)
		if err != nil || verdict != 7 {
			b.Fatalf("the verdict is %d: %v", verdict, err)
		}
		each = append(each, took)
	}
	slices.Sort(each)
	b.ReportMetric(float64(each[len(each)/2].Nanoseconds()), "ns/packet")
	b.ReportMetric(0, "ns/op")
}
