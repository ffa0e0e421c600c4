package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
)

// The machines of the quick start, and the address that stands there for the one that was printed.
const (
	quickstart   = "../../Documentation/quickstart.md"
	placeholder  = "10.5.29.2"
	endOfBlock   = "end of block"
	printAddress = `sed -n 's|.*"address": "\([0-9.]*\)/.*|\1|p' /run/result.json`
)

// ownDirectories has a node write into directories of its own where the lab's nodes share the machine's.
const ownDirectories = `
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /var/log
mkdir /run/etc
mount --rbind /etc /run/etc
mount -t tmpfs tmpfs /etc
ln -s /run/etc/* /etc
rm -f /etc/cni
`

var commandBlock = regexp.MustCompile("(?s)```sh\n# on (A|B|both)\n(.*?)```")

// TestQuickStart runs the commands of the quick start, as they stand there and in their order, on two nodes that nothing of
// selvage runs on yet.
func TestQuickStart(t *testing.T) {
	page, err := os.ReadFile(quickstart)
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, lab.Options{Nodes: 2})
	ctx := testctx.New(t)
	machines := map[string]*shell{}
	for i, n := range l.Nodes() {
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		bin, err := filepath.Abs("../../bin/selvaged")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := n.Output(ctx, bin, "cleanup"); err != nil {
			t.Fatalf("%s: %v\n%s", n.Name(), err, out)
		}
		machines[string(rune('A'+i))] = newShell(ctx, t, n)
	}
	blocks := commandBlock.FindAllStringSubmatch(string(page), -1)
	if len(blocks) == 0 {
		t.Fatalf("%s holds no commands", quickstart)
	}
	other := placeholder
	for _, b := range blocks {
		where, commands := []string{b[1]}, b[2]
		if b[1] == "both" {
			where = []string{"A", "B"}
		}
		for _, name := range where {
			t.Logf("on %s:\n%s%s", name, commands, machines[name].run(strings.ReplaceAll(commands, placeholder, other)))
		}
		if strings.Contains(commands, "/run/result.json") {
			if other = strings.TrimSpace(machines["B"].run(printAddress)); other == "" {
				t.Fatal("the container on B has no address")
			}
		}
	}
}

// shell is a shell on a node that runs one block of commands after the other, so that what one started goes on in the next.
type shell struct {
	t   *testing.T
	in  *os.File
	mu  sync.Mutex
	out bytes.Buffer
	end chan error // of the shell
}

// newShell starts a shell that ends with the test.
func newShell(ctx context.Context, t *testing.T, n *lab.Node) *shell {
	t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, in: w, end: make(chan error, 1)}
	go func() {
		defer in.Close()
		s.end <- n.Exec(ctx, []string{"bash", "-e"}, lab.Stdio{In: in, Out: s, Err: s})
	}()
	t.Cleanup(func() { w.Close(); <-s.end })
	s.run("cd ../..\n" + ownDirectories)
	return s
}

// Write takes what the shell prints.
func (s *shell) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

// run runs commands, and returns what they printed. One that fails ends the shell, and the test.
func (s *shell) run(commands string) string {
	s.t.Helper()
	_, _ = fmt.Fprintf(s.in, "%s\necho %s\n", commands, endOfBlock) // a shell that has ended is met below
	for {
		s.mu.Lock()
		printed, _, done := strings.Cut(s.out.String(), endOfBlock+"\n")
		if done {
			s.out.Reset()
		}
		s.mu.Unlock()
		if done {
			return printed
		}
		select {
		case err := <-s.end:
			s.end <- err
			s.t.Fatalf("%s\nfailed: %v\n%s", commands, err, s.out.String()) // all that it printed has been taken
		case <-time.After(5 * time.Millisecond):
		}
	}
}
