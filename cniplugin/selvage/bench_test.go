package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// BenchmarkAttach attaches a container and detaches it, through selvage and with the rendered configuration through bridge
// itself, in turns, and reports the medians of both and what selvage adds:
//
//	go test -run '^$' -bench Attach -benchtime 300x ./cniplugin/selvage
func BenchmarkAttach(b *testing.B) {
	bin := build(b)
	host, err := sandbox.NewHost("node")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { host.Close() })
	pod, err := host.NewNet()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { pod.Close() })
	plugins, err := filepath.Abs(reference)
	if err != nil {
		b.Fatal(err)
	}
	const network = `{"cniVersion":"1.0.0","name":"cbr0","type":"selvage","delegate":{"isDefaultGateway":true}}`
	call := func(program, verb, config string) time.Duration {
		cmd := exec.Command(program)
		cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=" + pod.Path(),
			"CNI_PATH=" + bin + ":" + plugins, "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = bytes.NewReader([]byte(config))
		begin := time.Now()
		out, err := cmd.Output()
		took := time.Since(begin)
		if err != nil {
			b.Fatalf("%s %s: %v: %s", program, verb, err, out)
		}
		return took
	}
	took := map[string][]time.Duration{}
	err = host.Do(func() error {
		if err := subnet.WriteFile(subnetFile, ipv4File()); err != nil {
			return err
		}
		selvage, bridge := filepath.Join(bin, "selvage"), filepath.Join(plugins, "bridge")
		call(selvage, "ADD", network)
		rendered, err := os.ReadFile(filepath.Join(dataDir, "cbr0:c1:eth0"))
		if err != nil {
			return err
		}
		call(selvage, "DEL", network)
		ways := []struct{ name, program, config string }{{"bridge", bridge, string(rendered)}, {"selvage", selvage, network}}
		for b.Loop() {
			for _, way := range ways {
				for _, verb := range []string{"ADD", "DEL"} {
					took[way.name+verb] = append(took[way.name+verb], call(way.program, verb, way.config))
				}
			}
			slices.Reverse(ways) // what one leaves for the kernel to clean up must not always be the other's cost
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op") // of both together, which says nothing
	for _, verb := range []string{"ADD", "DEL"} {
		direct, through := median(took["bridge"+verb]), median(took["selvage"+verb])
		b.ReportMetric(direct, "ms-bridge-"+verb)
		b.ReportMetric(through, "ms-selvage-"+verb)
		b.ReportMetric(through-direct, fmt.Sprintf("ms-added-%s", verb))
	}
}

// median is in milliseconds.
func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2]) / float64(time.Millisecond)
}
