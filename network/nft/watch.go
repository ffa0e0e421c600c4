package nft

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// News is what the kernel tells of one change.
type News struct {
	Type   uint16 // NFT_MSG_…
	Family nftables.TableFamily
	Table  string
	Chain  string // of news about chains and rules
	Port   uint32 // whose change it was: see [Conn.Port]
}

// Watch calls news for whatever changes in nf_tables, in the network namespace of the calling thread, until ctx ends: it is
// called with all that was received together. What the legacy iptables changes is told to nobody.
//
// ready is called once, when from then on nothing is missed; lost, when something was.
func Watch(ctx context.Context, ready, lost func(), news func([]News)) error {
	for first := true; ; first = false {
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if err != nil {
			return fmt.Errorf("subscribe to changes of the packet filter: %w", err)
		}
		stop := context.AfterFunc(ctx, socket.Close) // ends a Receive that waits
		if first {
			ready()
		} else {
			lost()
		}
		err = receive(ctx, socket, news)
		if stop() {
			socket.Close()
		}
		// A socket that overran gets nothing more until all that is in it has been received, so a new one goes on.
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// receive hands on what a socket is told, until ctx ends or it fails.
func receive(ctx context.Context, socket *nl.NetlinkSocket, news func([]News)) error {
	var all []News
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
		all = all[:0]
		for _, m := range messages {
			if n, ok := decodeNews(m); ok {
				all = append(all, n)
			}
		}
		if len(all) > 0 {
			news(all)
		}
	}
}

// decodeNews reads a message. Its layout is in include/uapi/linux/netfilter/nf_tables.h: a struct nfgenmsg, then attributes.
// In messages about tables, chains, rules, sets, elements and all else that a table has, attribute 1 is the table's name. That
// the ruleset has a new generation follows every change, and is no news.
func decodeNews(m syscall.NetlinkMessage) (n News, ok bool) {
	if m.Header.Type&^0xff != unix.NFNL_SUBSYS_NFTABLES<<8 || len(m.Data) < sizeofNfgenmsg {
		return News{}, false
	}
	n = News{Type: m.Header.Type & 0xff, Family: nftables.TableFamily(m.Data[0]), Port: m.Header.Pid}
	chain := uint16(0)
	switch n.Type {
	case unix.NFT_MSG_NEWGEN:
		return News{}, false
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		chain = unix.NFTA_CHAIN_NAME
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		chain = unix.NFTA_RULE_CHAIN
	}
	for a, rest := cut(m.Data[sizeofNfgenmsg:]); a.ok; a, rest = cut(rest) {
		switch a.typ {
		case unix.NFTA_TABLE_NAME:
			n.Table = unix.ByteSliceToString(a.value)
		case chain: // never 0, which no attribute has as its type
			n.Chain = unix.ByteSliceToString(a.value)
		}
	}
	return n, true
}

// Watch calls changed whenever the kernel tells that somebody else has changed something in the table, until ctx ends.
// Changes made over this connection are told too and passed over, so that to repair something does not lead to looking again.
//
// ready is called once, when from then on nothing is missed.
func (t *Table) Watch(ctx context.Context, ready, changed func()) error {
	return Watch(ctx, ready, changed, func(news []News) {
		for _, n := range news {
			if t.Concerns(n) {
				changed()
				return
			}
		}
	})
}

// Concerns reports whether news are about the table and not of our own doing.
func (t *Table) Concerns(n News) bool {
	return n.Family == t.table.Family && n.Table == t.name && n.Port != t.Port()
}
