package fastpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// PassesBy reports whether fast packets would pass by a program that another process has attached by tcx to an
// interface in a role. It does not matter where in the order the program is: fast packets never come to the hook.
func (p *Path) PassesBy(ifindex int, role Role) (bool, error) {
	var hooks []ebpf.AttachType
	switch role {
	case Port: // to the pod; from the pod, programs come before ours
		hooks = []ebpf.AttachType{ebpf.AttachTCXEgress}
	case Device:
		hooks = []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress}
	}
	own, err := p.linksOn(ifindex)
	if err != nil {
		return false, err
	}
	for _, hook := range hooks {
		at, err := query(ifindex, hook)
		if err != nil {
			return false, err
		}
		for _, x := range at {
			if id, ok := x.LinkID(); !ok || !own[id] {
				return true, nil
			}
		}
	}
	return false, nil
}

// linksOn returns the attachments of this process, or of an earlier one, to an interface.
func (p *Path) linksOn(ifindex int) (map[link.ID]bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := map[link.ID]bool{}
	for a, l := range p.links {
		if a.Interface != ifindex {
			continue
		}
		info, err := l.Info()
		if err != nil {
			return nil, fmt.Errorf("read how %s is attached to interface %d: %w", a.Program, a.Interface, err)
		}
		own[info.ID] = true
	}
	return own, nil
}

// RemovePins detaches what an earlier process has pinned below a directory, see [Options], and removes the pins. It
// loads nothing. It returns whether there was anything; with dry, it removes nothing.
func RemovePins(pins string, dry bool) (found bool, err error) {
	if _, err := os.Stat(pins); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if dry {
		return true, nil
	}
	p := &Path{pins: pins}
	files, err := os.ReadDir(p.linkDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return true, fmt.Errorf("read the fast path's pins: %w", err)
	}
	var errs []error
	for _, f := range files {
		l, err := link.LoadPinnedLink(filepath.Join(p.linkDir(), f.Name()), nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("open the pinned attachment %s: %w", f.Name(), err))
			continue
		}
		if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) { // ENOLINK: its interface is gone
			errs = append(errs, fmt.Errorf("detach %s: %w", f.Name(), err))
		}
		errs = append(errs, l.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return true, err // what is not detached stays pinned: otherwise no process could detach it
	}
	if err := os.RemoveAll(pins); err != nil {
		return true, fmt.Errorf("remove the fast path's pins: %w", err)
	}
	return true, nil
}
