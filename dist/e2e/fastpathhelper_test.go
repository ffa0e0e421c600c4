package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

const bpffs = "/sys/fs/bpf"

// fastLab starts two nodes with a pod on each and the fast path on, see fastLabOf.
func fastLab(ctx context.Context, t *testing.T, families ...subnet.Family) (l *lab.Lab, ends []*lab.Endpoint, ok bool) {
	t.Helper()
	return fastLabOf(ctx, t, lab.Options{Nodes: 2, Families: families})
}

// fastLabOf starts nodes with a pod on each and the fast path on, kept in a BPF file system of each node's own. ok is
// false where the kernel refuses BPF programs, as in a user namespace: then the test of that is all there is.
func fastLabOf(ctx context.Context, t *testing.T, o lab.Options) (l *lab.Lab, ends []*lab.Endpoint, ok bool) {
	t.Helper()
	l = start(t, o)
	for _, n := range l.Nodes() {
		mount := func() error { return unix.Mount("bpf", bpffs, "bpf", 0, "") }
		if err := n.Do(mount); err != nil && os.Geteuid() == 0 && fastpath.Permitted() {
			t.Fatal(err)
		}
		fastMode(ctx, t, n, "--fast-path=on")
	}
	ends = podOnEach(ctx, t, l)
	return l, ends, fastpath.Permitted()
}

// fastMode restarts a daemon with other arguments.
func fastMode(ctx context.Context, t *testing.T, n *lab.Node, args ...string) {
	t.Helper()
	n.SetDaemonArgs(append([]string{"--iface=eth0", "--peer-probe-interval=0"}, args...)...)
	if err := errors.Join(n.Restart(ctx), n.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
}

// fastStatus asks a daemon for the state of its fast path.
func fastStatus(ctx context.Context, n *lab.Node) (status.FastPath, error) {
	s, err := n.Status(ctx)
	if err != nil {
		return status.FastPath{}, err
	}
	if s.FastPath == nil {
		return status.FastPath{}, errors.New("the fast path is off")
	}
	return *s.FastPath, nil
}

// goesFast waits until most packets are fast in both directions: those of both families, where there are two.
func goesFast(ctx context.Context, t *testing.T, what string, nodes ...*lab.Node) {
	t.Helper()
	for _, n := range nodes {
		before, err := fastStatus(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, fmt.Sprintf("%s: %s is fast", what, n.Name()), func() error {
			now, err := fastStatus(ctx, n)
			if err != nil {
				return err
			}
			wasSent, wasReceived := before.Fast()
			sent, received := now.Fast()
			slow := slowPackets(now) - slowPackets(before)
			if sent, received = sent-wasSent, received-wasReceived; sent < 100 || received < 100 {
				return fmt.Errorf("fast are %d sent, %d received, and %d are slow: %+v", sent, received, slow, now)
			}
			if 4*slow > sent+received {
				before = now
				return fmt.Errorf("%d are slow, and %d fast: %+v", slow, sent+received, now)
			}
			return nil
		})
	}
}

// slowPackets counts the packets that could have been fast.
func slowPackets(f status.FastPath) uint64 {
	return f.Packets["unknown"] + f.Packets["expired"] + f.Packets["flushed"]
}

// isSlow waits until a daemon says why no packet is fast.
func isSlow(ctx context.Context, t *testing.T, n *lab.Node, want status.Reason) {
	t.Helper()
	waitFor(ctx, t, string(want), func() error {
		s, err := n.Status(ctx)
		switch {
		case err != nil:
			return err
		case s.FastPath == nil || s.FastPath.InUse || s.FastPath.Code != want:
			return fmt.Errorf("the state is %+v", s.FastPath)
		}
		for _, p := range s.Problems {
			if p.Code == want && !p.Warning {
				return nil
			}
		}
		return fmt.Errorf("with --fast-path=on, it is no problem: %+v", s.Problems)
	})
}

// repaired does harm to the fast path of a node, and waits until a kind of object was repaired.
func repaired(ctx context.Context, t *testing.T, n *lab.Node, kind, what string, harm func() error) {
	t.Helper()
	count := func(s status.Status) (total int) {
		for _, c := range s.Repairs.Counts {
			if c.Kind == kind {
				total += c.Count
			}
		}
		return total
	}
	before, err := n.Status(ctx)
	if err := errors.Join(err, n.Do(harm)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	waitFor(ctx, t, what, func() error {
		now, err := n.Status(ctx)
		if err == nil && count(now) == count(before) {
			err = fmt.Errorf("not repaired: %+v", now.Repairs)
		}
		return err
	})
}

// pinned returns the one file that a pattern below the pins of a node's daemon leads to.
func pinned(pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(node.FastPathPins(bpffs, ""), pattern))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s: found %q, want one", pattern, found)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// attachments returns the identifiers of what is pinned, by the pins' names.
func attachments() (map[string]link.ID, error) {
	files, err := filepath.Glob(filepath.Join(node.FastPathPins(bpffs, ""), "links", "*"))
	all := map[string]link.ID{}
	for _, file := range files {
		l, loadErr := link.LoadPinnedLink(file, nil)
		if loadErr != nil {
			return nil, loadErr
		}
		info, infoErr := l.Info()
		if err := errors.Join(infoErr, l.Close()); err != nil {
			return nil, err
		}
		all[filepath.Base(file)] = info.ID
	}
	return all, err
}

// indexOf returns the index of a device.
func indexOf(name string) (int, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// pinOf returns the path of the pin of an attachment to a device.
func pinOf(program, device string) (string, error) {
	index, err := indexOf(device)
	if err != nil {
		return "", err
	}
	return pinned(fmt.Sprintf("links/%s-%d", program, index))
}

// detach ends an attachment to a device, and leaves its pin.
func detach(program, device string) error {
	path, err := pinOf(program, device)
	if err != nil {
		return err
	}
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return err
	}
	return errors.Join(l.Detach(), l.Close())
}

// unpin removes the pin of an attachment to a device.
func unpin(program, device string) error {
	path, err := pinOf(program, device)
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// forgetPeers empties the programs' map of peers.
func forgetPeers() error {
	path, err := pinned("maps-*/peers")
	if err != nil {
		return err
	}
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	key := make([]byte, m.KeySize())
	for n := 0; ; n++ {
		if err := m.NextKey(nil, key); errors.Is(err, ebpf.ErrKeyNotExist) && n > 0 {
			return nil
		} else if err != nil {
			return err
		}
		if err := m.Delete(key); err != nil {
			return err
		}
	}
}

// isFallback waits until a daemon with --fast-path=auto is ready, and says why no packet is fast.
func isFallback(ctx context.Context, t *testing.T, n *lab.Node) {
	t.Helper()
	waitFor(ctx, t, "it falls back", func() error {
		s, err := n.Status(ctx)
		if err == nil && (s.State != status.Ready || s.FastPath == nil || s.FastPath.Code != status.NotPermitted) {
			err = fmt.Errorf("%s, %+v", s.State, s.FastPath)
		}
		return err
	})
}

// fastPathLeft says what is left of the fast path.
func fastPathLeft() error {
	if _, err := os.Stat(node.FastPathPins(bpffs, "")); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the pins: %v", err)
	}
	index, err := indexOf("eth0")
	if err != nil {
		return err
	}
	left, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err == nil && len(left.Programs) > 0 {
		err = fmt.Errorf("%d programs are attached", len(left.Programs))
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
