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
)

const (
	// maxNetConf bounds what is read of the network config's file, in bytes. It is more than [subnet.ParseConfig]
	// accepts.
	maxNetConf = 1 << 20
	// netConfPoll is how often the file is read if nothing reports a change.
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

// watch notifies of changes until ctx ends.
func (c *netConf) watch(ctx context.Context) {
	filewatch.Keep(ctx, netConfPoll, func() {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}, c.path, filepath.Join(filepath.Dir(c.path), filewatch.ConfigMapLink))
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
