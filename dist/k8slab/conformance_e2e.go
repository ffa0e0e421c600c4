package k8slab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
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

// e2e runs the cases in several processes, which share nothing but the cluster: each case has namespaces of its own.
func e2e(ctx context.Context, s *conformance) ([]results.Case, error) {
	all, err := s.e2eRun(ctx, "list", e2eFocus([]string{e2eFeature}), "--ginkgo.dry-run")
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
	url, closeServer, err := s.e2eProgress()
	if err != nil {
		return nil, err
	}
	parts := deal(names, s.Parallel)
	cases, errs := make([][]results.Case, len(parts)), make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			cases[i], errs[i] = s.e2eRun(ctx, fmt.Sprint(i), e2eFocus(part), "--progress-report-url="+url)
		})
	}
	wg.Wait()
	return slices.Concat(cases...), errors.Join(errors.Join(errs...), closeServer())
}

// e2eFocus is the flag that selects cases by texts in their names.
func e2eFocus(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = regexp.QuoteMeta(t)
	}
	return "--ginkgo.focus=" + strings.Join(quoted, "|")
}

// deal spreads names over at most n parts, of which none is empty.
func deal(names []string, n int) [][]string {
	parts := make([][]string, min(n, len(names)))
	for i, name := range names {
		parts[i%len(parts)] = append(parts[i%len(parts)], name)
	}
	return parts
}

// e2eRun runs one process, and reads its report.
func (s *conformance) e2eRun(ctx context.Context, name string, args ...string) ([]results.Case, error) {
	report := s.file("e2e-" + name + ".json")
	args = append([]string{
		"--provider=skeleton", "--kubeconfig=" + s.kubeconfig("admin"), "--disable-log-dump", "--ginkgo.no-color", "--ginkgo.v",
		"--ginkgo.json-report=" + report,
	}, args...)
	cmd, closeLog, err := s.external(ctx, e2eName, "e2e-"+name, args...)
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
	if err == nil && failed != nil && results.CountOf(cases).Failed == 0 {
		err = fmt.Errorf("%s: %w, and no case failed", e2eName, failed)
	}
	return cases, err
}

// e2eProgress serves what the processes report of cases that ended, until the returned function is called.
func (s *conformance) e2eProgress() (url string, end func() error, err error) {
	l, err := net.Listen("tcp", net.JoinHostPort(underlay()[s.families()[0]], "0"))
	if err != nil {
		return "", nil, err
	}
	var mu sync.Mutex
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var progress struct{ Msg string }
		if json.NewDecoder(r.Body).Decode(&progress) != nil {
			return
		}
		for word, outcome := range map[string]results.Outcome{"PASSED ": results.Passed, "FAILED ": results.Failed} {
			if name, ok := strings.CutPrefix(progress.Msg, word); ok {
				mu.Lock()
				s.report(results.Case{Suite: "e2e", Name: name, Outcome: outcome})
				mu.Unlock()
			}
		}
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	return "http://" + l.Addr().String(), func() error {
		err := server.Close()
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	}, nil
}
