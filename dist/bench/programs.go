package bench

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// attaches runs the CNI plugin's own benchmark.
func attaches(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=Attach", "-benchtime=200x", "./cniplugin/selvage")
	cmd.Dir = b.Root
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, out, errors.String())
	}
	for lines := benchfmt.NewReader(bytes.NewReader(out), "attach"); lines.Scan(); {
		result, ok := lines.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		floor, _ := result.Value("ms-floor-ADD")
		added, ok := result.Value("ms-added-ADD")
		if !ok {
			continue
		}
		b.report.add(Figure{Name: "AttachAdded", What: "CNI ADD, beyond what the bridge plugin takes", Unit: "ms", Value: added, Limit: atMost(3),
			Floor: &Reference{What: "any Go program that starts bridge", Value: floor}})
		return nil
	}
	return fmt.Errorf("%s: no result in %q", strings.Join(cmd.Args, " "), out)
}

// binaries looks how large the programs are, and whether they need anything beside them.
func binaries(_ context.Context, b *bench) error {
	for _, x := range []struct {
		name, what string
		limit      float64
	}{{"selvaged", "the daemon's binary", 30}, {"selvage", "the CNI plugin's binary", 5}} {
		path := b.program(x.name)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		b.report.add(Figure{Name: "Binary/" + x.name, What: x.what, Unit: "MB", Value: float64(info.Size()) / 1e6, Limit: atMost(x.limit)})
		loaders := 0.0
		f, err := elf.Open(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			loaders = 1
		}
		f.Close()
		b.report.add(Figure{Name: "BinaryLoaders/" + x.name, What: x.what + ": loaders it needs (0: it is static)", Unit: "loaders", Value: loaders, Limit: atMost(0)})
	}
	return nil
}
