package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// place is a hook of a device, where another process puts a program.
type place struct {
	device func(*target) (string, error)
	hook   ebpf.AttachType
}

// foreignProgram is the name of another process's program. It passes everything on.
const foreignProgram = "stranger"

// fastForeignFaults are programs of another process beside those of the fast path. If all packets come by them, they
// stay where they were put, and ours come after them; else packets are slow while they are there.
func fastForeignFaults() []Fault {
	tcx := func(name string, first bool, places ...place) Fault {
		return Fault{Name: "fast path: another's program " + name, Class: FastPath, NoLoss: true,
			Inject: func(_ context.Context, t *target) error { return t.addForeignPrograms(first, places) },
			After:  func(_ context.Context, t *target) error { return t.removeForeignPrograms(places) }}
	}
	slow := func(f Fault, device func(*target) (string, error)) Fault {
		inject, remove := f.Inject, f.After
		f.Inject = func(ctx context.Context, t *target) error {
			name, err := device(t)
			if err != nil {
				return err
			}
			t.passed[name] = true
			return inject(ctx, t)
		}
		f.Undo = func(ctx context.Context, t *target) error {
			clear(t.passed)
			return remove(ctx, t)
		}
		f.Follow, f.After = true, nil
		return f
	}
	filter := func(whose string, device func(*target) (string, error)) Fault {
		return slow(Fault{Name: "fast path: another's tc filter on " + whose, Class: FastPath, // the device pauses
			Inject: func(_ context.Context, t *target) error { return t.addFilter(device) },
			After:  func(_ context.Context, t *target) error { return t.removeFilter(device) }}, device)
	}
	seen := []place{
		{firstPort, ebpf.AttachTCXIngress}, {uplinkNow, ebpf.AttachTCXIngress}, {uplinkNow, ebpf.AttachTCXEgress},
	}
	before := tcx("before ours", true, seen...)
	before.Unbroken = true
	return []Fault{
		before,
		tcx("after ours", false, seen...),
		slow(tcx("on the way to a pod", true, place{firstPort, ebpf.AttachTCXEgress}), firstPort),
		slow(tcx("on the VXLAN device", true, place{vxlanDevice, ebpf.AttachTCXIngress}), vxlanDevice),
		filter("the uplink", uplinkNow),
		filter("a port", firstPort),
	}
}

// passing makes a program that passes everything on.
func passing() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Name: foreignProgram, Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return()}})
}

// addForeignPrograms attaches another process's program to hooks, in front of those there or behind them.
func (t *target) addForeignPrograms(first bool, places []place) error {
	program, err := passing()
	if err != nil {
		return err
	}
	defer program.Close()
	return t.Do(func() error {
		anchor := link.Tail()
		if first {
			anchor = link.Head()
		}
		var links []link.Link
		t.noted = &links
		for _, p := range places {
			index, err := t.indexOf(p.device)
			if err != nil {
				return err
			}
			l, err := link.AttachTCX(link.TCXOptions{
				Interface: index, Program: program, Attach: p.hook, Anchor: anchor,
			})
			if err != nil {
				return fmt.Errorf("attach another's program: %w", err)
			}
			links = append(links, l)
		}
		return nil
	})
}

// removeForeignPrograms removes what addForeignPrograms has attached, and sees that it was still there: the first one
// at its hook, or the last but ours.
func (t *target) removeForeignPrograms(places []place) error {
	err := t.Do(func() error {
		for _, p := range places {
			index, err := t.indexOf(p.device)
			if err != nil {
				return err
			}
			at, err := programsAt(index, p.hook)
			if err != nil {
				return err
			}
			others := slices.DeleteFunc(slices.Clone(at), func(a attached) bool { return isFastProgram(a.name) })
			if len(others) != 1 || others[0].name != foreignProgram || at[0] != others[0] {
				return fmt.Errorf("%s: the programs at a hook with another process's are %+v", t.Name(), at)
			}
		}
		return nil
	})
	if links, ok := t.noted.(*[]link.Link); ok {
		for _, l := range *links {
			err = errors.Join(err, l.Close()) // it is not pinned
		}
	}
	return err
}

// indexOf is the number of a device.
func (t *target) indexOf(device func(*target) (string, error)) (int, error) {
	name, err := device(t)
	if err != nil {
		return 0, err
	}
	l, err := t.nl.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// addFilter adds a filter of tc where a device receives.
func (t *target) addFilter(device func(*target) (string, error)) error {
	index, err := t.indexOf(device)
	if err != nil {
		return err
	}
	program, err := passing()
	if err != nil {
		return err
	}
	defer program.Close()
	if err := t.nl.QdiscAdd(clsact(index)); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	return t.nl.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), Name: foreignProgram, DirectAction: true,
	})
}

// removeFilter removes what addFilter has added, and sees that it was still there.
func (t *target) removeFilter(device func(*target) (string, error)) error {
	index, err := t.indexOf(device)
	if err != nil {
		return err
	}
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	filters, err := t.nl.FilterList(l, netlink.HANDLE_MIN_INGRESS)
	if err == nil && len(filters) != 1 {
		err = fmt.Errorf("%s: another's filters of tc are %v, want one", t.Name(), filters)
	}
	return errors.Join(err, t.nl.QdiscDel(clsact(index)))
}
