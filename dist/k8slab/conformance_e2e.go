package k8slab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/selvage-net/selvage/dist/k8slab/results"
)

// e2eName is the program with Kubernetes' own end-to-end tests.
const e2eName = "e2e.test"

// e2eFeature is in the names of the cases for NetworkPolicy.
const e2eFeature = "[Feature:NetworkPolicy]"

// agnhostImage is the name of the image with agnhost. Others of that program are for tests of authentication.
const agnhostImage = "e2e-test-images/agnhost"

// e2eImages asks the program.
func e2eImages(ctx context.Context, s *conformance) ([]string, error) {
	out, err := exec.CommandContext(ctx, s.command(e2eName), "--list-images").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list-images: %w", e2eName, err)
	}
	for _, reference := range strings.Fields(string(out)) {
		if strings.Contains(reference, "/"+agnhostImage+":") {
			return []string{reference}, nil
		}
	}
	return nil, fmt.Errorf("%s --list-images: %s is not among them", e2eName, agnhostImage)
}

// e2e runs each case in a process of its own, some at a time. They share nothing but the cluster: each case has
// namespaces of its own.
func e2e(ctx context.Context, s *conformance) ([]results.Case, error) {
	all, err := s.e2eRun(ctx, "list", e2eFeature, "--ginkgo.dry-run")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range all {
		if s.focused(c.Name) {
			names = append(names, c.Name)
		}
	}
	fmt.Fprintf(s.w, "e2e: %d of %d cases\n", len(names), len(all))
	var (
		next   = make(chan int)
		mu     sync.Mutex // of the following, and of reports
		cases  []results.Case
		errs   []error
		worker sync.WaitGroup
	)
	for range s.Parallel {
		worker.Go(func() {
			for i := range next {
				found, err := s.e2eRun(ctx, fmt.Sprint(i), names[i])
				mu.Lock()
				for _, c := range found {
					s.report(c)
				}
				cases, errs = append(cases, found...), append(errs, err)
				mu.Unlock()
			}
		})
	}
	for i := range names {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	worker.Wait()
	return cases, errors.Join(append(errs, ctx.Err())...)
}

// e2eRun runs the cases with a text in their names, and reads the report.
func (s *conformance) e2eRun(ctx context.Context, log, text string, args ...string) ([]results.Case, error) {
	report := s.file("e2e-" + log + ".json")
	args = append([]string{
		"--provider=skeleton", "--kubeconfig=" + s.kubeconfig("admin"), "--disable-log-dump", "--ginkgo.no-color",
		"--ginkgo.v", "--ginkgo.json-report=" + report, "--ginkgo.focus=" + regexp.QuoteMeta(text),
	}, args...)
	cmd, closeLog, err := s.external(ctx, e2eName, "e2e-"+log, args...)
	if err != nil {
		return nil, err
	}
	failed := cmd.Run() // also if a case failed, which the report says
	if err := closeLog(); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", e2eName, failed, err)
	}
	cases, err := results.Ginkgo("e2e", data)
	err = errors.Join(err, os.Remove(report))
	if err == nil && failed != nil && results.CountOf(cases).Failed == 0 {
		err = fmt.Errorf("%s: %w, and no case failed", e2eName, failed)
	}
	return cases, err
}
