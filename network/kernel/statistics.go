package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// Of include/uapi/linux/if_link.h: RTM_GETSTATS requests some statistics of one device (Linux 4.7).
const (
	rtmNewStats   = 92
	rtmGetStats   = 94
	linkStats64   = 1  // IFLA_STATS_LINK_64, a struct rtnl_link_stats64
	sizeofIfStats = 12 // struct if_stats_msg
)

// Drops returns how many packets a device has dropped, and how many had errors, since it was created.
func (k *Kernel) Drops(name string) (d network.Drops, err error) {
	index, err := k.index(name)
	if err != nil {
		return d, err
	}
	r := nl.NewNetlinkRequest(rtmGetStats, 0)
	r.Sockets = k.raw
	header := make([]byte, sizeofIfStats)
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	binary.NativeEndian.PutUint32(header[8:], 1<<(linkStats64-1)) // IFLA_STATS_FILTER_BIT
	r.AddRawData(header)
	err = r.ExecuteIter(unix.NETLINK_ROUTE, rtmNewStats, func(data []byte) bool {
		d = decodeDrops(data)
		return true
	})
	if err != nil {
		return d, fmt.Errorf("read the statistics of %s: %w", name, err)
	}
	return d, nil
}

func decodeDrops(b []byte) (d network.Drops) {
	if len(b) < sizeofIfStats {
		return d
	}
	for typ, data := range attributes(b[sizeofIfStats:]) {
		if typ != linkStats64 {
			continue
		}
		field := func(i int) uint64 {
			if len(data) < 8*(i+1) {
				return 0
			}
			return binary.NativeEndian.Uint64(data[8*i:])
		}
		// The first four are packets and bytes.
		return network.Drops{ReceiveErrors: field(4), SendErrors: field(5), Received: field(6), Sent: field(7)}
	}
	return d
}
