package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/dist/chaos"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// flags are what the command is asked to do.
type flags struct {
	options chaos.Options
	only    *regexp.Regexp
	rounds  []string
	repeat  int
	walk    time.Duration
	seed    uint64
	leases  int
	rest    time.Duration
	list    bool
	logs    bool
}

// parse reads the arguments. Help that is asked for goes to w.
func parse(args []string, w io.Writer) (f flags, err error) {
	var only, families, store string
	set := pflag.NewFlagSet("chaos", pflag.ContinueOnError)
	set.SortFlags = false
	set.SetOutput(w)
	set.StringVar(&only, "only", "", "regular expression: only the faults whose name it matches, and neither walk nor rounds but the first unless asked for")
	set.StringSliceVar(&f.rounds, "rounds", roundNames(), "a lab each: the faults of an overlay by VXLAN with iptables, then those of other packet filters and backends, then many leases")
	set.StringVar(&families, "families", "dual", "of the overlay: ipv4, ipv6 or dual; with both, a fault of a family is done in both at once, then in each alone")
	set.StringVar(&store, "store", string(subnet.StoreEtcd),
		"of the leases: etcd, or kubernetes, which is a stand-in for its API server; no fault is of the store itself")
	set.BoolVar(&f.options.FastPath, "fast-path", false,
		"the daemons use the fast path, which has faults of its own: packets have to be fast again after every fault")
	set.IntVar(&f.repeat, "repeat", 3, "how often each fault is done on one node")
	set.DurationVar(&f.walk, "walk", 3*time.Minute, "how long random faults are done, in the first round")
	set.Uint64Var(&f.seed, "seed", 0, "of the random walk; 0: another one each time")
	set.IntVar(&f.leases, "leases", 5000, "how many leases there are in the last round; 0: leave it out")
	set.DurationVar(&f.rest, "rest", time.Minute, "how long that node is left alone, to see what the daemon costs at rest; 0: not at all")
	set.DurationVar(&f.options.Stopped, "stopped", time.Minute, "how long a daemon is stopped while entries could age")
	set.DurationVar(&f.options.Conflict, "fight", 10*time.Second,
		"how long another process works against a daemon: deletes a route every millisecond, for instance")
	set.StringVar(&f.options.Bin, "bin", "",
		"directory of selvaged, selvage, etcd, cni/ and wireguard (default: this program's)")
	set.BoolVar(&f.logs, "logs", false, "print what the daemons say even if all is well")
	set.BoolVar(&f.list, "list", false, "list the faults and end")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("takes no argument, got %q", set.Args())
	}
	if f.only, err = regexp.Compile(only); err != nil {
		return f, fmt.Errorf("--only: %w", err)
	}
	if f.options.Families, err = lab.ParseFamilies(families); err != nil {
		return f, fmt.Errorf("--families: %w", err)
	}
	if f.options.Store, err = lab.ParseStore(store); err != nil {
		return f, fmt.Errorf("--store: %w", err)
	}
	if f.repeat < 1 {
		return f, fmt.Errorf("--repeat=%d: want at least 1", f.repeat)
	}
	// After a shorter one too little time is left for what a daemon remembers of it (network/pace.go) to be over.
	if f.options.Conflict < 3*time.Second {
		return f, fmt.Errorf("--fight=%s: want at least 3s, else the faults that follow are measured against it",
			f.options.Conflict)
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"walk", f.walk}, {"rest", f.rest}, {"stopped", f.options.Stopped}} {
		if d.value < 0 {
			return f, fmt.Errorf("--%s=%s: want 0 or more", d.flag, d.value)
		}
	}
	if f.leases < 0 || f.leases > chaos.MaxLeases {
		return f, fmt.Errorf("--leases=%d: want 0 to %d", f.leases, chaos.MaxLeases)
	}
	if only != "" { // without the other parts
		if !set.Changed("walk") {
			f.walk = 0
		}
		if !set.Changed("rounds") {
			f.rounds = f.rounds[:1]
			if set.Changed("leases") {
				f.rounds = append(f.rounds, "leases")
			}
		}
	}
	if err := checkRounds(f.rounds); err != nil {
		return f, err
	}
	if f.leases == 0 {
		f.rounds = slices.DeleteFunc(f.rounds, func(name string) bool { return name == "leases" })
	}
	if f.seed == 0 {
		f.seed = rand.Uint64()
	}
	if f.options.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return f, err
		}
		f.options.Bin = filepath.Dir(exe)
	}
	return f, nil
}
