package migration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
)

const pidFile = "/run/flanneld.pid"

// flanneld is a flanneld that runs on a node. It ends with [flanneld.stop], or with the context that it was started with.
type flanneld struct {
	node *lab.Node
	done chan error

	mu  sync.Mutex
	log strings.Builder
}

// startFlannel starts a flanneld with the flags that it has in common with selvaged.
func startFlannel(ctx context.Context, program string, n *lab.Node, flags ...string) *flanneld {
	f := &flanneld{node: n, done: make(chan error, 1)}
	line := fmt.Sprintf("echo $$ >%s; exec %s %s", pidFile, program, strings.Join(flags, " "))
	go func() { f.done <- n.Exec(ctx, []string{"sh", "-c", line}, lab.Stdio{Out: f, Err: f}) }()
	return f
}

// Write takes what it prints.
func (f *flanneld) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

func (f *flanneld) printed() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

// stop ends it as systemd does, and waits for that.
func (f *flanneld) stop() error {
	err := f.node.Do(func() error {
		text, err := os.ReadFile(pidFile)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return err
		}
		return unix.Kill(pid, unix.SIGTERM)
	})
	if err != nil {
		return errors.Join(err, fmt.Errorf("stop flanneld on %s:\n%s", f.node.Name(), f.printed()))
	}
	<-f.done // whether it calls that a failure is its own affair
	return nil
}
