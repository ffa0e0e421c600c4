package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// fastFaults are those of the fast path. No packet is lost because of one: without its programs packets are slow.
func fastFaults(b Backend) []Fault {
	step := func(do func(*target) error) step {
		return func(_ context.Context, t *target) error { return t.Do(func() error { return do(t) }) }
	}
	fault := func(name string, do func(*target) error) Fault {
		return Fault{Name: "fast path: " + name, Class: FastPath, NoLoss: true, Inject: step(do)}
	}
	detached := func(whose string, where func(*target) (string, error), programs []fastProgram) Fault {
		return fault(whose+" programs detached", func(t *target) error {
			device, err := where(t)
			if err != nil {
				return err
			}
			return detachFast(device, programs)
		})
	}
	peers := func(name string, do func(t *target, f subnet.Family, m *ebpf.Map) error) Fault {
		return fault(name, func(t *target) error {
			return onFastMap("peers", func(m *ebpf.Map) (err error) {
				for _, f := range t.host.families {
					err = errors.Join(err, do(t, f, m))
				}
				return err
			})
		})
	}
	unbroken := func(f Fault) Fault { f.Unbroken = true; return f }
	cuts := func(f Fault) Fault { f.NoLoss = false; return f }
	running := func(f Fault) Fault { f.Running = true; return f }
	soon := func(f Fault) Fault { f.Bound = 2 * time.Second; return f } // read more often than the rest
	all := slices.Concat([]Fault{
		detached("a port's", firstPort, portPrograms),
		detached("the uplink's", uplinkNow, uplinkPrograms),
		detached("the VXLAN device's", vxlanDevice, devicePrograms),
		fault("pins of attachments deleted", func(*target) error { return removeAll(fastPins + "links/*") }),
		fault("a pin in the place of another", swapPins),
		peers("a peer's address and MAC changed", func(t *target, f subnet.Family, m *ebpf.Map) error {
			return m.Put(fastKey(t.peer, f), fastValue(nowhere(), f))
		}),
		peers("a peer removed", func(t *target, f subnet.Family, m *ebpf.Map) error {
			return m.Delete(fastKey(t.peer, f))
		}),
		peers("a stale peer added", func(_ *target, f subnet.Family, m *ebpf.Map) error {
			return m.Put(fastKey(nowhere(), f), fastValue(nowhere(), f))
		}),
		unbroken(fault("flow maps emptied", func(*target) error {
			return errors.Join(onFastMap("sent", emptyMap), onFastMap("received", emptyMap))
		})),
		fault("the programs' sign of life removed", func(*target) error {
			return onFastMap("heartbeat", func(m *ebpf.Map) error { return m.Put(uint32(0), uint64(0)) })
		}),
		soon(fault("conntrack not liberal", func(*target) error { return os.WriteFile(liberal, []byte("0"), 0) })),
		soon(fault("conntrack not liberal, by another process's /proc", illiberal)),
		cuts(fault("VXLAN device deleted", func(t *target) error {
			l, err := netlink.LinkByName(deviceOf(t.host.families[0]))
			if err != nil {
				return err
			}
			return netlink.LinkDel(l)
		})),
		running(unbroken(Fault{Name: "fast path: a pod deleted and added again", Class: FastPath, NoLoss: true,
			Inject: recreatePod, After: deletePod})),
		running(unbroken(Fault{Name: "fast path: daemon killed, packets stay fast, started again", Class: FastPath,
			NoLoss: true, Inject: func(_ context.Context, t *target) error { t.Kill(); return nil },
			Meanwhile: staysFast,
			Undo: func(ctx context.Context, t *target) error {
				return errors.Join(t.Start(), t.WaitReady(ctx))
			}})),
	}, fastForeignFaults())
	if !b.tunnels() {
		all = slices.DeleteFunc(all, func(f Fault) bool { return strings.Contains(f.Name, "VXLAN device") })
	}
	return all
}

