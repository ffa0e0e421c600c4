package vtepfilter

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// The chains.
const (
	inputChain     = "input"
	forwardChain   = "forward"
	arrivedChain   = "arrived"
	forwardedChain = "forwarded"
	leavingChain   = "leaving"
)

// chains returns all chains of the table, which the package comment describes. A packet reaches a rule that drops
// only if a rule before it matched the port.
func (c Config) chains() []nft.Chain {
	input := []nft.Rule{
		{Comment: "VXLAN packets to this node", Exprs: slices.Concat(notLoopback(), udpTo(c.Port), goTo(arrivedChain))},
	}
	forward := []nft.Rule{
		{Comment: "VXLAN packets that are forwarded", Exprs: slices.Concat(udpTo(c.Port), goTo(forwardedChain))},
	}
	arrived := slices.Concat(
		[]nft.Rule{{Comment: "by an overlay device, whatever the source",
			Exprs: slices.Concat(byOverlayDevice(), drop())}},
		[]nft.Rule{{Comment: "of another overlay", Exprs: slices.Concat(notVNI(c.VNI), accept())}},
		eachFamily("from a peer", nft.Family.From, peersSet, accept()),
		eachFamily("from a pod", nft.Family.From, overlaySet, drop()),
		eachFamily("allowed", nft.Family.From, allowSet, accept()),
		[]nft.Rule{{Comment: "from a stranger", Exprs: drop()}},
	)
	forwarded := slices.Concat(
		[]nft.Rule{{
			Comment: "by an overlay device, whatever the source",
			Exprs:   slices.Concat(byOverlayDevice(), goTo(leavingChain)),
		}},
		eachFamily("routed for a peer", nft.Family.From, peersSet, accept()),
		eachFamily("from a pod", nft.Family.From, overlaySet, goTo(leavingChain)),
	)
	leaving := slices.Concat(
		eachFamily("from a pod to a peer", nft.Family.To, peersSet, drop()),
		eachFamily("from pod to pod", nft.Family.To, overlaySet, accept()),
		[]nft.Rule{{Comment: "from a pod to elsewhere", Exprs: drop()}},
	)
	return []nft.Chain{
		base(inputChain, nftables.ChainHookInput, input), base(forwardChain, nftables.ChainHookForward, forward),
		{Name: arrivedChain, Rules: arrived}, {Name: forwardedChain, Rules: forwarded},
		{Name: leavingChain, Rules: leaving},
	}
}

// base returns a base chain: one that the kernel calls at a hook.
func base(name string, hook *nftables.ChainHook, rules []nft.Rule) nft.Chain {
	return nft.Chain{
		Name: name, Type: nftables.ChainTypeFilter, Hook: hook, Priority: nftables.ChainPriorityMangle, Rules: rules,
	}
}

// eachFamily returns one rule for each family, with a match on a set of the family and a verdict.
func eachFamily(
	comment string, match func(f nft.Family, set string) []expr.Any, set func(nft.Family) string, verdict []expr.Any,
) (rules []nft.Rule) {
	for _, f := range nft.Families() {
		rules = append(rules, nft.Rule{Comment: comment, Exprs: slices.Concat(match(f, set(f)), verdict)})
	}
	return rules
}

// udpTo matches UDP packets to a port.
func udpTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		nft.Equals(unix.IPPROTO_UDP),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: unix.NFT_REG_1},
		nft.Equals(binaryutil.BigEndian.PutUint16(port)...),
	}
}

// notVNI matches VXLAN packets (RFC 7348, section 5) with another VNI. If the packet is too short to have one, such
// as a first fragment, the rule does not match, and the packet is judged by the rules after it.
func notVNI(vni uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 8 + 4, Len: 3, DestRegister: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: binaryutil.BigEndian.PutUint32(vni)[1:]},
	}
}

// notLoopback matches packets that do not come from this node itself.
func notLoopback() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1,
			Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_LOOPBACK)},
	}
}

func byOverlayDevice() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: devicesSet},
	}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}
