package xtables

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet"
)

// Constants of include/uapi/linux/netfilter_ipv4/ip_tables.h, which are the same in netfilter_ipv6/ip6_tables.h.
const (
	getInfo    = 64 // IPT_SO_GET_INFO
	getEntries = 65 // IPT_SO_GET_ENTRIES
	nameLength = 32 // XT_TABLE_MAXNAMELEN
	attempts   = 5  // another process may replace the table between the two calls
)

// Read returns the existing tables of a family in the network namespace of the calling thread: none if the kernel has
// no legacy iptables.
func Read(f subnet.Family) (tables []Table, err error) {
	names, err := os.ReadFile([...]string{
		subnet.IPv4: "/proc/thread-self/net/ip_tables_names", subnet.IPv6: "/proc/thread-self/net/ip6_tables_names",
	}[f])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, errno.Explain(errno.NFTables, fmt.Errorf("%s: find the tables of the legacy iptables: %w", f, err))
	}
	if len(names) == 0 {
		return nil, nil
	}
	domain := [...]int{subnet.IPv4: unix.AF_INET, subnet.IPv6: unix.AF_INET6}[f]
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: open a socket: %w", f, err)
	}
	defer unix.Close(fd)
	for _, name := range strings.Fields(string(names)) {
		t, err := readTable(fd, f, name)
		if err != nil {
			err = fmt.Errorf("%s: read table %s of the legacy iptables: %w", f, name, err)
			return nil, errno.Explain(errno.NFTables, err)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// info is a struct ipt_getinfo.
type info struct {
	Name       [nameLength]byte
	ValidHooks uint32
	HookEntry  [hooks]uint32
	Underflow  [hooks]uint32
	NumEntries uint32
	Size       uint32
}

func readTable(fd int, f subnet.Family, name string) (t Table, err error) {
	for range attempts {
		var i info
		copy(i.Name[:nameLength-1], name)
		if err = get(fd, f, getInfo, unsafe.Slice((*byte)(unsafe.Pointer(&i)), unsafe.Sizeof(i))); err != nil {
			return Table{}, err
		}
		// A struct ipt_get_entries: name, size, and the entries, which have the alignment of their 64-bit counters.
		begin := 40
		if runtime.GOARCH == "386" {
			begin = 36
		}
		b := make([]byte, begin+int(i.Size))
		copy(b, i.Name[:])
		*(*uint32)(unsafe.Pointer(&b[nameLength])) = i.Size
		if err = get(fd, f, getEntries, b); err == nil {
			return decode(f, name, i, bytes.Clone(b[begin:]))
		}
		if !errors.Is(err, unix.EAGAIN) { // EAGAIN: the size of the table has changed
			return Table{}, err
		}
	}
	return Table{}, err
}

func get(fd int, f subnet.Family, option uintptr, b []byte) error {
	level := [...]uintptr{subnet.IPv4: unix.SOL_IP, subnet.IPv6: unix.SOL_IPV6}[f]
	length := uint32(len(b))
	_, _, number := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), level, option,
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&length)), 0)
	if number != 0 {
		return number
	}
	return nil
}
