package k8slab

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/selvage-net/selvage/dist/k8slab/results"
)

// cyclonusRegistry is the registry of the images; cyclonus has the rest of the reference, and a flag for the registry.
const cyclonusRegistry = "localhost"

func cyclonusImages(context.Context, *conformance) ([]string, error) {
	return []string{cyclonusRegistry + "/" + agnhostImage + ":2.43"}, nil
}

// cyclonus runs its cases with the addresses of pods in place of the names of services: there is no DNS in the cluster.
// What a pod sends to itself does not count: cyclonus expects that policies deny it, Kubernetes' documentation that
// they cannot. It says what it found at its end only.
func cyclonus(ctx context.Context, s *conformance) ([]results.Case, error) {
	report := s.file("cyclonus.xml")
	args := []string{
		"generate", "--image-registry=" + cyclonusRegistry, "--destination-type=pod-ip",
		"--junit-results-file=" + report, "--cleanup-namespaces", "--pod-creation-timeout-seconds=300",
		"--job-timeout-seconds=3", "--retries=2", "--ignore-loopback",
		"--perturbation-wait-seconds=1",
	}
	if len(s.Protocols) > 0 {
		args = append(args, "--server-protocol="+strings.Join(s.Protocols, ","))
	}
	if len(s.Tags) > 0 {
		args = append(args, "--exclude=", "--include="+strings.Join(s.Tags, ","))
	}
	cmd, closeLog, err := s.external(ctx, "cyclonus", "cyclonus", args...)
	if err != nil {
		return nil, err
	}
	ended := cmd.Run()
	if err := closeLog(); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("cyclonus: %w: %w; see %s", ended, err, s.log("cyclonus"))
	}
	cases, err := results.JUnit("cyclonus", data)
	for _, c := range cases {
		s.report(c)
	}
	return cases, err
}
