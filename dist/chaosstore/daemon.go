package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// host is a node of the lab with its daemon.
type host struct {
	*lab.Node
	suite *Suite
	pod   *lab.Pod
	extra []string // arguments of the daemon's beyond those of all
}

// wrapper stands in the place of the daemon. The lab gives each its own etcd's endpoints first; ours take their place, and
// what else a file says of this node.
const wrapper = `#!/bin/sh
dir=%q
shift 2 # --etcd-endpoints and what follows
exec "$dir/real/selvaged" "$@" $(cat "$dir/$2.args")
`

// prepareBinaries makes a directory as the lab wants it, with the wrapper in the daemon's place.
func prepareBinaries(dir, from string) error {
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	for _, name := range []string{"selvage", "etcd", "cni"} {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	real := filepath.Join(from, "selvaged")
	if _, err := os.Stat(real); err != nil {
		return fmt.Errorf("%w: build it with make build", err)
	}
	return errors.Join(
		os.Mkdir(filepath.Join(dir, "real"), 0o755),
		os.Symlink(real, filepath.Join(dir, "real", "selvaged")),
		os.WriteFile(filepath.Join(dir, "selvaged"), fmt.Appendf(nil, wrapper, dir), 0o755),
	)
}

// writeArgs says what the daemon of a node is started with from now on.
func (s *Suite) writeArgs(node string, extra ...string) error {
	var endpoints []string
	scheme := "http"
	args := []string{"--subnet-lease-ttl=1m"} // so that it is renewed while something is broken
	if s.store.certs != nil {
		scheme = "https"
		args = append(args, "--etcd-cafile="+s.store.certs.file("ca.pem"),
			"--etcd-certfile="+s.store.certs.file("selvage.pem"), "--etcd-keyfile="+s.store.certs.file("selvage.key"))
	}
	for _, m := range s.store.members {
		endpoints = append(endpoints, scheme+"://"+m.proxy.addr)
	}
	args = slices.Concat([]string{"--etcd-endpoints=" + strings.Join(endpoints, ",")}, args, s.options.Args, extra)
	return os.WriteFile(filepath.Join(s.dir, node+".args"), []byte(strings.Join(args, "\n")), 0o644)
}

// restart starts the daemon anew, with the arguments given beyond those of all, and waits until it is ready. The last one is
// killed, so that it can tell nobody.
func (h *host) restart(ctx context.Context, extra ...string) error {
	h.Kill()
	return errors.Join(h.start(extra...), h.WaitReady(ctx))
}

func (h *host) start(extra ...string) error {
	h.extra = extra
	return errors.Join(h.suite.writeArgs(h.Name(), extra...), h.Start())
}

// signal sends a signal to the daemon.
func (h *host) signal(s unix.Signal) error {
	pid := h.PID()
	if pid == 0 {
		return fmt.Errorf("%s: the daemon does not run", h.Name())
	}
	return unix.Kill(pid, s)
}

// subnetFile returns the node's subnet file; the zero one if there is none.
func (h *host) subnetFile() (subnetfile.File, error) {
	f, err := h.Subnet()
	if errors.Is(err, fs.ErrNotExist) {
		return subnetfile.File{}, nil
	}
	return f, err
}

// logSize is how long the daemon's log is now.
func (h *host) logSize() int64 {
	info, err := os.Stat(h.LogPath())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logSince is what the daemon has logged since then.
func (h *host) logSince(size int64) []string {
	b, err := os.ReadFile(h.LogPath())
	if err != nil || int64(len(b)) <= size {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(b[size:])), "\n")
}
