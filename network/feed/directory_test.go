package feed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/testctx"
)

const (
	namespaceFile = `
apiVersion: v1
kind: Namespace
metadata: {name: red, labels: {team: r}}
`
	podsFile = `
apiVersion: v1
kind: Pod
metadata: {name: own, namespace: red, labels: {app: own}}
spec: {nodeName: a}
status: {podIPs: [{ip: 10.5.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: peer, namespace: red, labels: {app: peer}}
spec: {nodeName: b}
status: {podIPs: [{ip: 10.5.2.2}]}
`
	closedFile = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: red}
spec: {podSelector: {}}
`
	openFile = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: red}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: wide}
spec: {tier: Baseline, priority: 5, subject: {namespaces: {}}}
`
)

// files is a directory that is followed.
type files struct {
	t      *testing.T
	dir    string
	lines  *logged
	report *Report
	*sink
}

// followFiles follows a directory until the test ends. Its files are in place before, unless the directory is missing.
func followFiles(t *testing.T, before map[string]string) *files {
	t.Helper()
	log, lines := logger(t)
	f := &files{t: t, dir: filepath.Join(t.TempDir(), "policies"), lines: lines, report: &Report{}, sink: newSink(t)}
	if before != nil {
		f.make()
	}
	for name, text := range before {
		f.write(name, text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Directory(ctx, DirectoryOptions{Dir: f.dir, Sink: f.sink, Report: f.report, Log: log})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *files) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) make() { f.t.Helper(); f.must(os.Mkdir(f.dir, 0o755)) }

// write replaces a file.
func (f *files) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, "."+name)
	f.must(os.WriteFile(path, []byte(text), 0o600))
	f.must(os.Rename(path, filepath.Join(f.dir, name)))
}

func (f *files) remove(name string) { f.t.Helper(); f.must(os.Remove(filepath.Join(f.dir, name))) }

// noted waits until what was not understood is of these objects.
func (f *files) noted(want ...string) {
	f.t.Helper()
	testctx.Eventually(f.t, func() string {
		var got []string
		for _, n := range f.report.State().Notes {
			got = append(got, n.Object)
		}
		if !slices.Equal(got, want) {
			return fmt.Sprintf("notes on %q, want %q", got, want)
		}
		return ""
	})
}

// missing waits until it is reported that the directory is missing.
func (f *files) missing() {
	f.t.Helper()
	testctx.Eventually(f.t, func() string {
		s := f.report.State().Sources
		if len(s) != 1 || !errors.Is(s[0].Problem.Err, fs.ErrNotExist) || s[0].Since.IsZero() {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

// TestDirectory: files are followed, and a policy that needs peers has them.
func TestDirectory(t *testing.T) {
	t.Parallel()
	f := followFiles(t, map[string]string{"ns.yaml": namespaceFile, "closed.yml": closedFile, "README.md": "text", ".swp.yaml": "{"})
	f.is("namespace red r", "policy red/closed 0+0 rules")
	f.write("pods.yaml", podsFile)
	pods := []string{"pod red/own on a app=own 10.5.1.2", "pod red/peer on b app=peer 10.5.2.2"}
	f.is(append(pods, "namespace red r", "policy red/closed 0+0 rules")...)
	f.write("closed.yml", openFile)
	f.is(append(pods, "namespace red r", "policy red/closed 1+0 rules", "cluster policy wide Baseline 5")...)
	f.remove("ns.yaml") // a namespace that no file has has no labels
	f.is(append(pods, "namespace red ", "policy red/closed 1+0 rules", "cluster policy wide Baseline 5")...)
	f.noted()
	f.remove("closed.yml")
	f.is(append(pods, "namespace red ")...)
}

// TestDirectoryBroken: what is broken keeps what was known, and is named.
func TestDirectoryBroken(t *testing.T) {
	t.Parallel()
	f := followFiles(t, map[string]string{"a.yaml": closedFile, "b.yaml": "{"})
	f.noted("file b.yaml")
	if lines, synced := f.show(); synced || len(lines) != 2 {
		t.Errorf("in sync: %v, with %v; want the policy, and not in sync", synced, lines)
	}
	f.write("b.yaml", namespaceFile)
	want := []string{"namespace red r", "policy red/closed 0+0 rules"}
	f.is(want...)
	f.noted()
	f.write("a.yaml", closedFile[:len(closedFile)-4])
	f.noted("file a.yaml")
	f.is(want...)
	if n := f.lines.count("a.yaml"); n != 1 {
		t.Errorf("%d lines about a.yaml", n)
	}
	f.write("a.yaml", closedFile)
	f.noted()
	f.write("c.yaml", openFile) // has another policy of that name
	f.is(append(want, "cluster policy wide Baseline 5")...)
	f.noted("file c.yaml")
	f.write("a.yaml", strings.ReplaceAll(closedFile, "podSelector", "podSelektor"))
	f.noted("NetworkPolicy red/closed", "file c.yaml")

	f.must(os.Rename(f.dir, f.dir+"-away"))
	f.missing()
	if gone := f.taken(); len(gone) > 0 {
		t.Errorf("deleted: %v", gone)
	}
	f.make()
	f.write("a.yaml", closedFile)
	f.is("namespace red ", "policy red/closed 0+0 rules")
	if s := f.report.State().Sources; s[0].Problem.Err != nil || !s[0].Since.IsZero() || s[0].Objects != 1 {
		t.Errorf("%+v", s)
	}
}

// TestDirectoryMissing: it is not in sync before the directory exists. A ConfigMap changes all files at once.
func TestDirectoryMissing(t *testing.T) {
	t.Parallel()
	f := followFiles(t, nil)
	f.missing()
	if _, synced := f.show(); synced {
		t.Error("in sync without the directory")
	}
	mount := func(version, text string) {
		t.Helper()
		f.must(os.MkdirAll(filepath.Join(f.dir, version), 0o755))
		f.must(os.WriteFile(filepath.Join(f.dir, version, "a.yaml"), []byte(text), 0o600))
		f.must(os.Symlink(version, filepath.Join(f.dir, "..next")))
		f.must(os.Rename(filepath.Join(f.dir, "..next"), filepath.Join(f.dir, "..data")))
	}
	mount("..1", closedFile)
	f.must(os.Symlink("..data/a.yaml", filepath.Join(f.dir, "a.yaml")))
	f.is("namespace red ", "policy red/closed 0+0 rules")
	mount("..2", openFile)
	f.is("namespace red ", "policy red/closed 1+0 rules", "cluster policy wide Baseline 5")
}
