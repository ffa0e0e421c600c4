package bench

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// atRest is how long after its start a daemon's memory is taken to be what it stays at. What the start left over the Go
// runtime gives back within seconds.
const atRest = 10 * time.Second

const few, many = 100, 10_000 // leases, between which growth is measured

func memories(ctx context.Context, b *bench) error {
	rest := map[string]map[int]memory{}
	for _, leases := range []int{few, 5000, many} {
		c, err := b.cluster(ctx, leases, ipv4())
		if err != nil {
			return err
		}
		peak, resident, anon, file := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		for range min(3, b.Rounds) {
			for _, p := range b.programs() {
				s, err := b.start(ctx, p, c, atRest, nil)
				if err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				peak[p.name] = append(peak[p.name], s.memory.Peak/1e6)
				resident[p.name] = append(resident[p.name], s.memory.Resident/1e6)
				anon[p.name] = append(anon[p.name], s.memory.Anon/1e6)
				file[p.name] = append(file[p.name], s.memory.File/1e6)
			}
		}
		var peakLimit, restLimit *float64
		if leases == 5000 {
			peakLimit, restLimit = atMost(32), atMost(26)
		}
		of, words := fmt.Sprintf("leases=%d", leases), fmt.Sprintf("%d leases", leases)
		for _, p := range b.programs() {
			if rest[p.name] == nil {
				rest[p.name] = map[int]memory{}
			}
			rest[p.name][leases] = memory{Resident: median(resident[p.name]), Anon: median(anon[p.name])}
			if p.isPeer() {
				b.report.peer("MemoryPeak/"+of, p.name, peak[p.name], 0)
				b.report.peer("MemoryRest/"+of, p.name, resident[p.name], 0)
				b.report.peer("MemoryRestAnon/"+of, p.name, anon[p.name], 0)
				b.report.peer("MemoryRestFile/"+of, p.name, file[p.name], 0)
				continue
			}
			b.report.add(Figure{Name: "MemoryPeak/" + of, What: words + ": peak memory", Unit: "MB", Samples: peak[p.name], Limit: peakLimit})
			b.report.add(Figure{Name: "MemoryRest/" + of, What: words + ": memory at rest", Unit: "MB", Samples: resident[p.name], Limit: restLimit})
			b.report.add(Figure{Name: "MemoryRestAnon/" + of, What: words + ": of it, heap and stacks (RssAnon)", Unit: "MB", Samples: anon[p.name]})
			b.report.add(Figure{Name: "MemoryRestFile/" + of, What: words + ": of it, the program itself (RssFile)", Unit: "MB", Samples: file[p.name]})
		}
	}
	growth := func(of map[int]memory) float64 { return 1e6 * (of[many].Resident - of[few].Resident) / (many - few) }
	b.report.add(Figure{Name: "MemoryGrowth", What: fmt.Sprintf("memory at rest a lease, %d to %d", few, many), Unit: "B", Value: growth(rest["selvaged"]), Limit: atMost(1500)})
	for _, p := range b.programs()[1:] {
		b.report.peer("MemoryGrowth", p.name, nil, growth(rest[p.name]))
	}
	return nil
}

// machine is memory of the whole machine's, in MB.
type machine struct{ available, slab, perCPU float64 }

// machineMemory reads proc_meminfo(5).
func machineMemory() (m machine) {
	b, _ := os.ReadFile("/proc/meminfo") // what cannot be read is not told
	for line := range strings.Lines(string(b)) {
		var kB float64
		name, rest, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscan(rest, &kB); err != nil {
			continue
		}
		switch name {
		case "MemAvailable":
			m.available = kB * 1024 / 1e6
		case "Slab":
			m.slab = kB * 1024 / 1e6
		case "Percpu":
			m.perCPU = kB * 1024 / 1e6
		}
	}
	return m
}

func (m machine) since(now machine) string {
	return fmt.Sprintf("the machine has %s MB less to give than before, %s MB of them the kernel's objects (Slab), %s MB what it has once a core (Percpu); %s MB are left",
		number(m.available-now.available), number(now.slab-m.slab), number(now.perCPU-m.perCPU), number(now.available))
}
