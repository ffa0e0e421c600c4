package command

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/network/node/policyview"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy/connection"
	"github.com/selvage-net/selvage/network/recent"
)

// dropped are packets, as the daemon reports them.
const dropped = `{"at":"2026-03-01T12:00:00Z","direction":"ingress","cause":"isolated","isolated":["shop/catch-all","shop/db"],"protocol":"TCP","source":{"address":"10.244.0.3","pod":"shop/web"},"source_port":41000,"destination":{"address":"10.244.0.2","pod":"shop/db"},"destination_port":5432}
{"at":"2026-03-01T12:00:00.001Z","direction":"egress","cause":"isolated","isolated":["shop/catch-all"],"protocol":"UDP","source":{"address":"10.244.0.3","pod":"shop/web"},"source_port":41001,"destination":{"address":"192.0.2.7"},"destination_port":53}
{"at":"2026-03-01T12:00:00.002Z","direction":"ingress","cause":"cluster-deny","policy":"monitoring","rule":1,"protocol":"ICMP","source":{"address":"192.0.2.7"},"destination":{"address":"10.244.0.1","pod":"shop/cart"}}
{"at":"2026-03-01T12:00:00.003Z","direction":"ingress","cause":"invalid-state","protocol":"TCP","source":{"address":"fd00::1"},"source_port":80,"destination":{"address":"fd00::2"},"destination_port":41002,"missed":1}
{"at":"2026-03-01T12:00:00.004Z","direction":"egress","cause":"spoofed-source","protocol":"ICMPv6","source":{"address":"fd00::1"},"destination":{"address":"fd00::2"}}
{"at":"2026-03-01T12:00:00.005Z","direction":"egress","cause":"no-rules-yet","protocol":"47","source":{"address":"10.244.0.9"},"destination":{"address":"192.0.2.7"}}
{"at":"2026-03-01T12:00:00.006Z","direction":"ingress","cause":"cut","protocol":"SCTP","source":{"address":"192.0.2.7"},"source_port":1,"destination":{"address":"10.244.0.9"},"destination_port":2}
{"at":"2026-03-01T12:00:00.007Z","direction":"egress","cause":"link-local","protocol":"UDP","source":{"address":"fe80::1"},"source_port":1,"destination":{"address":"fe80::2"},"destination_port":2}
{"at":"2026-03-01T12:00:00.008Z","direction":"egress","cause":"of-a-later-version","protocol":"UDP","source":{"address":"10.244.0.9"},"source_port":1,"destination":{"address":"10.244.0.8"},"destination_port":2}
`

// enforcing is a daemon that enforces the policies of files.
type enforcing struct {
	recent.Log[status.Drop]
	world connection.World
}

func (e *enforcing) Policies(context.Context) (status.Policies, error) {
	return status.Policies{Enforced: true, Policies: policyview.List(e.world, "")}, nil
}

func (e *enforcing) PolicyVerdict(_ context.Context, q status.PolicyQuery) ([]status.PolicyVerdict, error) {
	return policyview.Answer(e.world, q)
}

func (e *enforcing) Drops(ctx context.Context, follow bool, yield func(status.Drop) error) error {
	return e.Each(ctx, follow, func(d status.Drop, _ uint64) error { return yield(d) })
}

// answers is a source of answers that has a status alone.
type answers struct {
	api.Source
	status status.Status
}

func (a answers) Status(context.Context) (status.Status, error) { return a.status, nil }

// serve serves policies, and the problems of a node, on a socket until the test ends.
func serve(t *testing.T, p api.Policies, problems ...status.Problem) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s.sock")
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := api.Listen(api.Options{Socket: socket, Log: log, Policies: p})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, answers{status: status.Status{Problems: problems}}) }()
	t.Cleanup(func() { cancel(); <-done })
	return socket
}

// ofFiles returns a daemon that enforces the policies of testdata, and has dropped some packets.
func ofFiles(t *testing.T) *enforcing {
	t.Helper()
	f := policyFiles{namespace: "default", networks: []string{"10.244.0.0/16"}}
	cluster, _, err := f.read(&cobra.Command{}, []string{shopFile})
	if err != nil {
		t.Fatal(err)
	}
	e := &enforcing{world: worldOf(cluster)}
	for line := range strings.Lines(dropped) {
		var d status.Drop
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		e.Add(d)
	}
	return e
}

