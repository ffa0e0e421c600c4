package vtep

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The chains.
const (
	inputChain     = "input"
	forwardChain   = "forward"
	arrivedChain   = "arrived"
	forwardedChain = "forwarded"
	leavingChain   = "leaving"
)

// chain is a chain of the table; hook is nil for one that is called by another.
type chain struct {
	name  string
	hook  *nftables.ChainHook
	rules []rule
}

type rule struct {
	comment string // for an operator
	exprs   []expr.Any
}

// chains returns all chains of the table. See the package's comment for what they are to do. Each rule that drops rests on
// one that matched the port.
func (c Config) chains() []chain {
	input := chain{inputChain, nftables.ChainHookInput, []rule{
		{"VXLAN packets to this node", slices.Concat(notLoopback(), udpTo(c.Port), goTo(arrivedChain))},
	}}
	forward := chain{forwardChain, nftables.ChainHookForward, []rule{
		{"VXLAN packets that are forwarded", slices.Concat(udpTo(c.Port), goTo(forwardedChain))},
	}}
	arrived := chain{arrivedChain, nil, slices.Concat(
		[]rule{{"by an overlay device, whatever the source", slices.Concat(byOverlayDevice(), drop())}},
		eachFamily("from a peer", family.from, family.peers, accept()),
		eachFamily("from a pod", family.from, family.overlay, drop()),
		eachFamily("allowed", family.from, family.allow, accept()),
		[]rule{{"from a stranger", drop()}},
	)}
	forwarded := chain{forwardedChain, nil, slices.Concat(
		[]rule{{"by an overlay device, whatever the source", slices.Concat(byOverlayDevice(), goTo(leavingChain))}},
		eachFamily("routed for a peer", family.from, family.peers, accept()),
		eachFamily("from a pod", family.from, family.overlay, goTo(leavingChain)),
	)}
	leaving := chain{leavingChain, nil, slices.Concat(
		eachFamily("from a pod to a peer", family.to, family.peers, drop()),
		eachFamily("from pod to pod", family.to, family.overlay, accept()),
		[]rule{{"from a pod to elsewhere", drop()}},
	)}
	return []chain{input, forward, arrived, forwarded, leaving}
}

// eachFamily returns one rule a family: what has a source or destination in a set of its family meets a verdict.
func eachFamily(comment string, match func(f family, set string) []expr.Any, set func(family) string, verdict []expr.Any) (rules []rule) {
	for _, f := range families() {
		rules = append(rules, rule{comment, slices.Concat(match(f, set(f)), verdict)})
	}
	return rules
}

func (f family) from(set string) []expr.Any { return f.lookup(f.src, set) }
func (f family) to(set string) []expr.Any   { return f.lookup(f.dst, set) }

// lookup matches packets of the family with an address, at that place in the IP header, that is in a set.
func (f family) lookup(offset uint32, set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		equals(f.proto),
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.key.Bytes, DestRegister: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set},
	}
}

// udpTo matches UDP packets to a port.
func udpTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		equals(unix.IPPROTO_UDP),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: unix.NFT_REG_1},
		equals(binaryutil.BigEndian.PutUint16(port)...),
	}
}

// notLoopback matches what does not come from this node itself.
func notLoopback() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK)},
	}
}

func byOverlayDevice() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: devicesSet},
	}
}

func equals(b ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: b}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

// userData is the comment as the nft program writes and shows it.
func (r rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, "selvage: "+r.comment)
}

// in returns the chain as the library has it, in a table.
func (c chain) in(t *nftables.Table) *nftables.Chain {
	x := &nftables.Chain{Table: t, Name: c.name}
	if c.hook != nil {
		policy := nftables.ChainPolicyAccept
		x.Type, x.Hooknum, x.Priority, x.Policy = nftables.ChainTypeFilter, c.hook, nftables.ChainPriorityMangle, &policy
	}
	return x
}
