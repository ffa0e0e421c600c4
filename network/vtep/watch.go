package vtep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls changed whenever the kernel tells that somebody else has changed something in our table, until ctx ends.
// Changes made by this Filter are told too and passed over, so that to repair something does not lead to looking again.
//
// ready is called once, when from then on nothing is missed.
func (f *Filter) Watch(ctx context.Context, ready, changed func()) error {
	for first := true; ; first = false {
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if err != nil {
			return fmt.Errorf("subscribe to changes of the VTEP filter: %w", err)
		}
		stop := context.AfterFunc(ctx, socket.Close) // ends a Receive that waits
		if first {
			ready()
		} else {
			changed() // some were lost, and one of those may have been about us
		}
		err = f.receive(ctx, socket, changed)
		if stop() {
			socket.Close()
		}
		// A socket that overran gets nothing more until all that is in it has been received, so a new one goes on.
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// receive calls changed for what a socket is told, until ctx ends or it fails.
func (f *Filter) receive(ctx context.Context, socket *nl.NetlinkSocket, changed func()) error {
	for {
		messages, _, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return fmt.Errorf("receive changes of the VTEP filter: %w", err)
		}
		if slices.ContainsFunc(messages, f.concerns) {
			changed()
		}
	}
}

// concerns reports whether a message is about our table and not of our own doing. In messages about tables, chains, rules,
// sets, elements and all else that a table has, attribute 1 is the table's name, and the port in the header is that of the
// socket by which the change was asked for.
func (f *Filter) concerns(m syscall.NetlinkMessage) bool {
	if m.Header.Type&^0xff != unix.NFNL_SUBSYS_NFTABLES<<8 || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN ||
		len(m.Data) < sizeofNfgenmsg || m.Data[0] != unix.NFPROTO_INET || m.Header.Pid == f.socket.PID() {
		return false
	}
	for a, rest := cut(m.Data[sizeofNfgenmsg:]); a.ok; a, rest = cut(rest) {
		if a.typ == unix.NFTA_TABLE_NAME {
			return unix.ByteSliceToString(a.value) == Table
		}
	}
	return false
}
