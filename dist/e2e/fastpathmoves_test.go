package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// flushed does something, and waits until a node's daemon has made void what was learned.
func flushed(ctx context.Context, t *testing.T, n *lab.Node, what string, do func() error) {
	t.Helper()
	before, err := fastStatus(ctx, n)
	if err := errors.Join(err, do()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	waitFor(ctx, t, what, func() error {
		s, err := fastStatus(ctx, n)
		if err == nil && s.Flushes == before.Flushes {
			err = errors.New("not flushed")
		}
		return err
	})
}

// TestFastPathMoves: when a pod's address becomes another pod's, or a subnet another node's, what was learned is void.
func TestFastPathMoves(t *testing.T) {
	ctx := testctx.New(t)
	l, ends, ok := fastLab(ctx, t)
	a, b := l.Nodes()[0], l.Nodes()[1]
	if !ok {
		isSlow(ctx, t, a, status.NotPermitted)
		return
	}
	pod, err := l.AddPod(ctx, b, "")
	if err != nil {
		t.Fatal(err)
	}
	addr := pod.Addr(subnet.IPv4)
	end := stream(ctx, t, l, ends[0], pod.Endpoint)
	goesFast(ctx, t, "to a pod", a, b)
	end()
	flushed(ctx, t, b, "the pod is deleted", func() error { return l.DelPod(ctx, pod) })
	if err := b.Do(nextIsLowest); err != nil {
		t.Fatal(err)
	}
	flushed(ctx, t, b, "another pod is added", func() (err error) { pod, err = l.AddPod(ctx, b, ""); return err })
	if got := pod.Addr(subnet.IPv4); got != addr {
		t.Fatalf("the other pod's address is %s, want %s again", got, addr)
	}
	end = stream(ctx, t, l, ends[0], pod.Endpoint)
	goesFast(ctx, t, "to the other pod with its address", a, b)
	end()

	moves := netip.MustParsePrefix("10.5.250.0/24")
	for i, address := range []string{"172.31.0.250", "172.31.0.251"} {
		mac := fmt.Sprintf("0e:05:00:00:00:%02x", i)
		lease := fmt.Sprintf(`{"PublicIP":%q,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":%q}}`, address, mac)
		flushed(ctx, t, a, "a subnet is that of "+address, func() error {
			_, err := l.Etcd().Client().Put(ctx, "/coreos.com/network/subnets/10.5.250.0-24", lease)
			return err
		})
		waitFor(ctx, t, "the programs know that", func() error {
			return a.Do(func() error { return fastPeerIs(moves, netip.MustParseAddr(address), byte(i)) })
		})
	}
}

// nextIsLowest has the plugin host-local begin at the lowest address that is free. It would go on from the last one.
func nextIsLowest() error {
	last, err := filepath.Glob("/var/lib/cni/networks/*/last_reserved_ip*")
	if err == nil && len(last) == 0 {
		err = errors.New("host-local has noted no last address")
	}
	for _, file := range last {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

// fastPeerIs says in what a peer of the programs differs; last is the last byte of its MAC address.
func fastPeerIs(subnet netip.Prefix, address netip.Addr, last byte) error {
	path, err := pinned("maps-*/peers")
	if err != nil {
		return err
	}
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	key := struct {
		Bits    uint32
		Address [16]byte
	}{uint32(subnet.Bits() + 96), subnet.Addr().As16()}
	var peer struct {
		Address [16]byte
		MAC     [6]byte
		Pad     [2]byte
	}
	err = m.Lookup(key, &peer)
	if err == nil && (peer.Address != address.As16() || peer.MAC[5] != last) {
		err = fmt.Errorf("the peer of %s is %+v", subnet, peer)
	}
	return err
}

// TestFastPathRefused: a pod's port at which the kernel has no room for a program is not counted as one that is fast.
func TestFastPathRefused(t *testing.T) {
	ctx := testctx.New(t)
	l, _, ok := fastLab(ctx, t)
	a := l.Nodes()[0]
	if !ok {
		isSlow(ctx, t, a, status.NotPermitted)
		return
	}
	ports := func(what string, fast int, slow status.Reason) {
		t.Helper()
		waitFor(ctx, t, what, func() error {
			s, err := fastStatus(ctx, a)
			right := s.Ports == fast && (slow == "" && len(s.Slow) == 0 || len(s.Slow) == 1 && s.Slow[0].Code == slow)
			if err == nil && !right {
				err = fmt.Errorf("the state is %+v", s)
			}
			return err
		})
	}
	ports("at first", 1, "")
	var others []link.Link
	if err := a.Do(func() (err error) { others, err = fillHook(); return err }); err != nil {
		t.Fatal(err)
	}
	ports("there is no room", 0, status.FastPathFailed)
	for _, other := range others {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}
	ports("there is room again", 1, "")
}

// fillHook detaches the program from_pod, and attaches so many others in its place that it cannot be attached again.
func fillHook() (others []link.Link, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	port := ""
	for _, x := range links {
		if x.Type() == "veth" && x.Attrs().MasterIndex != 0 {
			port = x.Attrs().Name
		}
	}
	index, err := indexOf(port)
	if err != nil {
		return nil, err
	}
	attach := func() error {
		program, err := passOn() // the same one cannot be twice at a hook
		if err != nil {
			return err
		}
		defer program.Close()
		other, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress,
			Anchor: link.Head()})
		if err == nil {
			others = append(others, other)
		}
		return err
	}
	const room = 63 // bpf_mprog_max in include/linux/bpf_mprog.h
	for range room - 1 {
		if err := attach(); err != nil {
			return others, err
		}
	}
	for err = errors.New("not yet"); err != nil; err = attach() { // the daemon, which looks now and then, can be first
		if err := detach(string(fastpath.FromPod), port); err != nil {
			return others, err
		}
	}
	return others, nil
}

// passOn makes a program that passes all packets on.
func passOn() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return()}})
}
