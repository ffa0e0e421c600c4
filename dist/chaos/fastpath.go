package chaos

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/subnet"
)

// fastPins leads to what the daemon of a node has pinned in the node's own BPF file system, in whatever network
// namespace it takes itself to be in.
const fastPins = "/sys/fs/bpf/selvage*/net-*/"

// liberal is the setting without which conntrack takes packets for invalid after others of their connection were fast.
const liberal = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"

// fastProgram is one of the fast path's, and where it belongs.
type fastProgram struct {
	name string
	hook ebpf.AttachType
}

// The programs of a pod's port, of the uplink and of the VXLAN device.
var (
	portPrograms = []fastProgram{
		{"from_pod", ebpf.AttachTCXIngress}, {"learn_received", ebpf.AttachTCXEgress},
	}
	uplinkPrograms = []fastProgram{{"from_wire", ebpf.AttachTCXIngress}, {"learn_sent", ebpf.AttachTCXEgress}}
	devicePrograms = []fastProgram{{"from_device", ebpf.AttachTCXIngress}}
)

// isFastProgram reports whether a program has the name of one of these.
func isFastProgram(name string) bool {
	return slices.ContainsFunc(slices.Concat(portPrograms, uplinkPrograms, devicePrograms),
		func(p fastProgram) bool { return p.name == name })
}

func (p fastProgram) on(device string) string { return programLine(p.name, p.hook, device) }

func programLine(name string, hook ebpf.AttachType, device string) string {
	return fmt.Sprintf("program %s at %s of %s", name, hook, device)
}

// checkFastPath says why there can be no fast path.
func (o Options) checkFastPath() error {
	if o.FastPath && !fastpath.Permitted() {
		return errors.New("the fast path: the kernel lets only root load BPF programs, outside of a user namespace")
	}
	return nil
}

// checkFast compares the fast path with what the leases and the node's devices ask for. A device in h.passed must have
// no program; if it is not the port of a pod, no device must.
func (h *host) checkFast(leases []subnet.Lease) (p problems, err error) {
	if !h.fast {
		return p, nil
	}
	want, err := h.wantFast(leases)
	if err != nil {
		return p, fmt.Errorf("%s: %w", h.Name(), err)
	}
	have, err := in(h, readFast)
	if err != nil {
		return p, fmt.Errorf("%s: %w", h.Name(), err)
	}
	for _, difference := range compare("fast path", want, have) {
		p.add(h.families[0], "%s", difference)
	}
	return p.of(h), nil
}

// in calls a function in a node's namespaces.
func in[T any](h *host, f func() (T, error)) (result T, err error) {
	err = h.Do(func() (err error) { result, err = f(); return err })
	return result, err
}

// wantFast is what readFast is to return.
func (h *host) wantFast(leases []subnet.Lease) (lines []string, err error) {
	u, err := h.readUplink()
	if err != nil {
		return nil, err
	}
	links, err := again(h.nl.LinkList)
	if err != nil {
		return nil, err
	}
	bridge := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == podBridge })
	works, devices := !h.passed[u.name], map[string]bool{}
	for _, f := range h.families {
		if h.backend.tunnels() {
			devices[deviceOf(f)] = true
			works = works && !h.passed[deviceOf(f)]
		}
	}
	for _, l := range links {
		var programs []fastProgram
		switch a := l.Attrs(); {
		case !works || h.passed[a.Name]:
		case a.Name == u.name:
			programs = uplinkPrograms
		case devices[a.Name]:
			programs = devicePrograms
		case bridge >= 0 && l.Type() == "veth" && a.MasterIndex == links[bridge].Attrs().Index:
			programs = portPrograms
		}
		for _, p := range programs {
			lines = append(lines, p.on(l.Attrs().Name))
		}
	}
	for _, l := range leases {
		if l.NodeName == h.Name() {
			continue
		}
		for _, f := range h.families {
			e := l.Endpoints[f]
			if h.backend.goesDirect(e.PublicIP, u) {
				lines = append(lines, directPeerLine(e.Subnet, e.PublicIP))
			} else {
				lines = append(lines, peerLine(e.Subnet, e.PublicIP, macOf(l, f)))
			}
		}
	}
	if works {
		lines = append(lines, "in use")
	}
	lines = append(lines, liberal+" is 1")
	slices.Sort(lines)
	return lines, nil
}

func peerLine(subnet netip.Prefix, address netip.Addr, mac net.HardwareAddr) string {
	return fmt.Sprintf("peer %s dst %s lladdr %s", subnet, address, mac)
}

