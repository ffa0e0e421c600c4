package k8slab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/image"
	"github.com/selvage-net/selvage/dist/k8slab/results"
)

// Conformance says which suites for network policies are run, and which parts of them.
type Conformance struct {
	Suites    []string       // of ConformanceSuites, in the order in which they are run
	Focus     *regexp.Regexp // only cases whose names it matches; nil: all. Not for cyclonus
	Tags      []string       // of cyclonus' cases; empty: those that it runs by default
	Protocols []string       // protocols that cyclonus probes; empty: TCP, UDP and SCTP
	Parallel  int            // processes of the suite e2e
}

// conformanceSuite is one of other projects' suites.
type conformanceSuite struct {
	name string
	// prepare, if it is not nil, prepares the cluster before selvage is installed.
	prepare func(context.Context, *conformance) error
	// images are the references under which its pods ask for agnhost, Kubernetes' test program.
	images func(context.Context, *conformance) ([]string, error)
	// run runs it. It reports each case as it ends, if the suite says so, and returns all of them. An error means that
	// the suite itself could not be run.
	run func(context.Context, *conformance) ([]results.Case, error)
}

func conformanceSuites() []conformanceSuite {
	return []conformanceSuite{
		{name: "e2e", images: e2eImages, run: e2e},
		{name: "cluster", prepare: clusterPolicyKind, images: clusterPolicyImages, run: clusterPolicy},
		{name: "cyclonus", images: cyclonusImages, run: cyclonus},
	}
}

// ConformanceSuites lists the names of the suites: that of Kubernetes for NetworkPolicy, that of ClusterNetworkPolicy,
// and cyclonus.
func ConformanceSuites() (names []string) {
	for _, s := range conformanceSuites() {
		names = append(names, s.name)
	}
	return names
}

// conformance is a cluster in which suites are run.
type conformance struct {
	*suite
	Conformance
	w io.Writer
}

// Conform runs suites for network policies in a cluster that enforces them. It writes each case to w as it ends, then a
// table of all of them, and as the last line their counts. It returns the cases. That some failed is not an error.
func Conform(ctx context.Context, o Options, run Conformance, w io.Writer) (cases []results.Case, err error) {
	o.Policies = "on"
	began := time.Now()
	c, err := New(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	s := &conformance{&suite{Cluster: c}, run, w}
	if err := s.setUp(ctx); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.picture(ctx))
	}
	fmt.Fprintf(w, "control plane and %d nodes started in %.0fs\n", len(c.nodes), time.Since(began).Seconds())
	for _, suite := range s.suites() {
		found, err := s.runSuite(ctx, suite)
		cases = append(cases, found...)
		if err != nil {
			return cases, fmt.Errorf("%s: %w\n%s", suite.name, err, c.picture(ctx))
		}
	}
	if o.FastPath {
		found, err := fastCountsOf(ctx, s.suite)
		if err != nil {
			return cases, err
		}
		for _, line := range found {
			fmt.Fprintln(w, line)
		}
	}
	return cases, results.WriteTable(w, cases)
}

// suites are those to run.
func (s *conformance) suites() []conformanceSuite {
	return slices.DeleteFunc(conformanceSuites(), func(c conformanceSuite) bool {
		return !slices.Contains(s.Suites, c.name)
	})
}

// setUp prepares the cluster and installs selvage in it.
func (s *conformance) setUp(ctx context.Context) error {
	if _, err := notReady(ctx, s.suite); err != nil {
		return err
	}
	for _, suite := range s.suites() {
		if suite.prepare == nil {
			continue
		}
		if err := suite.prepare(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", suite.name, err)
		}
	}
	_, err := daemonSet(ctx, s.suite)
	return err
}

func (s *conformance) runSuite(ctx context.Context, suite conformanceSuite) ([]results.Case, error) {
	images, err := suite.images(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := s.importAgnhost(ctx, images); err != nil {
		return nil, err
	}
	began := time.Now()
	cases, err := suite.run(ctx, s)
	fmt.Fprintf(s.w, "%s ended after %.0fs\n", suite.name, time.Since(began).Seconds())
	return cases, errors.Join(err, s.ended())
}

// report writes a line about a case that ended.
func (s *conformance) report(c results.Case) {
	fmt.Fprintf(s.w, "%s  %-8s %s %s\n", time.Now().Format(time.TimeOnly), c.Outcome, c.Suite, c.Name)
}

// importAgnhost gives each node an image with agnhost under these references. There is a shell in it, by which some
// pods start it.
func (s *conformance) importAgnhost(ctx context.Context, references []string) error {
	shell, err := exec.LookPath("bash")
	if err != nil {
		return fmt.Errorf("pack agnhost: %w", err)
	}
	files, err := withLibraries(ctx, image.File{Path: "/bin/bash", From: shell})
	if err != nil {
		return fmt.Errorf("pack agnhost: %w", err)
	}
	spec := image.Spec{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Command: []string{"/agnhost", "pause"}, Env: []string{"PATH=/bin"},
		Files: append(files, image.File{Path: "/agnhost", From: s.command("agnhost")}),
	}
	for _, reference := range references {
		archive, err := s.pack("agnhost", reference, spec)
		if err != nil {
			return err
		}
		for _, n := range s.nodes {
			if err := n.Runtime.Import(ctx, archive); err != nil {
				return err
			}
		}
	}
	return nil
}

// external is a program of a suite, which acts as the cluster's administrator. What it prints goes to a log, which the
// caller closes.
func (s *conformance) external(
	ctx context.Context, name, logName string, args ...string,
) (*exec.Cmd, func() error, error) {
	log, err := os.Create(s.log(logName))
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, s.command(name), args...)
	cmd.Env = append(os.Environ(), s.Environment()...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) }
	cmd.WaitDelay = time.Minute
	return cmd, log.Close, nil
}

// focused says whether a case is one that was asked for.
func (r Conformance) focused(name string) bool { return r.Focus == nil || r.Focus.MatchString(name) }

// imagesIn lists the references to images in manifests.
func imagesIn(manifests string) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^[\s-]*image:\s*(\S+)\s*$`).FindAllStringSubmatch(manifests, -1) {
		if reference := strings.Trim(m[1], `"'`); !slices.Contains(list, reference) {
			list = append(list, reference)
		}
	}
	return list
}