// illiberal writes the setting by another file system than the daemon's, of which that is not notified.
func illiberal(*target) error {
	dir, err := os.MkdirTemp("", "proc")
	if err != nil {
		return err
	}
	if err = unix.Mount("proc", dir, "proc", 0, ""); err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.TrimPrefix(liberal, "/proc")), []byte("0"), 0)
		err = errors.Join(err, unix.Unmount(dir, 0))
	}
	return errors.Join(err, os.Remove(dir))
}

// firstPort is the port of the pod that sends.
func firstPort(t *target) (string, error) {
	l, err := t.portOf(t.pods[0])
	if err != nil {
		return "", err
	}
	return l.Attrs().Name, nil
}

func uplinkNow(t *target) (string, error) {
	u, err := t.readUplink()
	return u.name, err
}

func vxlanDevice(t *target) (string, error) { return deviceOf(t.host.families[0]), nil }

// detachFast ends the attachments of programs to a device, and leaves their pins.
func detachFast(device string, programs []fastProgram) error {
	for _, p := range programs {
		path, err := fastPin(p.name, device)
		if err != nil {
			return err
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return err
		}
		if err := errors.Join(l.Detach(), l.Close()); err != nil {
			return fmt.Errorf("detach %s from %s: %w", p.name, device, err)
		}
	}
	return nil
}

// fastPin is the file that an attachment is pinned as.
func fastPin(program, device string) (string, error) {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(fmt.Sprintf("%slinks/%s-%d", fastPins, program, l.Attrs().Index))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("pins of %s on %s: found %q, want one", program, device, found)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// removeAll removes the files of a pattern, of which there has to be one.
func removeAll(pattern string) error {
	files, err := filepath.Glob(pattern)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no %s", pattern)
	}
	for _, file := range files {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

// swapPins has the pin of one attachment stand for another one, which loses its own.
func swapPins(t *target) error {
	device, err := uplinkNow(t)
	if err != nil {
		return err
	}
	wire, err := fastPin("from_wire", device)
	if err != nil {
		return err
	}
	sent, err := fastPin("learn_sent", device)
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(wire), os.Rename(sent, wire))
}

func fastKey(l subnet.Lease, f subnet.Family) fastSubnet {
	p := l.Endpoints[f].Subnet.Masked()
	return fastSubnet{Bits: uint32(p.Bits() + 128 - p.Addr().BitLen()), Address: p.Addr().As16()}
}

func fastValue(l subnet.Lease, f subnet.Family) fastPeer {
	return fastPeer{Address: l.Endpoints[f].PublicIP.As16(), MAC: [6]byte(macOf(l, f))}
}

// emptyMap deletes all entries, but for such as are made meanwhile.
func emptyMap(m *ebpf.Map) error {
	var keys [][]byte
	var key, value []byte
	all := m.Iterate()
	for all.Next(&key, &value) {
		keys = append(keys, slices.Clone(key))
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return err
	}
	for _, key := range keys {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// recreatePod adds a pod, deletes it, and adds it again: its port is another one then, with the same address or not.
func recreatePod(ctx context.Context, t *target) error {
	for range 2 {
		if err := deletePod(ctx, t); err != nil {
			return err
		}
		p, err := t.suite.lab.AddPod(ctx, t.Node, podName(t.Node, "again", 0))
		if err != nil {
			return err
		}
		t.noted = p
	}
	t.counts()
	return nil
}

// deletePod deletes what recreatePod has made.
func deletePod(ctx context.Context, t *target) error {
	p, ok := t.noted.(*lab.Pod)
	if !ok {
		return nil
	}
	t.noted = nil
	return t.suite.lab.DelPod(ctx, p)
}

// staysFast says where packets are not fast.
func staysFast(ctx context.Context, t *target) error {
	problems, err := t.suite.goesFast(ctx)
	if problems != nil {
		err = errors.Join(err, fmt.Errorf("%q", problems))
	}
	return err
}