func directPeerLine(subnet netip.Prefix, address netip.Addr) string {
	return fmt.Sprintf("peer %s via %s", subnet, address)
}

// readFast reads what there is of the fast path in the calling thread's namespaces, a line a thing.
func readFast() (lines []string, err error) {
	pins, err := fastLinkPins()
	if err != nil {
		return nil, err
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			at, err := programsAt(i.Index, hook)
			if err != nil {
				return nil, fmt.Errorf("the programs on %s: %w", i.Name, err)
			}
			for place, p := range at {
				if !isFastProgram(p.name) {
					continue
				}
				line := programLine(p.name, hook, i.Name)
				if pins[p.link] != fmt.Sprintf("%s-%d", p.name, i.Index) {
					line += ", not pinned"
				}
				if place < len(at)-1 {
					line += fmt.Sprintf(", before %s", at[place+1].name)
				}
				lines = append(lines, line)
			}
		}
	}
	peers, err := readFastPeers()
	if err != nil {
		return nil, err
	}
	lines = append(lines, peers...)
	if alive, err := fastAlive(); err != nil {
		return nil, err
	} else if alive {
		lines = append(lines, "in use")
	}
	value, err := os.ReadFile(liberal)
	if err != nil {
		return nil, err
	}
	lines = append(lines, fmt.Sprintf("%s is %s", liberal, strings.TrimSpace(string(value))))
	slices.Sort(lines)
	return lines, nil
}

// fastLinkPins reads the names of pinned attachments.
func fastLinkPins() (map[link.ID]string, error) {
	files, err := filepath.Glob(fastPins + "links/*")
	if err != nil {
		return nil, err
	}
	pins := map[link.ID]string{}
	for _, file := range files {
		l, err := link.LoadPinnedLink(file, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := l.Info()
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, err
		}
		pins[info.ID] = filepath.Base(file)
	}
	return pins, nil
}

// attached is a program at a hook.
type attached struct {
	name string
	link link.ID
}

// programsAt lists the programs at a hook of an interface, in their order.
func programsAt(index int, hook ebpf.AttachType) (all []attached, err error) {
	r, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: hook})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) { // nothing there, no interface
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, x := range r.Programs {
		p, err := ebpf.NewProgramFromID(x.ID)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		info, err := p.Info()
		if err := errors.Join(err, p.Close()); err != nil {
			return nil, err
		}
		id, _ := x.LinkID()
		all = append(all, attached{info.Name, id})
	}
	return all, nil
}

// onFastMap calls a function with one of the programs' maps.
func onFastMap(name string, f func(*ebpf.Map) error) error {
	found, err := filepath.Glob(fastPins + "maps-*/" + name)
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("map %s: found %q, want one", name, found)
	}
	m, err := ebpf.LoadPinnedMap(found[0], nil)
	if err != nil {
		return err
	}
	return errors.Join(f(m), m.Close())
}

// fastSubnet and fastPeer are what the map of peers holds, see struct subnet and struct peer in
// network/fastpath/bpf/fastpath.c.
type (
	fastSubnet struct {
		Bits    uint32 // of an IPv4 address mapped into IPv6
		Address [16]byte
	}
	fastPeer struct {
		Address [16]byte
		MAC     [6]byte
		Direct  uint8
		Pad     uint8
	}
)

func readFastPeers() (lines []string, err error) {
	err = onFastMap("peers", func(m *ebpf.Map) error {
		var key fastSubnet
		var value fastPeer
		all := m.Iterate()
		for all.Next(&key, &value) {
			address := netip.AddrFrom16(key.Address).Unmap()
			subnet := netip.PrefixFrom(address, int(key.Bits)-128+address.BitLen())
			address = netip.AddrFrom16(value.Address).Unmap()
			if value.Direct != 0 {
				lines = append(lines, directPeerLine(subnet, address))
			} else {
				lines = append(lines, peerLine(subnet, address, value.MAC[:]))
			}
		}
		if err := all.Err(); !errors.Is(err, ebpf.ErrIterationAborted) { // it is being changed: looked at again
			return err
		}
		return nil
	})
	return lines, err
}

// fastAlive reports whether the programs take the daemon for alive.
func fastAlive() (alive bool, err error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return false, err
	}
	err = onFastMap("heartbeat", func(m *ebpf.Map) error {
		var until uint64
		err := m.Lookup(uint32(0), &until)
		alive = until > uint64(now.Nano())
		return err
	})
	return alive, err
}
