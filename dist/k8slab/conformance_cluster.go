package k8slab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/selvage-net/selvage/dist/k8slab/results"
)

// The conformance suite of ClusterNetworkPolicy, and the directory with files of its module.
const (
	clusterPolicyName  = "clusterpolicy.test"
	clusterPolicyFiles = "clusterpolicy"
)

func (s *conformance) clusterPolicyFile(name string) string {
	return filepath.Join(s.command(clusterPolicyFiles), name)
}

func clusterPolicyImages(_ context.Context, s *conformance) ([]string, error) {
	data, err := os.ReadFile(s.clusterPolicyFile("manifests.yaml"))
	return imagesIn(string(data)), err
}

// clusterPolicyKind installs the kind before selvage, which looks for it only now and then where it is missing.
func clusterPolicyKind(ctx context.Context, s *conformance) error {
	if _, err := s.kubectl(ctx, "apply", "--server-side", "-f", s.clusterPolicyFile("crd.yaml")); err != nil {
		return err
	}
	// kubectl's wait fails if there are no conditions yet.
	return s.eventually(ctx, "the kind ClusterNetworkPolicy is established", func() error {
		_, err := s.kubectl(ctx, "wait", "--for=condition=Established", "-f", s.clusterPolicyFile("crd.yaml"), timeout())
		return err
	})
}

// clusterPolicy runs the suite with all features that selvage has.
func clusterPolicy(ctx context.Context, s *conformance) ([]results.Case, error) {
	focus := ""
	if s.Focus != nil {
		focus = "/" + s.Focus.String()
	}
	suite, closeLog, err := s.external(ctx, clusterPolicyName, "cluster", "-test.v=test2json", "-test.timeout=0",
		"-test.run=^TestConformance$"+focus, "-supported-features=ClusterNetworkPolicyNamedPorts")
	if err != nil {
		return nil, err
	}
	convert := exec.CommandContext(ctx, s.command("test2json"), "-t") // with times
	convert.Stderr = suite.Stderr
	events, err := convert.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, closeLog())
	}
	text, err := convert.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, closeLog())
	}
	suite.Stdout = io.MultiWriter(text, suite.Stdout)
	if err := errors.Join(convert.Start(), suite.Start()); err != nil {
		return nil, errors.Join(err, closeLog())
	}
	ended := make(chan error, 1)
	go func() {
		err := suite.Wait() // not nil if a case failed, which the events say
		_ = text.Close()
		ended <- err
	}()
	cases, err := results.GoTest("cluster", events, s.report)
	failed := <-ended
	err = errors.Join(err, convert.Wait(), closeLog())
	if err == nil && failed != nil && results.CountOf(cases).Failed == 0 {
		err = fmt.Errorf("%s: %w, and no case failed", clusterPolicyName, failed)
	}
	return cases, err
}
