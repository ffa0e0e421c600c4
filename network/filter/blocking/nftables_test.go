package blocking

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// What follows are expressions as the nft program makes them (nft --debug=netlink shows them).

func load(key expr.MetaKey, op expr.CmpOp, data ...byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

func byName(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	if begin, wild := strings.CutSuffix(name, "*"); wild {
		return load(key, op, []byte(begin)...)
	}
	copy(b, name)
	return load(key, op, b...)
}

func ipv4() []expr.Any { return load(expr.MetaKeyNFPROTO, expr.CmpOpEq, unix.NFPROTO_IPV4) }
func ipv6() []expr.Any { return load(expr.MetaKeyNFPROTO, expr.CmpOpEq, unix.NFPROTO_IPV6) }

// header loads from the IP header.
func header(offset, length uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length, DestRegister: 1}
}

// address compares the first bytes of an address, or all of it under a mask if the prefix does not end with a byte.
func address(offset uint32, prefix string) []expr.Any {
	p := netip.MustParsePrefix(prefix)
	b := p.Addr().AsSlice()
	if p.Bits()%8 == 0 {
		return []expr.Any{header(offset, uint32(p.Bits()/8)), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b[:p.Bits()/8]}}
	}
	mask := make([]byte, len(b))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		header(offset, uint32(len(b))),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(b)), Mask: mask, Xor: make([]byte, len(b))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b},
	}
}

// anyMark matches packets of whose mark one of the bits is set.
func anyMark(mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// anyBit matches connections of which a state or status has one of the bits.
func anyBit(key expr.CtKey, mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func in(name string, not bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: name, Invert: not}}
}

func ends(kind expr.VerdictKind, chain ...string) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind, Chain: strings.Join(chain, "")}}
}

