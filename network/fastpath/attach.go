package fastpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func (p *Path) program(name Program) *ebpf.Program {
	switch name {
	case FromPod:
		return p.objects.FromPod
	case LearnReceived:
		return p.objects.LearnReceived
	case FromWire:
		return p.objects.FromWire
	case LearnSent:
		return p.objects.LearnSent
	default:
		return p.objects.FromDevice
	}
}

// hook is where a program is attached.
func (name Program) hook() ebpf.AttachType {
	if name == LearnReceived || name == LearnSent {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// readIDs notes the programs' numbers in the kernel; 0 if the kernel does not say.
func (p *Path) readIDs() {
	p.ids = map[Program]uint32{}
	for _, name := range []Program{FromPod, LearnReceived, FromWire, LearnSent, FromDevice} {
		if info, err := p.program(name).Info(); err == nil {
			id, _ := info.ID()
			p.ids[name] = uint32(id)
		}
	}
}

// pin is the file that an attachment is pinned as.
func (p *Path) pin(a Attachment) string {
	return filepath.Join(p.linkDir(), fmt.Sprintf("%s-%d", a.Program, a.Interface))
}

func parsePin(name string) (a Attachment, ok bool) {
	program, index, ok := strings.Cut(name, "-")
	a.Program = Program(program)
	n, err := strconv.Atoi(index)
	a.Interface = n
	return a, ok && err == nil
}

// openLinks takes over the attachments that are pinned. One whose interface is gone is removed.
func (p *Path) openLinks() error {
	if p.pins == "" {
		return nil
	}
	files, err := os.ReadDir(p.linkDir())
	if err != nil {
		return fmt.Errorf("read the fast path's pins: %w", err)
	}
	for _, f := range files {
		a, ok := parsePin(f.Name())
		if !ok {
			continue
		}
		l, err := link.LoadPinnedLink(p.pin(a), nil)
		if err != nil {
			return fmt.Errorf("open the pinned attachment %s: %w", f.Name(), err)
		}
		p.links[a] = l
	}
	return nil
}

// Attachments reads what this process has attached, or an earlier one that pinned it. What
// is left of attachments to interfaces that are gone is removed.
func (p *Path) Attachments() (map[Attachment]State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := map[Attachment]State{}
	for a, l := range p.links {
		info, err := l.Info()
		if err != nil {
			return nil, fmt.Errorf("read how %s is attached to interface %d: %w", a.Program, a.Interface, err)
		}
		tcx := info.TCX()
		if tcx == nil || int(tcx.Ifindex) != a.Interface { // 0: the interface is gone, or the link is detached
			if err := p.forget(a); err != nil {
				return nil, err
			}
			continue
		}
		state := State{Program: uint32(info.Program), Pinned: p.isPinned(a, info.ID)}
		if state.Last, err = isLast(a, info.ID); err != nil {
			return nil, err
		}
		have[a] = state
	}
	return have, nil
}

// isPinned reports whether the file is the link's: another process may have removed it, or put another there.
func (p *Path) isPinned(a Attachment, id link.ID) bool {
	if p.pins == "" {
		return false
	}
	l, err := link.LoadPinnedLink(p.pin(a), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	return err == nil && info.ID == id
}

// isLast reports whether no program of another kind follows a link's at its hook.
func isLast(a Attachment, id link.ID) (bool, error) {
	at, err := query(a.Interface, a.Program.hook())
	if err != nil {
		return false, err
	}
	if len(at) == 0 {
		return false, nil
	}
	for _, x := range slices.Backward(at) {
		if last, _ := x.LinkID(); last == id || !isProgram(x.ID, a.Program) {
			return last == id, nil
		}
	}
	return false, nil
}

// isProgram reports whether a program has the name of one of ours: then it is of another network of selvage, on the
// same node, and each takes only its own packets. To ask takes CAP_SYS_ADMIN; without, a program is another's.
func isProgram(id ebpf.ProgramID, name Program) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && info.Name == string(name)
}

// query lists the tcx programs at a hook, in their order.
func query(ifindex int, hook ebpf.AttachType) ([]link.AttachedProgram, error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: hook})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) { // nothing there, no interface
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the programs at the interface with index %d: %w", ifindex, err)
	}
	return result.Programs, nil
}

// Attach sets an attachment: with this process's program, after all others at the hook, and pinned if there are pins.
// A program that another version had there is replaced in one step.
func (p *Path) Attach(a Attachment) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.links[a]; ok {
		if err := p.renew(a, l); err == nil {
			return nil
		}
		if err := p.forget(a); err != nil {
			return err
		}
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: a.Interface, Program: p.program(a.Program), Attach: a.Program.hook(), Anchor: link.Tail(),
	})
	if err != nil {
		return fmt.Errorf("attach %s to the interface with index %d: %w", a.Program, a.Interface, err)
	}
	p.links[a] = l
	return p.ensurePin(a, l)
}

// errNotRenewable means that the attachment has to be made again.
var errNotRenewable = errors.New("the attachment has to be made again")

// renew repairs an attachment that exists.
func (p *Path) renew(a Attachment, l link.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	if tcx := info.TCX(); tcx == nil || int(tcx.Ifindex) != a.Interface {
		return errNotRenewable
	}
	if last, err := isLast(a, info.ID); err != nil || !last {
		return errors.Join(err, errNotRenewable)
	}
	if uint32(info.Program) != p.ids[a.Program] {
		if err := l.Update(p.program(a.Program)); err != nil {
			return err
		}
	}
	return p.ensurePin(a, l)
}

func (p *Path) ensurePin(a Attachment, l link.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	if p.pins == "" || p.isPinned(a, info.ID) {
		return nil
	}
	if err := os.Remove(p.pin(a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a file in the place of a pin: %w", err)
	}
	if err := os.MkdirAll(p.linkDir(), 0o700); err != nil {
		return fmt.Errorf("make a directory for pins: %w", err)
	}
	_ = l.Unpin() // its file is gone: otherwise the library would rename it
	if err := l.Pin(p.pin(a)); err != nil {
		return fmt.Errorf("pin the attachment of %s to the interface with index %d: %w", a.Program, a.Interface, err)
	}
	return nil
}

// Detach removes an attachment. One that is not there is no error.
func (p *Path) Detach(a Attachment) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.forget(a)
}

// forget detaches and unpins.
func (p *Path) forget(a Attachment) error {
	l, ok := p.links[a]
	if !ok {
		return nil
	}
	delete(p.links, a)
	var errs []error
	if p.pins != "" {
		if err := os.Remove(p.pin(a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) { // ENOLINK: detached already
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, l.Close())...); err != nil {
		return fmt.Errorf("detach %s from the interface with index %d: %w", a.Program, a.Interface, err)
	}
	return nil
}

func (p *Path) detachAll() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for a := range p.links {
		errs = append(errs, p.forget(a))
	}
	return errors.Join(errs...)
}
