package vtep

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// foreign is some other program that changes nf_tables in a namespace.
type foreign struct {
	t *testing.T
	*nftables.Conn
	socket *netlink.Conn
	table  *nftables.Table // ours
}

func newForeign(t *testing.T, ns *sandbox.Net) *foreign {
	t.Helper()
	f := &foreign{t: t, table: &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}}
	if err := ns.Do(func() (err error) { f.Conn, f.socket, err = open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.CloseLasting() })
	return f
}

func (f *foreign) flush() {
	f.t.Helper()
	if err := f.Flush(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *foreign) set(name string) *nftables.Set {
	f.t.Helper()
	for _, s := range (Config{}).sets() {
		if s.name == name {
			return s.in(f.table, 1)
		}
	}
	f.t.Fatalf("there is no set %s", name)
	return nil
}

func (f *foreign) rules(chain string) []*nftables.Rule {
	f.t.Helper()
	rules, err := f.GetRules(f.table, &nftables.Chain{Table: f.table, Name: chain})
	if err != nil {
		f.t.Fatal(err)
	}
	return rules
}

// sleep makes our table dormant, which the library cannot say.
func (f *foreign) sleep() {
	f.t.Helper()
	message := func(typ uint16, flags netlink.HeaderFlags, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags}, Data: data}
	}
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(Table + "\x00")}, {Type: unix.NFTA_TABLE_FLAGS, Data: []byte{0, 0, 0, 1}},
	})
	if err == nil {
		_, err = f.socket.SendMessages([]netlink.Message{
			message(unix.NFNL_MSG_BATCH_BEGIN, 0, []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}),
			message(uint16(nftMessage(unix.NFT_MSG_NEWTABLE)), netlink.Acknowledge, append(nfgenmsg(unix.NFPROTO_INET), attrs...)),
			message(unix.NFNL_MSG_BATCH_END, 0, []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}),
		})
	}
	if err == nil {
		_, err = f.socket.Receive()
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// listing is all there is in nf_tables, as a text.
func (f *foreign) listing() string {
	f.t.Helper()
	var out strings.Builder
	for _, get := range []uint16{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSET} {
		f.dump(&out, get, nfgenmsg(unix.NFPROTO_UNSPEC))
	}
	tables, err := f.ListTables()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, t := range tables {
		sets, err := f.GetSets(t)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, s := range sets {
			attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
				{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(t.Name + "\x00")},
				{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(s.Name + "\x00")},
			})
			if err != nil {
				f.t.Fatal(err)
			}
			f.dump(&out, unix.NFT_MSG_GETSETELEM, append(nfgenmsg(byte(t.Family)), attrs...))
		}
	}
	return out.String()
}

