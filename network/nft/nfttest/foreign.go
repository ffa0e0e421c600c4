// Package nfttest is another program that changes nf_tables, for tests of packages that keep a table there. It reads
// and changes any object without the nft program, and lists the whole ruleset, so that a test can compare before and
// after.
package nfttest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Namespace runs a function in a network namespace: a Net or a Host of package sandbox.
type Namespace interface{ Do(func() error) error }

// Foreign is that program. An error ends the test.
type Foreign struct {
	T testing.TB
	*nftables.Conn
	Socket *netlink.Conn
	ns     Namespace
}

// New returns a Foreign in a namespace.
func New(t testing.TB, ns Namespace) *Foreign {
	t.Helper()
	f := &Foreign{T: t, ns: ns}
	f.must(ns.Do(func() (err error) {
		f.Conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			f.Socket = c
			return errors.Join(c.SetWriteBuffer(8<<20), c.SetReadBuffer(8<<20))
		}))
		return err
	}))
	t.Cleanup(func() { f.CloseLasting() })
	return f
}

func (f *Foreign) must(err error) {
	f.T.Helper()
	if err != nil {
		f.T.Fatal(err)
	}
}

// Commit applies the changes collected so far.
func (f *Foreign) Commit() {
	f.T.Helper()
	f.must(f.Flush())
}

// RulesOf lists the rules of a chain.
func (f *Foreign) RulesOf(t *nftables.Table, chain string) []*nftables.Rule {
	f.T.Helper()
	rules, err := f.GetRules(t, &nftables.Chain{Table: t, Name: chain})
	f.must(err)
	return rules
}

// Base adds a base chain of type filter with a policy; Commit applies it.
func (f *Foreign) Base(
	t *nftables.Table, name string, hook *nftables.ChainHook, policy nftables.ChainPolicy,
) *nftables.Chain {
	return f.AddChain(&nftables.Chain{
		Table: t, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	})
}

// Append appends a rule; Commit applies it.
func (f *Foreign) Append(c *nftables.Chain, exprs ...expr.Any) {
	f.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: exprs})
}

// Sleep makes a table dormant.
func (f *Foreign) Sleep(t *nftables.Table) {
	f.T.Helper()
	const dormant = 1 // NFT_TABLE_F_DORMANT
	f.flag(t, dormant)
}

// Own creates a table that the kernel lets no other process change or remove while this program runs.
func (f *Foreign) Own(t *nftables.Table) {
	f.T.Helper()
	const owner = 2 // NFT_TABLE_F_OWNER
	f.flag(t, owner)
}

// flag creates a table with a flag, or sets it, which the library cannot do.
func (f *Foreign) flag(t *nftables.Table, flag byte) {
	f.T.Helper()
	message := func(typ uint16, flags netlink.HeaderFlags, data []byte) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | flags}, Data: data,
		}
	}
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(t.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: []byte{0, 0, 0, flag}},
	})
	f.must(err)
	_, err = f.Socket.SendMessages([]netlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Acknowledge,
			append([]byte{byte(t.Family), 0, 0, 0}, attrs...)),
		message(unix.NFNL_MSG_BATCH_END, 0, []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}),
	})
	f.must(err)
	_, err = f.Socket.Receive()
	f.must(err)
}

// Listing returns the whole ruleset as a text: tables, chains, rules, sets and elements, without counters.
func (f *Foreign) Listing() string {
	f.T.Helper()
	var out strings.Builder
	for _, get := range []uint16{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE,
		unix.NFT_MSG_GETSET} {
		f.dump(&out, get, []byte{unix.NFPROTO_UNSPEC, 0, 0, 0})
	}
	tables, err := f.ListTables()
	f.must(err)
	for _, t := range tables {
		sets, err := f.GetSets(t)
		f.must(err)
		for _, s := range sets {
			attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
				{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(t.Name + "\x00")},
				{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(s.Name + "\x00")},
			})
			f.must(err)
			f.dump(&out, unix.NFT_MSG_GETSETELEM, append([]byte{byte(t.Family), 0, 0, 0}, attrs...))
		}
	}
	return out.String()
}

// dump writes the kernel's answer to a request, but for counters and the generation of the ruleset in each message's
// head.
func (f *Foreign) dump(out *strings.Builder, get uint16, data []byte) {
	f.T.Helper()
	messages, err := f.Socket.Execute(netlink.Message{
		Header: netlink.Header{
			Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | get), Flags: netlink.Request | netlink.Dump,
		},
		Data: data,
	})
	f.must(err)
	for _, m := range messages {
		for rest := m.Data; ; {
			i := bytes.Index(rest, []byte("counter\x00"))
			if i < 0 {
				break
			}
			rest = rest[i+8:]
			clear(rest[:28]) // a nest of two numbers
		}
		fmt.Fprintf(out, "%d %d %q\n", m.Header.Type, m.Data[0], m.Data[4:])
	}
}

// Same checks that the listing has not changed.
func (f *Foreign) Same(before string) {
	f.T.Helper()
	now, then := strings.Split(f.Listing(), "\n"), strings.Split(before, "\n")
	for i := range max(len(now), len(then)) {
		if i >= len(now) || i >= len(then) || now[i] != then[i] {
			f.T.Fatalf("nf_tables held %d objects and holds %d, the first to differ is number %d", len(then), len(now),
				i)
		}
	}
}

// Run runs a program of the system in the namespace and returns its output. It searches sbin too, which an ordinary
// user's PATH lacks.
func (f *Foreign) Run(args ...string) string {
	f.T.Helper()
	path, err := exec.LookPath(args[0])
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, args[0]))
		}
	}
	f.must(err)
	var out []byte
	err = f.ns.Do(func() (err error) {
		cmd := exec.Command(path, args[1:]...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		f.T.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

// AddOthers creates objects of other programs: a table of family inet with a chain, a set and a rule; a table of the
// given name in another family; what iptables on nf_tables makes.
func (f *Foreign) AddOthers(name string) {
	f.T.Helper()
	for _, t := range []*nftables.Table{
		{Name: "others", Family: nftables.TableFamilyINet},
		{Name: name, Family: nftables.TableFamilyIPv4},
	} {
		f.AddTable(t)
		s := &nftables.Set{Table: t, ID: 1, Name: "peers-ipv4", KeyType: nftables.TypeIPAddr}
		f.must(f.AddSet(s, []nftables.SetElement{{Key: []byte{192, 0, 2, 9}}}))
		f.Append(f.Base(t, "input", nftables.ChainHookInput, nftables.ChainPolicyAccept),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_UDPLITE}},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
	}
	f.Commit()
	f.Run("iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", "7", "-j", "DROP")
	f.Run("iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", "8472", "-j", "ACCEPT")
	f.Run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "203.0.113.0/24", "-j", "MASQUERADE")
	f.Run("ip6tables-nft", "-A", "FORWARD", "-m", "comment", "--comment", "others", "-j", "ACCEPT")
}
