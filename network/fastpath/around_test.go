package fastpath

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// TestPassesBy: programs of other processes are found at the hooks where fast packets never come, and ours are not
// taken for such.
func TestPassesBy(t *testing.T) {
	if !loadable(t) {
		return
	}
	l, n := newAttachLab(t)
	l.open(n, "")
	passesBy := func(role Role) (by bool) {
		t.Helper()
		l.do(n, func() (err error) { by, err = n.path.PassesBy(n.index(role), role); return err })
		return by
	}
	for _, role := range []Role{Port, Uplink, Device} {
		if passesBy(role) {
			t.Errorf("role %d: a program of another process is found, and there is none", role)
		}
	}
	for _, tt := range []struct {
		role Role
		hook ebpf.AttachType
		want bool
	}{
		{Uplink, ebpf.AttachTCXIngress, false}, {Uplink, ebpf.AttachTCXEgress, false}, {Port, ebpf.AttachTCXIngress, false},
		{Port, ebpf.AttachTCXEgress, true}, {Device, ebpf.AttachTCXIngress, true}, {Device, ebpf.AttachTCXEgress, true},
	} {
		other := l.foreign(n, n.index(tt.role), tt.hook, link.Head())
		if got := passesBy(tt.role); got != tt.want {
			t.Errorf("a program at hook %s of an interface in role %d: %t, want %t", tt.hook, tt.role, got, tt.want)
		}
		l.do(n, other.Detach)
	}
}

// TestTwoNetworks: the programs of two networks on one uplink do not push each other away.
func TestTwoNetworks(t *testing.T) {
	if !loadable(t) {
		return
	}
	l, n := newAttachLab(t)
	l.open(n, "")
	first := n.path
	n.path = nil
	l.do(n, func() error {
		second, err := Open(Options{Flows: 128})
		if err != nil {
			return err
		}
		defer second.Close()
		for _, p := range []*Path{second, first} {
			a := Attachment{n.index(Uplink), FromWire}
			if err := p.Attach(a); err != nil {
				return err
			}
			have, err := p.Attachments()
			if err == nil && !have[a].Last {
				t.Errorf("the program of another network is taken for one that has to come before: %+v", have[a])
			}
			if err != nil {
				return err
			}
		}
		return first.Remove()
	})
}

// TestRemovePins: another process removes all that one has pinned, without loading anything.
func TestRemovePins(t *testing.T) {
	if !loadable(t) {
		return
	}
	l, n := newAttachLab(t)
	pins := bpffs(t)
	remove := func(dry, want bool) {
		t.Helper()
		l.do(n, func() error {
			found, err := RemovePins(pins, dry)
			if found != want {
				t.Errorf("dry %t: found %t, want %t", dry, found, want)
			}
			return err
		})
	}
	remove(false, false)
	l.open(n, pins)
	if err := n.path.Close(); err != nil {
		t.Fatal(err)
	}
	n.path = nil
	remove(true, true)
	l.expectAt(n, n.index(Uplink), ebpf.AttachTCXIngress, "from_wire")
	remove(false, true)
	for _, role := range []Role{Port, Uplink, Device} {
		l.expectAt(n, n.index(role), ebpf.AttachTCXIngress)
		l.expectAt(n, n.index(role), ebpf.AttachTCXEgress)
	}
	if _, err := os.Stat(pins); !os.IsNotExist(err) {
		t.Errorf("the pins are left: %v", err)
	}
	remove(false, false)
}
