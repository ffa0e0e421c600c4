package nft

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

const patient = 2 * time.Minute // the limit of any wait

// watch runs Watch in a namespace until the test ends.
func watch(t *testing.T, ns *sandbox.Net, lost func(), events func([]Event)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- ns.Do(func() error { return Watch(ctx, func() { close(ready) }, lost, events) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patient):
		t.Fatal("Watch does not begin")
	}
}

// TestConcerns takes in all that the kernel tells of our own changes, of others' to other tables, and then of one to ours.
func TestConcerns(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	all := make(chan Event, 10000)
	watch(t, ns, func() { t.Error("something was lost") }, func(events []Event) {
		for _, n := range events {
			all <- n
		}
	})
	f.AddOthers(name)
	for _, c := range []Content{content("10.5.0.0/16"), content("10.6.0.0/16")} {
		if _, err := x.Ensure(c, nil); err != nil {
			t.Fatal(err)
		}
	}
	free := content().Sets[1]
	if err := x.Change(func(t *Transaction) { t.Add(free, some); t.Delete(free, some) }); err != nil {
		t.Fatal(err)
	}
	if err := x.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Ensure(content(), nil); err != nil {
		t.Fatal(err)
	}
	f.AddChain(&nftables.Chain{Name: "fence", Table: &nftables.Table{Name: "others", Family: nftables.TableFamilyINet}})
	f.Commit()
	f.AddChain(&nftables.Chain{Name: "fence", Table: f.table})
	f.Commit()

	seen := map[uint16]int{}
	for end := time.After(patient); ; {
		var n Event
		select {
		case n = <-all:
		case <-end:
			t.Fatal("a change of ours by somebody else was not told")
		}
		seen[n.Type]++
		if !x.Concerns(n) {
			continue
		}
		if want := (Event{unix.NFT_MSG_NEWCHAIN, nftables.TableFamilyINet, name, "fence", "", f.Socket.PID()}); n != want {
			t.Errorf("%+v, of our own or about others, concerns us", n)
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
	if seen[unix.NFT_MSG_NEWGEN] > 0 {
		t.Error("a generation was told")
	}
}

func TestDecodeEvent(t *testing.T) {
	const newRule = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE
	inet := nfgenmsg(unix.NFPROTO_INET)
	text := func(b []byte, typ byte, s string) []byte {
		b = append(slices.Clone(b), byte(5+len(s)), 0, typ, 0)
		b = append(append(b, s...), 0)
		return append(b, make([]byte, (4-len(b)%4)%4)...)
	}
	ours := text(text(inet, 1, name), 2, "out")
	want := Event{Type: unix.NFT_MSG_NEWRULE, Family: nftables.TableFamilyINet, Table: name, Chain: "out", Port: 7}
	without := func(change func(n *Event)) *Event { n := want; change(&n); return &n }
	for _, tt := range []struct {
		what string
		typ  uint16
		data []byte
		want *Event
	}{
		{"a rule", newRule, ours, &want},
		{"a chain", newRule - 3, text(text(inet, 1, name), 3, "out"), without(func(n *Event) { n.Type = unix.NFT_MSG_NEWCHAIN })},
		{"a set", newRule + 3, ours, without(func(n *Event) { n.Type, n.Chain, n.Set = unix.NFT_MSG_NEWSET, "", "out" })},
		{"another family", newRule, append(nfgenmsg(unix.NFPROTO_IPV4), ours[4:]...), without(func(n *Event) { n.Family = nftables.TableFamilyIPv4 })},
		{"another subsystem", 0x0106, ours, nil},
		{"a generation", unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN, ours, nil},
		{"cut off", newRule, ours[:3], nil},
		{"nothing in it", newRule, ours[:4], without(func(n *Event) { n.Table, n.Chain = "", "" })},
		{"attribute cut off", newRule, ours[:12], without(func(n *Event) { n.Table, n.Chain = "", "" })},
		{"attribute too short", newRule, append(nfgenmsg(unix.NFPROTO_INET), 3, 0, 1, 0), without(func(n *Event) { n.Table, n.Chain = "", "" })},
	} {
		got, ok := decodeEvent(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: tt.typ, Pid: 7}, Data: tt.data})
		if ok != (tt.want != nil) || ok && got != *tt.want {
			t.Errorf("%s: %+v, %t, want %+v", tt.what, got, ok, tt.want)
		}
	}
}

// TestWatchOverrun has more told than the socket holds while nobody takes any in, and a change after that.
func TestWatchOverrun(t *testing.T) {
	ns := newNet(t)
	f := newForeign(t, ns)
	held, lost, told := make(chan struct{}), make(chan struct{}, 1000), make(chan Event, 100000)
	watch(t, ns, func() { lost <- struct{}{} }, func(events []Event) {
		<-held
		for _, n := range events {
			told <- n
		}
	})
	others := f.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet})
	c := f.Base(others, "many", nftables.ChainHookInput, nftables.ChainPolicyAccept)
	for range 200 {
		for range 100 {
			f.Append(c, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
		}
		f.Commit()
	}
	close(held)
	select {
	case <-lost:
	case <-time.After(patient):
		t.Fatal("the socket did not overrun, or it is not noticed")
	}
	f.AddTable(&nftables.Table{Name: "after", Family: nftables.TableFamilyINet})
	f.Commit()
	for end := time.After(patient); ; {
		select {
		case n := <-told:
			if n.Table == "after" {
				return
			}
		case <-end:
			t.Fatal("no events of a change after the socket overran")
		}
	}
}
