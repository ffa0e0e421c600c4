package filter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls changed whenever the kernel tells that one of our chains, or a chain that jumps to them, may have changed,
// until ctx ends. It hears of nf_tables, and so of the iptables that is built on it; changes by the legacy iptables are
// told to nobody, which is why [Rules.Ensure] is called now and then anyway. Our own changes are told as well.
//
// ready is called once, when from then on nothing is missed; stirred, for whatever changes in nf_tables at all.
func Watch(ctx context.Context, ready, changed, stirred func()) error {
	for first := true; ; first = false {
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if err != nil {
			return fmt.Errorf("subscribe to changes of the packet filter: %w", err)
		}
		stop := context.AfterFunc(ctx, socket.Close) // ends a Receive that waits
		if first {
			ready()
		} else {
			stirred()
			changed() // some were lost, and one of those may have been about us
		}
		err = receive(ctx, socket, changed, stirred)
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
func receive(ctx context.Context, socket *nl.NetlinkSocket, changed, stirred func()) error {
	for {
		messages, _, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return fmt.Errorf("receive changes of the packet filter: %w", err)
		}
		stirred()
		if slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool { return concerns(m.Header.Type, m.Data) }) {
			changed()
		}
	}
}

// sizeofNfgenmsg is the size of a struct nfgenmsg (include/uapi/linux/netfilter/nfnetlink.h).
const sizeofNfgenmsg = 4

// concerns reports whether an nf_tables message is about a rule or chain that our rules depend on. Its layout is in
// include/uapi/linux/netfilter/nf_tables.h: a struct nfgenmsg, then attributes. Of a message of another kind nothing is
// known, and it is not about us.
func concerns(typ uint16, data []byte) bool {
	const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
	if typ&0xff00 != subsystem || len(data) < sizeofNfgenmsg {
		return false
	}
	if family := data[0]; family != unix.NFPROTO_IPV4 && family != unix.NFPROTO_IPV6 {
		return false // iptables has its tables in these two
	}
	// The table's name is attribute 1 in all three; the chain's is 2 in a rule and 3 in a chain.
	chainAttr := uint16(0)
	switch typ &^ subsystem {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		chainAttr = unix.NFTA_CHAIN_NAME
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		chainAttr = unix.NFTA_RULE_CHAIN
	default:
		return false
	}
	table, chain := "", ""
	for b := data[sizeofNfgenmsg:]; len(b) >= unix.SizeofRtAttr; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			break
		}
		switch binary.NativeEndian.Uint16(b[2:]) & nl.NLA_TYPE_MASK {
		case 1:
			table = unix.ByteSliceToString(b[unix.SizeofRtAttr:length])
		case chainAttr:
			chain = unix.ByteSliceToString(b[unix.SizeofRtAttr:length])
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	if table != "filter" && table != "nat" {
		return false
	}
	return chain == "" || slices.Contains([]string{"FORWARD", "POSTROUTING", ForwardChain, MasqueradeChain}, chain)
}
