package nft

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

func address(n int) []byte { return binary.BigEndian.AppendUint32(nil, 10<<24+uint32(n)) }

func port(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// established matches packets of a known connection.
func established() []expr.Any {
	mask := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

// policyContent is a table in the form that network policies need: a chain for each pod, with a set of peers each, and
// ranges of ports.
func policyContent(pods int) Content {
	f := Families()[0]
	verdict := func(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
	byPod := Set{Name: "pods", Key: f.Key, Verdicts: true}
	c := Content{
		Sets: []Set{
			{Name: "blocks", Key: f.Key, Interval: true, Elements: f.Intervals(prefixes("192.0.2.0/25", "198.51.100.0/24"))},
			{Name: "ports", Key: f.KeyWithPort(), Interval: true, Elements: []Element{
				{Key: Key(address(9), []byte{6}, port(80)), Upper: Key(address(9), []byte{6}, port(90))},
				{Key: Key(address(9), []byte{17}, port(53))},
				{Key: Key(address(9), []byte{17}, port(1000)), Upper: Key(address(0x90), []byte{17}, port(0xffff))},
			}},
		},
		Chains: []Chain{{
			Name: "forward", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityRef(10),
			Rules: []Rule{
				{Comment: "of a connection", Exprs: slices.Concat(established(), verdict(expr.VerdictAccept))},
				{Comment: "by pod", Exprs: f.SwitchFrom("pods")},
			},
		}},
	}
	for i := range pods {
		chain, set := fmt.Sprintf("pod-%d", i), fmt.Sprintf("peers-%d", i)
		byPod.Elements = append(byPod.Elements, Element{Key: string(address(i)), Verdict: jump(chain)})
		c.Sets = append(c.Sets, Set{Name: set, Key: f.KeyWithPort(), Elements: []Element{
			{Key: Key(address(i+1), []byte{6}, port(80))}, {Key: Key(address(i+2), []byte{6}, port(443))},
		}})
		c.Chains = append(c.Chains, Chain{Name: chain, Rules: []Rule{
			{Comment: "peers", Exprs: slices.Concat(f.ToWithPort(set), verdict(expr.VerdictAccept))},
			{Comment: "ports", Exprs: slices.Concat(f.FromWithPort("ports"), verdict(expr.VerdictAccept))},
			{Comment: "blocks", Exprs: slices.Concat(f.To("blocks"), verdict(expr.VerdictAccept))},
			{Comment: "else", Exprs: append([]expr.Any{
				&expr.Limit{Type: expr.LimitTypePkts, Rate: 10, Unit: expr.LimitTimeSecond, Burst: 5},
				&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: 7, Data: []byte(chain)},
				&expr.Counter{}}, verdict(expr.VerdictDrop)...)},
		}})
	}
	six := Families()[1]
	c.Sets = append(c.Sets, Set{Name: "six", Key: six.KeyWithPort(), Elements: []Element{
		{Key: Key(netip.MustParseAddr("fd00::1").AsSlice(), []byte{6}, port(80))},
	}}, byPod)
	c.Chains = append(c.Chains, Chain{Name: "six", Rules: []Rule{
		{Comment: "from", Exprs: slices.Concat(six.FromWithPort("six"), verdict(expr.VerdictAccept))},
	}})
	return c
}

// watched is a mirror that watches its table.
type watched struct {
	*Mirror
	events chan struct{}
}

func newMirror(t testing.TB, ns *sandbox.Net) watched {
	t.Helper()
	m := watched{newTable(t, ns).Mirror(), make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- ns.Do(func() error {
			return m.Watch(ctx, func() { close(ready) }, func() {
				select {
				case m.events <- struct{}{}:
				default:
				}
			})
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-ready
	return m
}

// ensure runs Ensure, and checks whether that changed something.
func (m watched) ensure(t testing.TB, c Content, want bool) {
	t.Helper()
	if changed, err := m.Ensure(c); err != nil || changed != want {
		t.Fatalf("changed %t, %v, want %t", changed, err, want)
	}
}

// inSync checks the table by a look at all of it.
func (m watched) inSync(t testing.TB, c Content) {
	t.Helper()
	if _, ok, err := m.table.Check(c); !ok || err != nil {
		t.Errorf("in sync %t, %v", ok, err)
	}
}

// TestMirror goes from one content to others. The base chain stays, and so does a rule's counter that need not change.
func TestMirror(t *testing.T) {
	ns := newNet(t)
	m, f := newMirror(t, ns), newForeign(t, ns)
	withPort := policyContent(4)
	withPort.Sets[1].Elements = withPort.Sets[1].Elements[1:]
	redirected := policyContent(4)
	redirected.Sets[7].Elements[1].Verdict = jump("pod-3")
	narrower := policyContent(4)
	narrower.Sets[1].Elements[0].Upper = Key(address(9), []byte{6}, port(85))
	renamed := policyContent(4)
	renamed.Sets[2].Key = nftables.TypeMark
	renamed.Sets[2].Elements = []Element{{Key: "abcd"}}
	renamed.Chains[1].Rules = renamed.Chains[1].Rules[1:]
	drop := policyContent(4)
	drop.Chains[2].Rules = drop.Chains[2].Rules[3:]
	none := policyContent(0)
	handles := map[uint64]bool{}
	for i, c := range []Content{
		policyContent(3), policyContent(5), policyContent(4), withPort, policyContent(4), redirected, narrower, drop, renamed,
		policyContent(4), none, policyContent(2),
	} {
		m.ensure(t, c, true)
		m.inSync(t, c)
		m.ensure(t, c, false)
		handles[handleOf(t, m.table, "forward")] = true
		if i == 0 { // what another process sees is the same
			if changed, err := newTable(t, ns).Ensure(c, nil); changed || err != nil {
				t.Errorf("for another one: changed %t, %v", changed, err)
			}
		}
	}
	if len(handles) != 1 {
		t.Errorf("the base chain was created %d times", len(handles))
	}
	f.Run("nft", "list", "ruleset")
	select {
	case <-m.events:
		t.Error("our own changes were taken for another's")
	default:
	}
}

// handleOf returns the handle of a chain, which a chain keeps as long as it lives.
func handleOf(t *testing.T, x *Table, chain string) (handle uint64) {
	t.Helper()
	err := x.dump("list the chains", unix.NFT_MSG_GETCHAIN, x.family, nil, func(m []byte) {
		if unix.ByteSliceToString(attr(m, unix.NFTA_CHAIN_NAME)) == chain {
			handle = binary.BigEndian.Uint64(attr(m, unix.NFTA_CHAIN_HANDLE))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return handle
}

// TestMirrorRepair harms the table: the mirror is notified, and repairs just that.
func TestMirrorRepair(t *testing.T) {
	ns := newNet(t)
	m, f := newMirror(t, ns), newForeign(t, ns)
	c := policyContent(3)
	c.Sets[4].Elements = nil
	m.ensure(t, c, true)
	set := func(i int) *nftables.Set { return c.Sets[i].In(f.table, 0) }
	chain := func(name string) *nftables.Chain { return &nftables.Chain{Table: f.table, Name: name} }
	byPod := len(c.Sets) - 1
	added := []Element{{Key: Key(address(77), []byte{6}, port(80))}}
	for _, harm := range []struct {
		what string
		do   func()
	}{
		{"element removed", func() { _ = f.SetDeleteElements(set(2), In(c.Sets[2].Elements[:1])) }},
		{"element added", func() { _ = f.SetAddElements(set(2), In(added)) }},
		{"ports removed", func() { _ = f.SetDeleteElements(set(1), In(c.Sets[1].Elements[:1])) }},
		{"element added to an empty set", func() { _ = f.SetAddElements(set(4), In(added)) }},
		{"range added", func() { _ = f.SetAddElements(set(0), In(Families()[0].Intervals(prefixes("0.0.0.0/1")))) }},
		{"verdict removed", func() { _ = f.SetDeleteElements(set(byPod), In(c.Sets[byPod].Elements[:1])) }},
		{"verdict changed", func() {
			_ = f.SetDeleteElements(set(byPod), In(c.Sets[byPod].Elements[:1]))
			_ = f.SetAddElements(set(byPod), In([]Element{{Key: string(address(0)), Verdict: expr.Verdict{Kind: expr.VerdictAccept}}}))
		}},
		{"map flushed", func() { f.FlushSet(set(byPod)) }},
		{"chain flushed", func() { f.FlushChain(chain("pod-1")) }},
		{"chain deleted", func() {
			f.FlushSet(set(byPod))
			f.FlushChain(chain("pod-1"))
			f.DelChain(chain("pod-1"))
		}},
		{"base chain deleted", func() { f.FlushChain(chain("forward")); f.DelChain(chain("forward")) }},
		{"base chain at another hook", func() {
			f.FlushChain(chain("forward"))
			f.DelChain(chain("forward"))
			f.Commit()
			f.Base(f.table, "forward", nftables.ChainHookInput, nftables.ChainPolicyAccept)
		}},
		{"policy drop", func() {
			drop := nftables.ChainPolicyDrop
			x := c.Chains[0].In(f.table)
			x.Policy = &drop
			f.AddChain(x)
		}},
		{"rule added", func() { f.Append(chain("pod-1"), &expr.Verdict{Kind: expr.VerdictAccept}) }},
		{"accept in place of drop", func() {
			r := f.RulesOf(f.table, "pod-1")[3]
			r.Exprs[len(r.Exprs)-1] = &expr.Verdict{Kind: expr.VerdictAccept}
			f.ReplaceRule(r)
		}},
		{"a value loaded in place of drop", func() {
			r := f.RulesOf(f.table, "pod-1")[3]
			r.Exprs[len(r.Exprs)-1] = &expr.Immediate{Register: unix.NFT_REG_1, Data: make([]byte, 4)}
			f.ReplaceRule(r)
		}},
		{"set and chain added", func() {
			_ = f.AddSet(&nftables.Set{Table: f.table, ID: 7, Name: "theirs", KeyType: nftables.TypeIPAddr, IsMap: true,
				DataType: nftables.TypeVerdict}, nil)
			f.AddChain(chain("theirs"))
			f.Commit()
			_ = f.SetAddElements(&nftables.Set{Table: f.table, Name: "theirs", KeyType: nftables.TypeIPAddr, IsMap: true,
				DataType: nftables.TypeVerdict}, In([]Element{{Key: string(address(0)), Verdict: jump("theirs")}}))
		}},
		{"anonymous set", func() {
			f.Run("nft", "add", "rule", "inet", name, "pod-2", "ip", "saddr", "{", "10.0.0.1,", "10.0.0.2", "}", "accept")
		}},
		{"set in another form", func() {
			f.FlushChain(chain("pod-0"))
			f.DelSet(set(2))
			f.Commit()
			_ = f.AddSet(&nftables.Set{Table: f.table, ID: 7, Name: c.Sets[2].Name, KeyType: nftables.TypeMark}, nil)
		}},
		{"table asleep", func() { f.Sleep(f.table) }},
		{"table deleted", func() { f.DelTable(f.table) }},
		{"ruleset flushed", func() { f.FlushRuleset() }},
	} {
		t.Run(harm.what, func(t *testing.T) {
			f.T = t
			harm.do()
			f.Commit()
			select {
			case <-m.events:
			case <-time.After(patient):
				t.Fatal("it is not noticed")
			}
			// One harm takes several transactions, and its events may come in several parts.
			for end := time.Now().Add(patient); ; {
				if _, err := m.Ensure(c); err != nil {
					t.Fatal(err)
				}
				if _, ok, err := m.table.Check(c); ok || err != nil || time.Now().After(end) {
					break
				}
			}
			m.inSync(t, c)
			m.ensure(t, c, false)
		})
	}
	f.T = t
}

// TestMirrorReads counts what a mirror reads: nothing if nothing changed, and one set if that was changed.
func TestMirrorReads(t *testing.T) {
	ns := newNet(t)
	m, f := newMirror(t, ns), newForeign(t, ns)
	c := policyContent(50)
	m.ensure(t, c, true)
	requests := func() uint32 { return sequence(t, m.table) }
	before := requests()
	m.ensure(t, policyContent(50), false)
	if n := requests() - before; n != 1 {
		t.Errorf("%d requests with nothing to do", n-1)
	}
	f.FlushSet(c.Sets[20].In(f.table, 0))
	f.Commit()
	<-m.events
	before = requests()
	m.ensure(t, c, true)
	if n := requests() - before; n != 1+1+3 { // the elements, and a batch of one message
		t.Errorf("%d requests for one set", n-1)
	}
	f.FlushChain(&nftables.Chain{Table: f.table, Name: "pod-3"})
	f.Commit()
	<-m.events
	before = requests()
	m.ensure(t, c, true)
	if n := requests() - before; n != 1+1+6 { // its rules, and a batch of four messages
		t.Errorf("%d requests for one chain", n-1)
	}
	f.AddChain(&nftables.Chain{Table: f.table, Name: "theirs"})
	f.Commit()
	<-m.events
	before = requests()
	m.ensure(t, c, true)
	if n := requests() - before; n != 1+4+4 { // the table, its sets, chains and rules, and a batch of two messages
		t.Errorf("%d requests for a foreign chain", n-1)
	}
	m.Resync()
	before = requests()
	m.ensure(t, c, false)
	if n := requests() - before; n != 1+4+uint32(len(c.Sets)) {
		t.Errorf("%d requests for everything", n-1)
	}
}

// sequence makes a request and returns its number.
func sequence(t *testing.T, x *Table) uint32 {
	t.Helper()
	m, err := x.socket.Send(netlink.Message{
		Header: netlink.Header{Type: nftMessage(unix.NFT_MSG_GETGEN), Flags: netlink.Request}, Data: nfgenmsg(0),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.socket.Receive(); err != nil {
		t.Fatal(err)
	}
	return m.Header.Sequence
}

// TestMirrorUnwatched repairs what nothing notified it of.
func TestMirrorUnwatched(t *testing.T) {
	ns := newNet(t)
	m, f := newTable(t, ns).Mirror(), newForeign(t, ns)
	for range 3 {
		for _, want := range []bool{true, false} {
			if changed, err := m.Ensure(policyContent(2)); err != nil || changed != want {
				t.Errorf("changed %t, %v, want %t", changed, err, want)
			}
		}
		f.FlushSet(policyContent(2).Sets[2].In(f.table, 0))
		f.Commit()
	}
}

// TestMirrorError has the kernel refuse a transaction: it says which part, and the mirror goes on from what there is.
func TestMirrorError(t *testing.T) {
	m := newMirror(t, newNet(t))
	c := policyContent(2)
	m.ensure(t, c, true)
	bad := policyContent(3)
	bad.Sets[1].Elements = append(bad.Sets[1].Elements, Element{Key: Key(address(9), []byte{6}, port(70)),
		Upper: Key(address(9), []byte{6}, port(85))}) // overlaps another
	_, err := m.Ensure(bad)
	if err == nil {
		t.Fatal("ranges that overlap are accepted")
	}
	t.Log(err)
	m.inSync(t, c)
	m.ensure(t, policyContent(3), true)
	m.inSync(t, policyContent(3))
}

// TestBig sets and reads a thousand chains and sets with some packets' worth of elements, in one transaction each.
func TestBig(t *testing.T) {
	m := newMirror(t, newNet(t))
	c := policyContent(1000)
	for i := range 10000 {
		c.Sets[2].Elements = append(c.Sets[2].Elements, Element{Key: Key(address(1<<16+i), []byte{17}, port(53))})
	}
	m.ensure(t, c, true)
	m.inSync(t, c)
	m.ensure(t, c, false)
	m.ensure(t, policyContent(0), true)
	m.inSync(t, policyContent(0))
}
