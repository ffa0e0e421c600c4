package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
)

const (
	msgPacket = unix.NFNL_SUBSYS_ULOG << 8   // NFULNL_MSG_PACKET
	msgConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1 // NFULNL_MSG_CONFIG

	// Headers up to the ports fit, with some extension headers of IPv6.
	copied = 128
	// The kernel sends packets together: as many as these, or after this time (in hundredths of a second).
	together, delay = 16, 10

	sizeofNfgenmsg = 4
)

// Read calls handle for each packet that is logged to a group in the network namespace of the calling thread, until ctx
// ends. It calls ready once, when it misses no packet from then on, and lost after it did miss some. A group has one
// reader: the error is [unix.EPERM] if another process reads it, and if the capability NET_ADMIN is missing.
func Read(ctx context.Context, group uint16, ready, lost func(), handle func(Packet)) error {
	socket, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 64 << 10})
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	defer socket.Close()
	if err := bind(socket, group); err != nil {
		return fmt.Errorf("read the log group %d: %w", group, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) }) // unblocks Receive
	defer stop()
	ready()
	for {
		messages, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			lost()
		case err != nil:
			return fmt.Errorf("receive packets of the log group %d: %w", group, err)
		}
		for _, m := range messages {
			if m.Header.Type != msgPacket || len(m.Data) < sizeofNfgenmsg {
				continue
			}
			if p, ok := decode(m.Data[sizeofNfgenmsg:]); ok {
				handle(p)
			}
		}
	}
}

// bind makes the kernel send the packets of a group.
func bind(socket *netlink.Conn, group uint16) error {
	const (
		attrCommand, commandBind = 1, 1 // NFULA_CFG_CMD, NFULNL_CFG_CMD_BIND
		attrMode, copyPacket     = 2, 2 // NFULA_CFG_MODE, NFULNL_COPY_PACKET
		attrDelay                = 4    // NFULA_CFG_TIMEOUT
		attrTogether             = 5    // NFULA_CFG_QTHRESH
	)
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for _, attrs := range [][]netlink.Attribute{
		{{Type: attrCommand, Data: []byte{commandBind}}},
		{
			{Type: attrMode, Data: append(number(copied), copyPacket, 0)},
			{Type: attrDelay, Data: number(delay)}, {Type: attrTogether, Data: number(together)},
		},
	} {
		b, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			return err
		}
		// struct nfgenmsg: no family, version 0, the group
		head := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, group)
		_, err = socket.Execute(netlink.Message{
			Header: netlink.Header{Type: msgConfig, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(head, b...),
		})
		switch {
		case errors.Is(err, unix.EPERM):
			return errno.With(err, "another process reads it, or the capability NET_ADMIN is missing")
		case err != nil:
			return err
		}
	}
	return nil
}
