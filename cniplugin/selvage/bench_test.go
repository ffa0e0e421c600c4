package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// BenchmarkAttach attaches a container and detaches it, in turns through selvage, with the rendered configuration through
// bridge itself, and through a program that does no more than to start bridge. It reports the medians of the first two, what
// selvage adds, and what any program in its place would; and what a report to a daemon adds to selvage that enforces network
// policies, and has the rules in force at once:
//
//	go test -run '^$' -bench Attach -benchtime 300x ./cniplugin/selvage
func BenchmarkAttach(b *testing.B) {
	bin := build(b)
	through := filepath.Join(bin, "through")
	goBuild(b, through, "./testdata/through")
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
	const policed = `{"cniVersion":"1.0.0","name":"cbr0","type":"selvage","delegate":{"isDefaultGateway":true},"subnetFile":"` + subnetFile + `2"}`
	e := newEngine()
	e.attach = func(context.Context, api.Attachment) error { return nil }
	enforcing(b, host, e)
	go func() {
		for range e.detached {
		}
	}()
	call := func(program, verb, config string) time.Duration {
		cmd := exec.Command(program)
		cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=" + pod.Path(), podArgs,
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
		if err := errors.Join(subnetfile.Write(subnetFile, ipv4File()), subnetfile.Write(subnetFile+"2", ipv4File()),
			subnetfile.WriteStatus(subnetFile+"2", policies())); err != nil {
			return err
		}
		selvage, bridge := filepath.Join(bin, "selvage"), filepath.Join(plugins, "bridge")
		call(selvage, "ADD", network)
		rendered, err := os.ReadFile(filepath.Join(dataDir, "c1"))
		if err != nil {
			return err
		}
		call(selvage, "DEL", network)
		ways := []struct{ name, program, config string }{
			{"bridge", bridge, string(rendered)}, {"selvage", selvage, network}, {"through", through, string(rendered)},
			{"policies", selvage, policed},
		}
		for b.Loop() {
			for _, way := range ways {
				for _, verb := range []string{"ADD", "DEL"} {
					took[way.name+verb] = append(took[way.name+verb], call(way.program, verb, way.config))
				}
			}
			ways = append(ways[1:], ways[0]) // what one leaves for the kernel to clean up must not always be the same one's cost
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op") // of all together, which says nothing
	for _, verb := range []string{"ADD", "DEL"} {
		bridge, selvage := median(took["bridge"+verb]), median(took["selvage"+verb])
		b.ReportMetric(bridge, "ms-bridge-"+verb)
		b.ReportMetric(selvage, "ms-selvage-"+verb)
		b.ReportMetric(selvage-bridge, "ms-added-"+verb)
		b.ReportMetric(median(took["through"+verb])-bridge, "ms-floor-"+verb)
		b.ReportMetric(median(took["policies"+verb])-selvage, "ms-policies-"+verb)
	}
}

// median is in milliseconds.
func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2]) / float64(time.Millisecond)
}