// runDrops runs selvaged drops, and returns what it prints and its exit code.
func runDrops(ctx context.Context, t *testing.T, out io.Writer, args ...string) (notes string, code int) {
	t.Helper()
	c := Drops()
	c.SilenceErrors, c.SilenceUsage = true, true
	var e bytes.Buffer
	c.SetOut(out)
	c.SetErr(&e)
	c.SetArgs(args)
	code = exitCode(c.ExecuteContext(ctx), &e)
	return e.String(), code
}

func TestDrops(t *testing.T) {
	socket := serve(t, ofFiles(t))
	var text, lines bytes.Buffer
	if notes, code := runDrops(t.Context(), t, &text, "--socket", socket); code != 0 || notes != "" {
		t.Errorf("exit code %d, %q", code, notes)
	}
	if notes, code := runDrops(t.Context(), t, &lines, "--socket", socket, "-o", "json"); code != 0 || notes != "" {
		t.Errorf("exit code %d, %q", code, notes)
	}
	golden(t, "drops.txt", text.String()+"\n"+lines.String())
}

// TestDropsUnread: while the daemon misses denied packets, a note says so, beside those that it has.
func TestDropsUnread(t *testing.T) {
	e := &enforcing{}
	e.Add(status.Drop{At: now, Direction: "ingress", Cause: "cut"})
	socket := serve(t, e, status.Problem{Code: status.PolicySourceLost, Text: "another"},
		status.Problem{Code: status.PolicyDropsUnread, Text: "denied packets are not reported: busy", Warning: true})
	for _, output := range []string{"table", "json"} {
		var out bytes.Buffer
		notes, code := runDrops(t.Context(), t, &out, "--socket", socket, "-o", output)
		want := "denied packets are not reported: busy; selvaged doctor --check policies says what to do\n"
		if code != 0 || notes != want || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("exit code %d, %q, on standard error %q; want %q", code, out.String(), notes, want)
		}
	}
}

// lineWriter passes on each line that is written to it.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) { w <- string(b); return len(b), nil }

// TestFollowDrops: a packet that is dropped later is shown at once, and an interrupt is no error.
func TestFollowDrops(t *testing.T) {
	e := &enforcing{}
	socket := serve(t, e)
	ctx, interrupt := context.WithCancel(t.Context())
	lines, ended := make(lineWriter), make(chan int)
	go func() { _, code := runDrops(ctx, t, lines, "--follow", "--socket", socket); ended <- code }()
	for range 3 {
		e.Add(status.Drop{At: now, Direction: "ingress", Cause: "cut"})
		if line := <-lines; !strings.HasPrefix(line, "2026-03-01T12:00:00.000Z ingress ") {
			t.Errorf("line %q", line)
		}
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d after an interrupt", code)
	}
}

// TestDaemonsPolicies: without files, the daemon answers, and the same way.
func TestDaemonsPolicies(t *testing.T) {
	socket := serve(t, ofFiles(t))
	for _, line := range []string{"list", "explain shop/web shop/db:5432", "explain shop/cart shop/db", "explain shop/web 192.0.2.7 -o json"} {
		want, _, code := runPolicy(t, nil, append(strings.Fields(line), "--file", shopFile)...)
		got, notes, gotCode := runPolicy(t, nil, append(strings.Fields(line), "--socket", socket)...)
		if got != want || code != gotCode || notes != "" {
			t.Errorf("%s: exit code %d, %q\n%s\nwant %d\n%s", line, gotCode, notes, got, code, want)
		}
	}
	_, notes, code := runPolicy(t, nil, "explain", "shop/web", "shop/dbb", "--socket", socket)
	if code != 1 || !strings.HasPrefix(notes, `selvaged: "shop/dbb": want namespace/pod`) {
		t.Errorf("exit code %d, %q", code, notes)
	}
}

// TestDaemonWithoutPolicies: whether the daemon does not run or enforces no policies is in the exit code.
func TestDaemonWithoutPolicies(t *testing.T) {
	for _, tt := range []struct {
		socket string
		code   int
	}{
		{serve(t, nil), 1},
		{filepath.Join(t.TempDir(), "none"), ExitNotRunning},
	} {
		for _, line := range []string{"list", "explain shop/web shop/db"} {
			if out, notes, code := runPolicy(t, nil, append(strings.Fields(line), "--socket", tt.socket)...); code != tt.code || out != "" || notes == "" {
				t.Errorf("%s: exit code %d, %q, %q; want %d", line, code, out, notes, tt.code)
			}
		}
		if notes, code := runDrops(t.Context(), t, io.Discard, "--socket", tt.socket); code != tt.code || notes == "" {
			t.Errorf("drops: exit code %d, %q; want %d", code, notes, tt.code)
		}
	}
}
