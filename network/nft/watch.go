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

// Event is the kernel's notification of one change.
type Event struct {
	Type   uint16 // NFT_MSG_…
	Family nftables.TableFamily
	Table  string
	Chain  string // for events about chains and rules
	Set    string // for events about sets and their elements
	Port   uint32 // netlink port of the process that made the change: see [Conn.Port]
}

// Watch calls handle for every change to nf_tables in the network namespace of the calling thread, until ctx ends;
// events that were received together are passed together. The kernel does not report changes made by the legacy
// iptables.
//
// Watch calls ready once, when it misses no event from then on, and lost after it did miss some.
func Watch(ctx context.Context, ready, lost func(), handle func([]Event)) error {
	for first := true; ; first = false {
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if err != nil {
			return fmt.Errorf("subscribe to nf_tables events: %w", err)
		}
		stop := context.AfterFunc(ctx, socket.Close) // unblocks Receive
		if first {
			ready()
		} else {
			lost()
		}
		err = receive(ctx, socket, handle)
		if stop() {
			socket.Close()
		}
		// The kernel delivers nothing more to a socket that overran until its queue is empty, so open a new one.
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// receive passes on the events of a socket, until ctx ends or receiving fails.
func receive(ctx context.Context, socket *nl.NetlinkSocket, handle func([]Event)) error {
	var all []Event
	for {
		messages, _, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return fmt.Errorf("receive nf_tables events: %w", err)
		}
		all = all[:0]
		for _, m := range messages {
			if e, ok := decodeEvent(m); ok {
				all = append(all, e)
			}
		}
		if len(all) > 0 {
			handle(all)
		}
	}
}

// decodeEvent decodes a message. Its layout is in include/uapi/linux/netfilter/nf_tables.h: a struct nfgenmsg, then
// attributes. Attribute 1 is the table's name in messages about tables, chains, rules, sets, elements and all other
// objects of a table. NFT_MSG_NEWGEN follows every change and is skipped.
func decodeEvent(m syscall.NetlinkMessage) (e Event, ok bool) {
	if m.Header.Type&^0xff != unix.NFNL_SUBSYS_NFTABLES<<8 || len(m.Data) < sizeofNfgenmsg {
		return Event{}, false
	}
	e = Event{Type: m.Header.Type & 0xff, Family: nftables.TableFamily(m.Data[0]), Port: m.Header.Pid}
	chain, set := uint16(0), uint16(0) // no attribute has this type
	switch e.Type {
	case unix.NFT_MSG_NEWGEN:
		return Event{}, false
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		chain = unix.NFTA_CHAIN_NAME
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		chain = unix.NFTA_RULE_CHAIN
	case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
		set = unix.NFTA_SET_NAME
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		set = unix.NFTA_SET_ELEM_LIST_SET
	}
	for a, rest := cut(m.Data[sizeofNfgenmsg:]); a.ok; a, rest = cut(rest) {
		switch a.typ {
		case unix.NFTA_TABLE_NAME:
			e.Table = unix.ByteSliceToString(a.value)
		case chain:
			e.Chain = unix.ByteSliceToString(a.value)
		case set:
			e.Set = unix.ByteSliceToString(a.value)
		}
	}
	return e, true
}

// Watch calls changed whenever another process has changed the table, until ctx ends. It skips changes made over this
// connection, so that a repair does not cause another read.
//
// Watch calls ready once, when it misses no event from then on.
func (t *Table) Watch(ctx context.Context, ready, changed func()) error {
	return Watch(ctx, ready, changed, func(events []Event) {
		for _, e := range events {
			if t.Concerns(e) {
				changed()
				return
			}
		}
	})
}

// Concerns reports whether an event is an external change to the table.
func (t *Table) Concerns(e Event) bool {
	return e.Family == t.family && e.Table == t.name && e.Port != t.Port()
}
