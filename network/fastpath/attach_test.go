package fastpath

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newAttachLab returns a node of a lab with nothing but three interfaces, for attachments.
func newAttachLab(t *testing.T) (*lab, *labNode) {
	t.Helper()
	l, n := &lab{t: t}, &labNode{Net: newNet(t), roles: map[int]Role{}}
	l.nodes[0], l.nodes[1] = n, n
	n.config = Config{Local: ipv4.node(2), Port: 8472, VNI: 1, Device: 1, MTU: 1450, MAC: [6]byte{2}}
	for i, name := range []string{"port", "uplink", "device"} {
		n.roles[l.addLink(n, name)] = Role(i)
	}
	return l, n
}

func (l *lab) addLink(n *labNode, name string) (index int) {
	l.t.Helper()
	l.do(n, func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
			return err
		}
		index = l.link(name).Attrs().Index
		return nil
	})
	return index
}

// bpffs mounts a BPF file system and returns a directory in it that does not exist.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "selvage", "fastpath")
}

// foreign attaches another process's program, which passes everything on.
func (l *lab) foreign(n *labNode, index int, hook ebpf.AttachType, anchor link.Anchor) link.Link {
	l.t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return()},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	var attached link.Link
	l.do(n, func() (err error) {
		o := link.TCXOptions{Interface: index, Program: program, Attach: hook, Anchor: anchor}
		attached, err = link.AttachTCX(o)
		return err
	})
	l.t.Cleanup(func() { attached.Close(); program.Close() })
	return attached
}

// at is the order of programs at a hook, by name.
func (l *lab) at(n *labNode, index int, hook ebpf.AttachType) (names []string) {
	l.t.Helper()
	l.do(n, func() error {
		attached, err := query(index, hook)
		if err != nil {
			return err
		}
		for _, a := range attached {
			program, err := ebpf.NewProgramFromID(a.ID)
			if err != nil {
				return err
			}
			defer program.Close()
			info, err := program.Info()
			if err != nil {
				return err
			}
			names = append(names, info.Name)
		}
		return nil
	})
	return names
}

func (l *lab) expectAt(n *labNode, index int, hook ebpf.AttachType, want ...string) {
	l.t.Helper()
	if got := l.at(n, index, hook); !slices.Equal(got, want) {
		l.t.Errorf("the programs at the interface with index %d are %v, want %v", index, got, want)
	}
}

func (n *labNode) index(role Role) int {
	for index, r := range n.roles {
		if r == role {
			return index
		}
	}
	return 0
}

// TestRepair: whatever happens to attachments is found by reading, and repaired once.
func TestRepair(t *testing.T) {
	if !loadable(t) {
		return
	}
	for _, pinned := range []bool{false, true} {
		l, n := newAttachLab(t)
		pins := ""
		if pinned {
			pins = bpffs(t)
		}
		l.open(n, pins)
		repaired := func(what string, set, removed int) {
			t.Helper()
			if s, r := l.apply(n); s != set || r != removed {
				t.Errorf("pinned: %t, %s: %d set and %d removed, want %d and %d", pinned, what, s, r, set, removed)
			}
			if s, r := l.apply(n); s+r > 0 {
				t.Errorf("pinned: %t, %s: %d set and %d removed once more", pinned, what, s, r)
			}
		}
		repaired("nothing", 0, 0)
		port, uplink := n.index(Port), n.index(Uplink)

		l.do(n, func() error { return n.path.links[Attachment{uplink, FromWire}].Detach() })
		repaired("detached", 1, 0)
		l.expectAt(n, uplink, ebpf.AttachTCXIngress, "from_wire")

		if pinned {
			if err := os.Remove(n.path.pin(Attachment{uplink, LearnSent})); err != nil {
				t.Fatal(err)
			}
			repaired("a pin removed", 1, 0)
			if err := os.RemoveAll(n.path.linkDir()); err != nil {
				t.Fatal(err)
			}
			repaired("all pins removed", 5, 0)
		}

		l.foreign(n, port, ebpf.AttachTCXIngress, link.Head())
		repaired("another program before", 0, 0)
		l.expectAt(n, port, ebpf.AttachTCXIngress, "foreign", "from_pod")
		l.foreign(n, port, ebpf.AttachTCXIngress, link.Tail())
		repaired("another program behind", 1, 0)
		l.expectAt(n, port, ebpf.AttachTCXIngress, "foreign", "foreign", "from_pod")

		l.run(n, "ip link delete port")
		delete(n.roles, port)
		repaired("the port is gone", 0, 0)
		port = l.addLink(n, "port")
		n.roles[port] = Port
		repaired("the port is there again", 2, 0)
		delete(n.roles, port)
		repaired("it is no port any more", 0, 2)
		l.expectAt(n, port, ebpf.AttachTCXIngress)
		l.expectAt(n, port, ebpf.AttachTCXEgress)
	}
}

