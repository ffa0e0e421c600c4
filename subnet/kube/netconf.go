package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/filewatch"
	"github.com/selvage-net/selvage/subnet/outage"
)

const (
	// maxNetConf bounds what is read of the network config's file, in bytes. It is more than [subnet.ParseConfig]
	// accepts.
	maxNetConf = 1 << 20
	// netConfPoll is how often the file is read if nothing says that it has changed: when it is behind a symbolic link
	// that is not watched, or if inotify(7) cannot be used.
	netConfPoll = time.Minute
)

// netConf is the file with the network config, as a Watch follows it. It belongs to one goroutine but for its channel.
type netConf struct {
	path    string
	changed chan struct{} // size one: the file may have changed

	data   []byte // nil: there is none
	known  bool   // data was read
	failed string // the error that was logged last
	logged backoff.Limiter
}

func newNetConf(path string) *netConf { return &netConf{path: path, changed: make(chan struct{}, 1)} }

// watch notifies of changes until ctx ends. A ConfigMap's files are symbolic links through ..data in their directory,
// which kubelet replaces to change all of them at once (k8s.io/kubernetes, pkg/volume/util/atomic_writer.go): that name
// is watched too.
func (c *netConf) watch(ctx context.Context) {
	notify := func() {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
	var watching backoff.Backoff
	go func() {
		for ctx.Err() == nil {
			// It fails if the user has no inotify instances left; the file is read now and then meanwhile.
			_ = filewatch.Watch(ctx, notify, c.path, filepath.Join(filepath.Dir(c.path), "..data"))
			outage.Sleep(ctx, watching.Next(backoff.Policy{Min: time.Second, Max: netConfPoll}, time.Now()))
		}
	}()
	for outage.Sleep(ctx, netConfPoll) {
		notify()
	}
}

// read reads the file, and reports whether its content is another one than before. A file that does not exist is no
// config. One that cannot be read leaves the config as it was.
func (c *netConf) read(log func(error)) (changed bool) {
	data, err := readFile(c.path)
	if err != nil {
		if text := err.Error(); text != c.failed && c.logged.Due(time.Minute, time.Now()) {
			c.failed = text
			log(err)
		}
		data = c.data
	} else {
		c.failed = ""
	}
	changed = !c.known || (data == nil) != (c.data == nil) || !bytes.Equal(data, c.data)
	c.data, c.known = data, true
	return changed
}

// readFile returns the content of a file: nil if there is none, and never nil if there is one.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("network config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxNetConf))
	if err != nil {
		return nil, fmt.Errorf("network config: %w", err)
	}
	return append([]byte{}, data...), nil
}
