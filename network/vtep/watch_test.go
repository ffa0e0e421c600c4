package vtep

import (
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"syscall"
)

// TestConcerns takes in all that the kernel tells of our own changes, of others' to other tables, and then of one to ours.
func TestConcerns(t *testing.T) {
	l := newLab(t)
	f := newForeign(t, l.node)
	var socket *nl.NetlinkSocket
	l.do(l.node, func() (err error) {
		socket, err = nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		return err
	})
	defer socket.Close()

	f.addOthers(l.node)
	l.ensure(config(), peers())
	c := config()
	c.Port, c.Networks = otherPort, nil
	l.ensure(c, peers())
	if err := l.filter.Apply(nil, peers()); err != nil {
		t.Fatal(err)
	}
	if err := l.filter.Remove(); err != nil {
		t.Fatal(err)
	}
	l.ensure(config(), peers())
	f.AddChain(chain{name: "fence"}.in(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet}))
	f.flush()
	f.AddChain(chain{name: "fence"}.in(f.table))
	f.flush()

	seen := map[uint16]int{}
	for {
		messages, _, err := socket.Receive()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(messages, l.filter.concerns)
		for _, m := range messages {
			seen[m.Header.Type&0xff]++
		}
		if i < 0 {
			continue
		}
		if m := messages[i]; m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWCHAIN || m.Header.Pid != f.socket.PID() {
			t.Errorf("a message of type %#x of our own, or about others, concerns us", m.Header.Type)
			continue
		}
		break
	}
	for _, typ := range []uint16{unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWSET,
		unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE, unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM} {
		if seen[typ] == 0 {
			t.Errorf("no message of type %d was told", typ)
		}
	}
}

func TestMalformedMessage(t *testing.T) {
	f := newFilter(t, newNet(t))
	const newRule = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE
	ours := append(nfgenmsg(unix.NFPROTO_INET), 17, 0, 1, 0)
	ours = append(ours, Table+"\x00"...)
	for _, tt := range []struct {
		name string
		typ  uint16
		data []byte
		want bool
	}{
		{"ours", newRule, ours, true},
		{"another family", newRule, append(nfgenmsg(unix.NFPROTO_IPV4), ours[4:]...), false},
		{"another subsystem", 0x0106, ours, false},
		{"a generation", unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, ours, false},
		{"cut off", newRule, ours[:3], false},
		{"nothing in it", newRule, ours[:4], false},
		{"attribute cut off", newRule, ours[:12], false},
		{"attribute too short", newRule, append(nfgenmsg(unix.NFPROTO_INET), 3, 0, 1, 0), false},
	} {
		if got := f.concerns(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: tt.typ}, Data: tt.data}); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestWatchOverrun has more told than the socket holds while nobody takes any in, and a change after that.
func TestWatchOverrun(t *testing.T) {
	l := newLab(t)
	f := newForeign(t, l.node)
	l.ensure(config(), peers())
	held, taken := make(chan struct{}), make(chan struct{}, 1000)
	l.watch(func() {
		<-held
		taken <- struct{}{}
	})
	others := &nftables.Table{Name: "others", Family: nftables.TableFamilyINet}
	f.AddTable(others)
	c := chain{name: "many"}.in(others)
	f.AddChain(c)
	touch := func() {
		if err := f.SetAddElements(f.set(families()[0].allow()), intervals(prefixes("10.0.0.0/8"))); err != nil {
			t.Fatal(err)
		}
		f.FlushSet(f.set(families()[0].allow()))
		f.flush()
	}
	touch() // Watch is held at this
	for range 200 {
		for range 100 {
			f.AddRule(&nftables.Rule{Table: others, Chain: c, Exprs: slices.Concat(udpTo(7), drop())})
		}
		f.flush()
	}
	close(held)
	// The rules are not ours: what is told twice is that we are touched, and that something was lost.
	for range 2 {
		select {
		case <-taken:
		case <-time.After(patient):
			t.Fatal("the socket did not overrun, or it is not noticed")
		}
	}
	touch()
	select {
	case <-taken:
	case <-time.After(patient):
		t.Error("no news of a change after the socket overran")
	}
}
