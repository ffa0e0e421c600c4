package command

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/connectivity"
)

func exampleReport() connectivity.Report {
	return connectivity.Report{Nodes: []string{"node1", "node2"}, Image: "selvage:v1", Took: 42 * time.Second, Checks: []connectivity.Check{
		{Name: "pods start", Probes: 4, Took: 3 * time.Second},
		{Name: "pod to pod, other node", Family: "IPv4", Probes: 8, Failed: 7, Took: 1500 * time.Millisecond,
			Failures: []connectivity.Failure{
				{From: "first-a on node1", To: "udp first-b", Error: "i/o timeout"},
				{From: "first-a on node1", To: "tcp <first-b>", Error: "the source address seen is 192.0.2.1, and not 10.5.1.2"},
				{From: "first-b on node2", To: "udp a", Error: "3"}, {From: "first-b on node2", To: "udp a", Error: "4"},
				{From: "first-b on node2", To: "udp a", Error: "5"}, {From: "first-b on node2", To: "udp a", Error: "6"},
				{From: "first-b on node2", To: "udp a", Error: "7"},
			}},
		{Name: "DNS", NotRun: "the cluster has none"},
	}}
}

func TestShowConnectivity(t *testing.T) {
	var out strings.Builder
	ShowConnectivity(&out, exampleReport())
	writeJUnit(&out, connectivityJUnit(exampleReport()))
	golden(t, "connectivity.txt", out.String())
	_, junit, _ := strings.Cut(out.String(), "<testsuites>")
	if err := xml.Unmarshal([]byte("<testsuites>"+junit), new(struct{})); err != nil {
		t.Error(err)
	}
}

func TestConnectivityFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"--policies":    {"--policies=some"},
		"--outside":     {"--outside=example.org:443"},
		"--timeout":     {"--timeout=0s"},
		"--output":      {"-o", "xml"},
		"192.0.2.7:443": {"--outside=192.0.2.7"},
	} {
		c := ConnectivityTest(nil)
		c.SetArgs(append(args, "--kubectl=/nonexistent"))
		c.SilenceErrors, c.SilenceUsage = true, true
		if err := c.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error about %s", args, err, want)
		}
	}
}
