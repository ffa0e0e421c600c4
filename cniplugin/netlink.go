package cniplugin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file reads the kernel's state. An ADD that succeeds reads two interfaces, to announce the pod; CHECK and error
// paths read more.

// link is the state of an interface in the kernel.
type link struct {
	index int
	mtu   int
	up    bool
	addrs []netip.Prefix // in the kernel's order
}

// route is a route to a network.
type route struct {
	dst  netip.Prefix
	via  netip.Addr // invalid: directly
	link int        // index of the interface
}

// inNamespace calls fn on a new thread in the network namespace at path.
func inNamespace(path string, fn func() error) error {
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(ns)
	return onThread(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", path, err)
		}
		return fn()
	})
}

// onThread calls fn on a new thread, which ends with fn.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread cannot end, and would stay where fn takes it. While it is held here, fn gets another one.
			defer runtime.UnlockOSThread()
			done <- onThread(fn)
			return
		}
		done <- fn()
	}()
	return <-done
}

// isNamespace reports whether path leads to a namespace: to where one is mounted, or to a process's.
func isNamespace(path string) bool {
	var info unix.Statfs_t
	if err := unix.Statfs(path, &info); err != nil {
		return false
	}
	return info.Type == unix.NSFS_MAGIC
}

// findLink returns the interface of that name in the calling thread's namespace.
func findLink(name string) (link, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return link{}, fmt.Errorf("find interface %s: %w", name, err)
	}
	l := link{index: i.Index, mtu: i.MTU, up: i.Flags&net.FlagUp != 0}
	addrs, err := i.Addrs()
	if err != nil {
		return l, fmt.Errorf("list the addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			l.addrs = append(l.addrs, p)
		}
	}
	return l, nil
}

// ports counts the interfaces that are attached to a bridge.
func ports(bridge link) (n int, err error) {
	err = dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, unix.SizeofIfInfomsg, func(_ []byte, attrs attributes) {
		if uint32(bridge.index) == attrs.uint32(unix.IFLA_MASTER) {
			n++
		}
	})
	return n, err
}

// routes lists the unicast routes of the calling thread's namespace, in all tables but the kernel's own.
func routes() (list []route, err error) {
	err = dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, unix.SizeofRtMsg, func(head []byte, attrs attributes) {
		// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
		family, bits, table, typ := head[0], int(head[1]), head[4], head[7]
		if table == unix.RT_TABLE_LOCAL || typ != unix.RTN_UNICAST {
			return
		}
		any := netip.IPv4Unspecified()
		if family == unix.AF_INET6 {
			any = netip.IPv6Unspecified()
		}
		dst, ok := netip.AddrFromSlice(attrs[unix.RTA_DST])
		if !ok {
			dst = any // a default route has none
		}
		via, _ := netip.AddrFromSlice(attrs[unix.RTA_GATEWAY])
		list = append(list, route{netip.PrefixFrom(dst, bits), via, int(attrs.uint32(unix.RTA_OIF))})
	})
	return list, err
}

// attributes are a netlink message's, by type.
type attributes map[uint16][]byte

func (a attributes) uint32(typ uint16) uint32 {
	if b := a[typ]; len(b) == 4 {
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

// nested returns the attributes that an attribute consists of.
func (a attributes) nested(typ uint16) attributes { return parseAttributes(a[typ]) }

// text returns a string attribute without the NUL that ends it.
func (a attributes) text(typ uint16) string { return string(bytes.TrimRight(a[typ], "\x00")) }

// iflaBrportState is IFLA_BRPORT_STATE (include/uapi/linux/if_link.h): one byte.
const iflaBrportState = 1

// getLink returns the attributes of one interface in the calling thread's namespace, which an index says, or if that is
// 0, a name.
func getLink(index uint32, name string) (attributes, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	const head = unix.SizeofNlMsghdr + unix.SizeofIfInfomsg
	request := make([]byte, head, head+unix.SizeofRtAttr+unix.IFNAMSIZ)
	binary.NativeEndian.PutUint32(request[unix.SizeofNlMsghdr+4:], index) // after family and type
	if index == 0 {
		request = binary.NativeEndian.AppendUint16(request, uint16(unix.SizeofRtAttr+len(name)+1))
		request = binary.NativeEndian.AppendUint16(request, unix.IFLA_IFNAME)
		request = append(append(request, name...), 0)
	}
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 32<<10) // the kernel's own buffer for an answer is not larger (NLMSG_GOODSIZE, netlink_dump)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	switch {
	case err != nil:
		return nil, os.NewSyscallError("netlink", err)
	case len(messages) != 1 || len(messages[0].Data) < unix.SizeofIfInfomsg:
	case messages[0].Header.Type == unix.NLMSG_ERROR:
		errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(messages[0].Data)))
		return nil, os.NewSyscallError("netlink", errno)
	case messages[0].Header.Type == unix.RTM_NEWLINK:
		return parseAttributes(messages[0].Data[unix.SizeofIfInfomsg:]), nil
	}
	return nil, errors.New("netlink: the kernel does not answer with an interface")
}

// dump has the kernel list objects and calls each with the fixed part of every message of the requested type, which has
// size bytes, and its attributes.
func dump(request, want uint16, size int, each func(head []byte, attrs attributes)) error {
	data, err := syscall.NetlinkRIB(int(request), unix.AF_UNSPEC)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	for _, m := range messages {
		if m.Header.Type == want && len(m.Data) >= size {
			each(m.Data[:size], parseAttributes(m.Data[size:]))
		}
	}
	return nil
}

// parseAttributes parses the well-formed attributes.
func parseAttributes(b []byte) attributes {
	attrs := attributes{}
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			break
		}
		attrs[binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED] = b[unix.SizeofRtAttr:length]
		b = b[min(len(b), (length+3)&^3):]
	}
	return attrs
}
