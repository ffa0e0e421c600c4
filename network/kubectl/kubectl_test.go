package kubectl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// standIn is a program in kubectl's place, which a shell script is.
func standIn(t *testing.T, script string) Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubectl")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Client{Path: path, Flags: []string{"--context=test"}}
}

func TestDaemons(t *testing.T) {
	c := standIn(t, `test "$*" = "--context=test get -o json pods --all-namespaces -l app.kubernetes.io/name=selvage" || exit 7
cat <<'END'
{"items": [
 {"metadata": {"name": "selvage-b", "namespace": "net", "ownerReferences": [{"kind": "DaemonSet", "name": "selvage"}]},
  "spec": {"nodeName": "node2", "containers": [{"name": "install-cni", "image": "other"}, {"name": "selvaged", "image": "selvage:v1"}]},
  "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
 {"metadata": {"name": "selvage-a", "namespace": "net"}, "spec": {"nodeName": "node1", "containers": [{"name": "selvaged"}]},
  "status": {"conditions": [{"type": "Ready", "status": "False"}]}},
 {"metadata": {"name": "selvage-old", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": "node2", "containers": [{"name": "selvaged"}]}},
 {"metadata": {"name": "selvage-new"}, "spec": {"containers": [{"name": "selvaged"}]}},
 {"metadata": {"name": "page"}, "spec": {"nodeName": "node1", "containers": [{"name": "page"}]}}
]}
END`)
	all, err := c.Daemons(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Daemon{
		{Container: Container{"net", "selvage-a", "selvaged"}, Node: "node1"},
		{Container: Container{"net", "selvage-b", "selvaged"}, Node: "node2", Image: "selvage:v1", Set: "selvage", Ready: true},
	}
	if len(all) != len(want) || all[0] != want[0] || all[1] != want[1] {
		t.Errorf("%+v, want %+v", all, want)
	}
	if d, err := On(all, "node2"); err != nil || d != want[1] {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := On(all, "node3"); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("node3: %v", err)
	}
	if got := strings.Join(all[0].Exec("a", "b c"), "|"); got != "exec|-i|-n|net|selvage-a|-c|selvaged|--|a|b c" {
		t.Errorf("exec is %s", got)
	}
	if _, err := standIn(t, `echo '{"items": []}'`).Daemons(t.Context()); err == nil || !strings.Contains(err.Error(), DaemonLabel) {
		t.Errorf("a cluster without daemons: %v", err)
	}
}

func TestErrors(t *testing.T) {
	var e *Error
	_, err := standIn(t, `echo out; echo "  what is wrong" >&2; exit 3`).Output(t.Context(), "get", "x")
	if !errors.As(err, &e) || e.Code != 3 || e.Stderr != "what is wrong" || err.Error() != "kubectl get x: what is wrong" {
		t.Errorf("%v", err)
	}
	var seen strings.Builder
	err = standIn(t, `echo told >&2; exit 2`).Run(t.Context(), nil, nil, &seen, "x")
	if !errors.As(err, &e) || e.Code != 2 || seen.String() != "told\n" {
		t.Errorf("%v, and on stderr %q", err, seen.String())
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := (Client{}).Output(t.Context(), "get"); err == nil || !strings.Contains(err.Error(), "--kubectl") {
		t.Errorf("no kubectl: %v", err)
	}
	var into struct{}
	if err := standIn(t, `echo '<html>'`).Get(t.Context(), &into, "pods"); err == nil || !strings.Contains(err.Error(), "get pods") {
		t.Errorf("no JSON: %v", err)
	}
}

// TestInterrupted has the program run until it is killed, with an input that nobody closes.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	in, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	defer in.Close()
	began := filepath.Join(t.TempDir(), "began")
	done := make(chan error, 1)
	c := standIn(t, `echo > `+began+`.new; mv `+began+`.new `+began+`; exec cat`)
	go func() { done <- c.Run(ctx, in, nil, nil, "exec") }()
	for ; ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(began); err == nil {
			break
		}
	}
	cancel(why)
	var e *Error
	if err := <-done; !errors.Is(err, why) || !errors.As(err, &e) || e.Code != -1 {
		t.Errorf("%v", err)
	}
}

// TestWrite has objects created as one list.
func TestWrite(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c := standIn(t, `{ echo "$*"; cat; } >> `+out)
	if err := errors.Join(c.Create(t.Context(), Object{"kind": "A"}), c.Apply(t.Context(), Object{"kind": "B"})); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	want := "--context=test create -f -\n" + `{"apiVersion":"v1","items":[{"kind":"A"}],"kind":"List"}` +
		"--context=test apply -f -\n" + `{"apiVersion":"v1","items":[{"kind":"B"}],"kind":"List"}`
	if string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
}
