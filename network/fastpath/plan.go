package fastpath

import (
	"cmp"
	"slices"
)

// Program is one of the programs, by its name in bpf/fastpath.c. Each has one hook.
type Program string

// The programs.
const (
	FromPod       Program = programsProgFromPod
	LearnReceived Program = programsProgLearnReceived
	FromWire      Program = programsProgFromWire
	LearnSent     Program = programsProgLearnSent
	FromDevice    Program = programsProgFromDevice
)

// Role is what an interface is to the fast path.
type Role uint8

// The roles.
const (
	Port   Role = iota // the host's end of a pod's veth pair
	Uplink             // to the underlay
	Device             // the VXLAN device
)

// Programs are those that an interface in a role needs.
func (r Role) Programs() []Program {
	switch r {
	case Port:
		return []Program{FromPod, LearnReceived}
	case Uplink:
		return []Program{FromWire, LearnSent}
	default:
		return []Program{FromDevice}
	}
}

// Attachment is a program at an interface.
type Attachment struct {
	Interface int // ifindex
	Program   Program
}

// State is the state of an attachment.
type State struct {
	Program uint32 // ID of the program in the kernel, which is another one after each load
	Pinned  bool   // the attachment outlives the process
	Last    bool   // no other program follows at the hook: it would not see fast packets
}

// Want returns the desired attachments of interfaces, by ifindex.
func (p *Path) Want(interfaces map[int]Role) map[Attachment]State {
	want := map[Attachment]State{}
	for index, role := range interfaces {
		for _, program := range role.Programs() {
			want[Attachment{index, program}] = State{Program: p.ids[program], Pinned: p.pins != "", Last: true}
		}
	}
	return want
}

// Plan compares the desired attachments with the actual ones. It returns those to set, learning programs first, and
// those to remove, learning programs last, so that nothing is fast at one end only for longer than it has to be.
func Plan(want, have map[Attachment]State) (set, remove []Attachment) {
	for a, w := range want {
		if h, ok := have[a]; !ok || h != w {
			set = append(set, a)
		}
	}
	for a := range have {
		if _, ok := want[a]; !ok {
			remove = append(remove, a)
		}
	}
	slices.SortFunc(set, compareAttachments)
	slices.SortFunc(remove, func(a, b Attachment) int { return compareAttachments(b, a) })
	return set, remove
}

func compareAttachments(a, b Attachment) int {
	order := []Program{LearnReceived, LearnSent, FromDevice, FromWire, FromPod}
	return cmp.Or(
		cmp.Compare(slices.Index(order, a.Program), slices.Index(order, b.Program)),
		cmp.Compare(a.Interface, b.Interface),
	)
}