func all(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

// firewall makes a table "fw" with a chain "forward" and one "called", and looks who drops.
type firewall struct {
	family         nftables.TableFamily
	policy         nftables.ChainPolicy
	forward, calls [][]expr.Any
}

func (w firewall) find(t *testing.T, o Overlay) []string {
	t.Helper()
	ns := newNet(t)
	f := nfttest.New(t, ns)
	if w.family == nftables.TableFamilyUnspecified {
		w.family = nftables.TableFamilyINet
	}
	table := f.AddTable(&nftables.Table{Name: "fw", Family: w.family})
	key := func(s string) nftables.SetElement { return nftables.SetElement{Key: netip.MustParseAddr(s).AsSlice()} }
	end := func(s string) nftables.SetElement { e := key(s); e.IntervalEnd = true; return e }
	name := func(s string) nftables.SetElement {
		b := make([]byte, unix.IFNAMSIZ)
		copy(b, s)
		return nftables.SetElement{Key: b}
	}
	for id, s := range []struct {
		*nftables.Set
		elements []nftables.SetElement
	}{
		{&nftables.Set{Name: "ranges", KeyType: nftables.TypeIPAddr, Interval: true},
			[]nftables.SetElement{key("10.5.0.0"), end("10.6.0.0"), key("192.168.0.0"), end("192.168.5.8")}},
		{&nftables.Set{Name: "tail", KeyType: nftables.TypeIPAddr, Interval: true}, []nftables.SetElement{key("10.4.0.0")}},
		{&nftables.Set{Name: "others", KeyType: nftables.TypeIPAddr}, []nftables.SetElement{key("192.0.2.1"), key("192.0.2.2")}},
		{&nftables.Set{Name: "empty", KeyType: nftables.TypeIPAddr}, nil},
		{&nftables.Set{Name: "visitors", KeyType: nftables.TypeIPAddr, Dynamic: true}, nil},
		{&nftables.Set{Name: "names", KeyType: nftables.TypeIFName}, []nftables.SetElement{name("eth0"), name("lo")}},
		{&nftables.Set{Name: "states", KeyType: nftables.TypeCTState}, []nftables.SetElement{{Key: []byte{2, 0, 0, 0}}, {Key: []byte{4, 0, 0, 0}}}},
		{&nftables.Set{Name: "protocols", KeyType: nftables.TypeInetProto}, []nftables.SetElement{{Key: []byte{17}}, {Key: []byte{1}}}},
		{&nftables.Set{Name: "outcome", KeyType: nftables.TypeCTState, DataType: nftables.TypeVerdict, IsMap: true},
			[]nftables.SetElement{{Key: []byte{2, 0, 0, 0}, VerdictData: &expr.Verdict{Kind: expr.VerdictAccept}}}},
		{&nftables.Set{Name: "doors", KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict, IsMap: true},
			[]nftables.SetElement{{Key: name("flannel.1").Key, VerdictData: &expr.Verdict{Kind: expr.VerdictAccept}}}},
	} {
		s.Table, s.ID = table, uint32(id+1)
		if err := f.AddSet(s.Set, s.elements); err != nil {
			t.Fatal(err)
		}
	}
	called := f.AddChain(&nftables.Chain{Name: "called", Table: table})
	forward := f.Base(table, "forward", nftables.ChainHookForward, w.policy)
	for _, r := range w.calls {
		f.Append(called, r...)
	}
	for _, r := range w.forward {
		f.Append(forward, r...)
	}
	f.Commit()
	return short(find(t, ns, o))
}

func TestNFTables(t *testing.T) {
	const accepting, dropping = nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	const accept, drop = expr.VerdictAccept, expr.VerdictDrop
	both := []string{"inet fw forward: 10.5.0.0/16 in+out by policy", "inet fw forward: fd00:5::/32 in+out by policy"}
	four, six := both[:1], both[1:]
	rules := func(list ...[]expr.Any) [][]expr.Any { return list }
	const from, to, from6 = 12, 16, 8
	for _, tt := range []struct {
		name string
		firewall
		want []string
	}{
		{"nothing", firewall{policy: accepting}, nil},
		{"policy", firewall{policy: dropping}, both},
		{"policy, what is known", firewall{policy: dropping, forward: rules(all(anyBit(expr.CtKeySTATE, 6), ends(accept)))}, both},
		{"policy, what is new", firewall{policy: dropping, forward: rules(all(anyBit(expr.CtKeySTATE, 8), ends(accept)))}, nil},
		{"policy, what is translated", firewall{policy: dropping, forward: rules(all(anyBit(expr.CtKeySTATUS, 0x20), ends(accept)))}, both},
		{"policy, what has a mark", firewall{policy: dropping, forward: rules(all(load(expr.MetaKeyMARK, expr.CmpOpEq, 1, 0, 0, 0), ends(accept)))}, nil},
		{"policy, what kube-proxy marked", firewall{policy: dropping, forward: rules(all(load(expr.MetaKeyMARK, expr.CmpOpEq, 0, 0x40, 0, 0), ends(accept)))}, both},
		{"policy, what kube-proxy marked, whatever else", firewall{policy: dropping, forward: rules(all(anyMark(0x4000), ends(accept)))}, both},
		{"policy, what somebody marked", firewall{policy: dropping, forward: rules(all(anyMark(0xc000), ends(accept)))}, nil},
		{"policy, states in a set", firewall{policy: dropping, forward: rules(all([]expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}, in("states", false), ends(accept)))}, both},
		{"policy, states not in a set", firewall{policy: dropping, forward: rules(all([]expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}, in("states", true), ends(accept)))}, nil},
		{"policy, outcome by state", firewall{policy: dropping, forward: rules([]expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: "outcome", IsDestRegSet: true}})}, both},
		{"policy, outcome by name", firewall{policy: dropping, forward: rules([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: "doors", IsDestRegSet: true}})},
			[]string{"inet fw forward: 10.5.0.0/16 out by policy", "inet fw forward: fd00:5::/32 out by policy"}},
		{"policy, IPv4", firewall{policy: dropping, forward: rules(all(ipv4(), ends(accept)))}, six},
		{"policy, IPv6 by its EtherType", firewall{policy: dropping, forward: rules(all(load(expr.MetaKeyPROTOCOL, expr.CmpOpEq, 0x86, 0xdd), ends(accept)))}, four},
		{"policy, the network", firewall{policy: dropping, forward: rules(all(ipv4(), address(from, "10.5.0.0/16"), ends(accept)))}, six},
		{"policy, a wider one, under a mask", firewall{policy: dropping, forward: rules(all(ipv4(), address(to, "10.4.0.0/15"), ends(accept)))}, six},
		{"policy, half of it", firewall{policy: dropping, forward: rules(all(ipv4(), address(from, "10.5.128.0/17"), ends(accept)))},
			[]string{"inet fw forward: 10.5.0.0/16 out by policy", six[0]}},
		{"policy, IPv6's", firewall{policy: dropping, forward: rules(all(ipv6(), address(from6, "fd00::/8"), ends(accept)))}, four},
		{"policy, IPv6's, of a length of its own", firewall{policy: dropping, forward: rules(all(ipv6(), address(from6, "fd00:4::/31"), ends(accept)))}, four},
		{"policy, who knows which family", firewall{policy: dropping, forward: rules(all(address(from, "10.6.0.0/16"), ends(accept)))}, nil},
		{"policy, ranges", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{header(from, 4)}, in("ranges", false), ends(accept)))}, six},
		{"policy, not in ranges", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{header(from, 4)}, in("ranges", true), ends(accept)))}, both},
		{"policy, a range to the end", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{header(from, 4)}, in("tail", false), ends(accept)))}, six},
		{"policy, others", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{header(from, 4)}, in("others", false), ends(accept)))}, both},
		{"policy, nobody", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{header(from, 4)}, in("empty", false), ends(accept)))}, both},
		{"policy, visitors", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{header(from, 4)}, in("visitors", false), ends(accept)))}, six},
		{"policy, in by another device", firewall{policy: dropping, forward: rules(all(byName(expr.MetaKeyIIFNAME, expr.CmpOpEq, "eth0"), ends(accept)))},
			[]string{"inet fw forward: 10.5.0.0/16 in by policy", "inet fw forward: fd00:5::/32 in by policy"}},
		{"policy, in by no other device", firewall{policy: dropping, forward: rules(
			all(byName(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "eth0"), ends(accept)), all(byName(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "eth0"), ends(accept)))}, nil},
		{"policy, names", firewall{policy: dropping, forward: rules(all([]expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}}, in("names", false), ends(accept)))},
			[]string{"inet fw forward: 10.5.0.0/16 out by policy", "inet fw forward: fd00:5::/32 out by policy"}},
		{"policy, protocols", firewall{policy: dropping, forward: rules(all([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, in("protocols", false), ends(accept)))}, both},
		{"policy, a protocol of IPv4", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{header(9, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{17}}}, ends(accept)))}, both},
		{"policy, a rate", firewall{policy: dropping, forward: rules(all([]expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond}}, ends(accept)))}, nil},
		{"policy, a rate and IPv4", firewall{policy: dropping, forward: rules(all(ipv4(), []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond}}, ends(accept)))}, six},
		{"reject", firewall{policy: accepting, forward: rules([]expr.Any{&expr.Log{}, &expr.Reject{Type: 2, Code: 3}})},
			[]string{"inet fw forward: 10.5.0.0/16 in+out by rule 1", "inet fw forward: fd00:5::/32 in+out by rule 1"}},
		{"marked, then dropped", firewall{policy: accepting, forward: rules(all([]expr.Any{
			&expr.Immediate{Register: 1, Data: []byte{1, 0, 0, 0}}, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1}}, ipv4(), ends(drop)))},
			[]string{"inet fw forward: 10.5.0.0/16 in+out by rule 1"}},
		{"dropped out of the overlay", firewall{policy: accepting, forward: rules(all(byName(expr.MetaKeyIIFNAME, expr.CmpOpEq, "flannel*"), ipv6(), ends(drop)))},
			[]string{"inet fw forward: fd00:5::/32 in by rule 1"}},
		{"called", firewall{policy: accepting, forward: rules(ends(accept + 1 - 1)[:1], ends(expr.VerdictJump, "called")), calls: rules(all(ipv4(), ends(drop)))},
			[]string{"inet fw forward: 10.5.0.0/16 in+out by rule 1 of chain called"}},
		{"gone to", firewall{policy: dropping, forward: rules(ends(expr.VerdictGoto, "called"), ends(accept)), calls: rules(all(ipv4(), ends(expr.VerdictReturn)))}, both},
		{"for both by different rules", firewall{policy: accepting, forward: rules(
			all(ipv4(), byName(expr.MetaKeyIIFNAME, expr.CmpOpEq, "flannel.1"), ends(drop)), all(ipv4(), byName(expr.MetaKeyOIFNAME, expr.CmpOpEq, "flannel.1"), ends(drop)))},
			[]string{"inet fw forward: 10.5.0.0/16 in+out by rule 1 and rule 2"}},
		{"family ip", firewall{family: nftables.TableFamilyIPv4, policy: dropping, forward: rules(all(address(from, "10.6.0.0/16"), ends(accept)))},
			[]string{"ip fw forward: 10.5.0.0/16 in+out by policy"}},
		{"family ip6", firewall{family: nftables.TableFamilyIPv6, policy: dropping, forward: rules(all(address(from6, "2001:db8::/32"), ends(accept)))},
			[]string{"ip6 fw forward: fd00:5::/32 in+out by policy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.find(t, overlay()); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestBridge knows more where the pods' bridge is known.
func TestBridge(t *testing.T) {
	o := overlay()
	w := firewall{policy: nftables.ChainPolicyDrop, family: nftables.TableFamilyIPv4,
		forward: [][]expr.Any{all(byName(expr.MetaKeyIIFNAME, expr.CmpOpEq, "docker0"), ends(expr.VerdictAccept))}}
	if got, want := w.find(t, o), []string{"ip fw forward: 10.5.0.0/16 in by policy"}; !slices.Equal(got, want) {
		t.Errorf("with no bridge known: %q, want %q", got, want)
	}
	o.Bridges = []string{"cni0"}
	if got, want := w.find(t, o), []string{"ip fw forward: 10.5.0.0/16 in+out by policy"}; !slices.Equal(got, want) {
		t.Errorf("with the bridge cni0: %q, want %q", got, want)
	}
	o.Own = o.Own[1:]
	if got := w.find(t, o); len(got) > 0 {
		t.Errorf("with no subnet of our own: %q", got)
	}
}

// TestOtherHooks has chains at other hooks, our own table, and one that is asleep.
func TestOtherHooks(t *testing.T) {
	ns := newNet(t)
	f := nfttest.New(t, ns)
	table := func(name string) *nftables.Table {
		return f.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	}
	f.Base(table("one"), "input", nftables.ChainHookInput, nftables.ChainPolicyDrop)
	f.Base(table("selvage"), "forward", nftables.ChainHookForward, nftables.ChainPolicyDrop)
	asleep := table("asleep")
	f.Base(asleep, "forward", nftables.ChainHookForward, nftables.ChainPolicyDrop)
	f.Commit()
	f.Sleep(asleep)
	if got := short(find(t, ns, overlay())); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