// dump writes the kernel's answer to a request, but for counters and the generation of the ruleset in each message's head.
func (f *foreign) dump(out *strings.Builder, get uint16, data []byte) {
	f.t.Helper()
	messages, err := f.socket.Execute(netlink.Message{
		Header: netlink.Header{Type: nftMessage(get), Flags: netlink.Request | netlink.Dump}, Data: data,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, m := range messages {
		for rest := m.Data; ; {
			i := bytes.Index(rest, []byte("counter\x00"))
			if i < 0 {
				break
			}
			rest = rest[i+8:]
			clear(rest[:28]) // a nest of two numbers
		}
		fmt.Fprintf(out, "%d %d %q\n", m.Header.Type, m.Data[0], m.Data[sizeofNfgenmsg:])
	}
}

// addOthers makes what others may have: a table of the same family with chains, a set and rules of the same names, our
// table's name in another family, and what iptables on nf_tables makes.
func (f *foreign) addOthers(ns *sandbox.Net) {
	f.t.Helper()
	for _, t := range []*nftables.Table{
		{Name: "others", Family: nftables.TableFamilyINet},
		{Name: Table, Family: nftables.TableFamilyIPv4},
	} {
		f.AddTable(t)
		s := &nftables.Set{Table: t, ID: 1, Name: families()[0].peers(), KeyType: nftables.TypeIPAddr}
		if err := f.AddSet(s, []nftables.SetElement{{Key: []byte{192, 0, 2, 9}}}); err != nil {
			f.t.Fatal(err)
		}
		c := chain{name: inputChain, hook: nftables.ChainHookInput}.in(t)
		f.AddChain(c)
		f.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: slices.Concat(udpTo(7), drop())})
	}
	f.flush()
	for _, args := range [][]string{
		{"iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", "7", "-j", "DROP"},
		{"iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", fmt.Sprint(port), "-j", "ACCEPT"},
		{"iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "203.0.113.0/24", "-j", "MASQUERADE"},
		{"ip6tables-nft", "-A", "FORWARD", "-m", "comment", "--comment", "others", "-j", "ACCEPT"},
	} {
		err := ns.Do(func() error {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%q: %w: %s", args, err, out)
			}
			return nil
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// TestForeignIsLeftAlone compares all that is in nf_tables before and after, and in between all that is not ours.
func TestForeignIsLeftAlone(t *testing.T) {
	l := newLab(t)
	f := newForeign(t, l.node)
	f.addOthers(l.node)
	before := f.listing()
	l.ensure(config(), peers())
	if with := f.listing(); !strings.Contains(with, arrivedChain) || with == before {
		t.Error("a listing does not show our table")
	}
	c := config()
	c.Port, c.Networks = otherPort, prefixes("10.6.0.0/16")
	l.ensure(c, peers())
	l.ensure(config(), peers())
	f.DelChain(chain{name: inputChain}.in(f.table))
	f.flush()
	l.ensure(config(), peers())
	l.whole() // though iptables accepts all to the port
	if err := l.filter.Apply(nil, peers()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := l.filter.Remove(); err != nil {
			t.Error(err)
		}
		now, then := strings.Split(f.listing(), "\n"), strings.Split(before, "\n")
		for i := range max(len(now), len(then)) {
			if i >= len(now) || i >= len(then) || now[i] != then[i] {
				t.Fatalf("nf_tables held %d objects and holds %d, the first to differ is number %d", len(then), len(now), i)
			}
		}
	}
}

// harm is what somebody does to our table.
type harm struct {
	name string
	do   func(f *foreign)
}

// structural are harms that are for Ensure to repair.
func structural() []harm {
	return []harm{
		{"table deleted", func(f *foreign) { f.DelTable(f.table) }},
		{"ruleset flushed", func(f *foreign) { f.FlushRuleset() }},
		{"table flushed", func(f *foreign) { f.FlushTable(f.table) }},
		{"table asleep", func(f *foreign) { f.sleep() }},
		{"rule deleted", func(f *foreign) { _ = f.DelRule(f.rules(leavingChain)[4]) }},
		{"rule added", func(f *foreign) {
			f.InsertRule(&nftables.Rule{Table: f.table, Chain: chain{name: arrivedChain}.in(f.table), Exprs: accept()})
		}},
		{"rule replaced", func(f *foreign) {
			r := f.rules(arrivedChain)[7]
			r.Exprs = accept()
			f.ReplaceRule(r)
		}},
		{"rule without its comment", func(f *foreign) {
			r := f.rules(arrivedChain)[1]
			r.UserData = nil
			f.ReplaceRule(r)
		}},
		{"chain with another policy", func(f *foreign) {
			c := chain{name: inputChain, hook: nftables.ChainHookInput}.in(f.table)
			policy := nftables.ChainPolicyDrop
			c.Policy = &policy
			f.AddChain(c)
		}},
		{"chain deleted", func(f *foreign) { f.DelChain(chain{name: forwardChain}.in(f.table)) }},
		{"chain at another place", func(f *foreign) {
			c := chain{name: inputChain, hook: nftables.ChainHookOutput}.in(f.table)
			f.DelChain(c)
			f.AddChain(c)
		}},
		{"chain added", func(f *foreign) {
			c := chain{name: "another", hook: nftables.ChainHookInput}.in(f.table)
			f.AddChain(c)
			f.AddRule(&nftables.Rule{Table: f.table, Chain: c, Exprs: slices.Concat(udpTo(port), drop())})
		}},
		{"set added", func(f *foreign) {
			_ = f.AddSet(&nftables.Set{Table: f.table, ID: 1, Name: "another", KeyType: nftables.TypeMark}, nil)
		}},
		{"set of another form", func(f *foreign) {
			s := f.set(families()[1].peers())
			f.FlushTable(f.table)
			f.DelSet(s)
			s.Interval = true
			_ = f.AddSet(s, intervals(prefixes("2001:db8::/32")))
		}},
		{"set that the library cannot read", func(f *foreign) {
			kind := nftables.TypeMark
			kind.SetNFTMagic(63)
			_ = f.AddSet(&nftables.Set{Table: f.table, ID: 1, Name: "another", KeyType: kind}, nil)
		}},
		{"network taken out", func(f *foreign) { f.FlushSet(f.set(families()[0].overlay())) }},
		{"prefix allowed", func(f *foreign) {
			_ = f.SetAddElements(f.set(families()[1].allow()), intervals(prefixes("::/1")))
		}},
		{"device added", func(f *foreign) {
			_ = f.SetAddElements(f.set(devicesSet), []nftables.SetElement{{Key: append([]byte("up0"), make([]byte, 13)...)}})
		}},
		{"rules of several chains", func(f *foreign) {
			f.FlushChain(chain{name: arrivedChain}.in(f.table))
			f.AddRule(&nftables.Rule{Table: f.table, Chain: chain{name: inputChain}.in(f.table), Exprs: []expr.Any{&expr.Counter{}}})
		}},
	}
}

// ofPeers are harms that a full read shows.
func ofPeers() []harm {
	element := func(a string) []nftables.SetElement {
		return []nftables.SetElement{{Key: netip.MustParseAddr(a).AsSlice()}}
	}
	return []harm{
		{"peer deleted", func(f *foreign) {
			_ = f.SetDeleteElements(f.set(families()[0].peers()), element("192.0.2.2"))
		}},
		{"stranger added", func(f *foreign) {
			_ = f.SetAddElements(f.set(families()[1].peers()), element("2001:db8::3"))
		}},
		{"peers flushed", func(f *foreign) {
			f.FlushSet(f.set(families()[0].peers()))
			f.FlushSet(f.set(families()[1].peers()))
		}},
	}
}
