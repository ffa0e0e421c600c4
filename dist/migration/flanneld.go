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

// Flanneld is a flanneld that runs on a node. It ends with [Flanneld.Stop], or with the context that it was started with.
type Flanneld struct {
	node *lab.Node
	done chan error

	mu  sync.Mutex
	log strings.Builder
}

// StartFlannel starts a flanneld with the flags that it has in common with selvaged.
func StartFlannel(ctx context.Context, program string, n *lab.Node, flags ...string) *Flanneld {
	f := &Flanneld{node: n, done: make(chan error, 1)}
	line := fmt.Sprintf("echo $$ >%s; exec %s %s", pidFile, program, strings.Join(flags, " "))
	go func() { f.done <- n.Exec(ctx, []string{"sh", "-c", line}, lab.Stdio{Out: f, Err: f}) }()
	return f
}

// Wait waits until it has ended.
func (f *Flanneld) Wait() { <-f.done }

// Write takes what it prints.
func (f *Flanneld) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

// Printed returns what it has printed.
func (f *Flanneld) Printed() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

// Stop ends it as systemd does, and waits for that.
func (f *Flanneld) Stop() error { return f.signal(unix.SIGTERM) }

// Kill ends it as a crash would, and waits for that.
func (f *Flanneld) Kill() error { return f.signal(unix.SIGKILL) }

func (f *Flanneld) signal(s unix.Signal) error {
	err := f.node.Do(func() error {
		text, err := os.ReadFile(pidFile)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return err
		}
		return unix.Kill(pid, s)
	})
	if err != nil {
		return errors.Join(err, fmt.Errorf("end flanneld on %s:\n%s", f.node.Name(), f.Printed()))
	}
	<-f.done // whether it calls that a failure is its own affair
	return nil
}