// TestRestart: what is pinned goes on without the process, with what was learned, and the next process takes it over.
func TestRestart(t *testing.T) {
	if !loadable(t) {
		return
	}
	l, n := newAttachLab(t)
	pins := bpffs(t)
	if missing := Missing(pins); len(missing) > 0 {
		t.Fatalf("missing: %v", missing)
	}
	l.open(n, pins)
	first := n.path
	uplink := n.index(Uplink)
	id := first.ids[FromWire]
	key := programsKey{Source: 1}
	if err := first.objects.Sent.Put(key, programsSent{Mark: 7}); err != nil {
		t.Fatal(err)
	}
	generation := first.control[0].Generation
	n.path = nil
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l.expectAt(n, uplink, ebpf.AttachTCXIngress, "from_wire")

	l.open(n, pins)
	var entry programsSent
	if err := n.path.objects.Sent.Lookup(key, &entry); err != nil || entry.Mark != 7 {
		t.Errorf("what was learned is %+v after a restart: %v", entry, err)
	}
	if got := n.path.control[0].Generation; got != generation {
		t.Errorf("the generation is %d after a restart, want %d", got, generation)
	}
	if n.path.ids[FromWire] == id {
		t.Error("the program is the earlier process's")
	}
	l.expectAt(n, uplink, ebpf.AttachTCXIngress, "from_wire")
	if set, removed := l.apply(n); set+removed > 0 {
		t.Errorf("after the restart %d are set and %d removed once more", set, removed)
	}

	l.run(n, "ip link delete port")
	delete(n.roles, n.index(Port))
	last := n.path
	n.path = nil
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
	l.open(n, pins) // with pins of an interface that is gone
	l.do(n, n.path.Remove)
	n.path = nil
	l.expectAt(n, uplink, ebpf.AttachTCXIngress)
	l.expectAt(n, uplink, ebpf.AttachTCXEgress)
	if _, err := os.Stat(pins); !os.IsNotExist(err) {
		t.Errorf("the directory for pins is left: %v", err)
	}
}

// TestEndsWithProcess: what is not pinned ends.
func TestEndsWithProcess(t *testing.T) {
	if !loadable(t) {
		return
	}
	l, n := newAttachLab(t)
	l.open(n, "")
	path := n.path
	n.path = nil
	if err := path.Close(); err != nil {
		t.Fatal(err)
	}
	gone := func() bool { return len(l.at(n, n.index(Uplink), ebpf.AttachTCXIngress)) == 0 }
	l.eventually("the programs are gone", gone)
}

func TestConfigRefused(t *testing.T) {
	right := Config{Local: ipv4.node(2), Port: 8472, VNI: 1, Device: 1, MTU: 1450}
	if _, err := right.control(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Config){
		"no address": func(c *Config) { c.Local = netip.Addr{} },
		"no port":    func(c *Config) { c.Port = 0 },
		"VNI":        func(c *Config) { c.VNI = 1 << 24 },
		"no device":  func(c *Config) { c.Device = 0 },
		"no MTU":     func(c *Config) { c.MTU = 0 },
		"life":       func(c *Config) { c.Life = -1 },
		"timeout":    func(c *Config) { c.Established = 50 * 24 * time.Hour },
	} {
		c := right
		change(&c)
		if _, err := c.control(); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	other := right
	other.Local = ipv6.node(2)
	if _, err := controls([]Config{other, right}); err != nil {
		t.Error(err)
	}
	if _, err := controls([]Config{right, other, right}); err == nil {
		t.Error("two devices over one underlay are accepted")
	}
}

// TestMissing: the capability that a process lacks is named, and a directory that takes no pins is named.
func TestMissing(t *testing.T) {
	if !loadable(t) {
		return
	}
	dir := t.TempDir()
	if got := Missing(filepath.Join(dir, "a", "b")); len(got) != 1 || !strings.Contains(got[0], dir) {
		t.Errorf("without a BPF file system: %q, want its place", got)
	}
	if _, err := Open(Options{Pins: dir}); err == nil {
		t.Error("pins are accepted where there is no BPF file system")
	}
	n := newNet(t)
	err := n.Do(func() error { // a thread of its own, which ends
		var caps [2]unix.CapUserData
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capget(&header, &caps[0]); err != nil {
			return err
		}
		for _, c := range []int{unix.CAP_SYS_ADMIN, unix.CAP_PERFMON} {
			caps[c/32].Effective &^= 1 << (c % 32)
		}
		if err := unix.Capset(&header, &caps[0]); err != nil {
			return err
		}
		if got := Missing(""); !slices.Equal(got, []string{"capability CAP_PERFMON"}) {
			t.Errorf("without CAP_PERFMON: %q", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
