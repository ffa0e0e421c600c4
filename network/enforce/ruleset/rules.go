package ruleset

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// baseChains returns the base chains, and what they share. A packet passes both, so that one of them cuts.
func (o Options) baseChains(cutting []nft.Rule) []nft.Chain {
	var egress, ingress []nft.Rule
	for _, f := range subnet.Families() {
		of := nft.Families()[f]
		egress = append(egress, nft.Rule{Comment: "by the source, " + of.Name,
			Exprs: of.SwitchFrom(policy.DispatchName(policy.Egress, f))})
		ingress = append(ingress, nft.Rule{Comment: "by the destination, " + of.Name,
			Exprs: of.SwitchTo(policy.DispatchName(policy.Ingress, f))})
	}
	return append(o.shared(),
		base(egressChain, priority, slices.Concat(always(), cutting, egress)...),
		base(ingressChain, priority, slices.Concat(always(), ingress)...))
}

// shared returns the chain that answers to senders, if they get an answer.
func (o Options) shared() []nft.Chain {
	if !o.Reject {
		return nil
	}
	return []nft.Chain{{Name: rejectChain, Rules: []nft.Rule{
		{Comment: "reset", Exprs: append(protocol(policy.TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})},
		{Comment: "administratively prohibited", Exprs: []expr.Any{
			&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED},
		}},
	}}}
}

// always returns the rules for packets that are not judged.
func always() []nft.Rule {
	icmp := func(compare ...expr.Any) []expr.Any {
		return slices.Concat([]expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
			nft.Equals(unix.NFPROTO_IPV6)}, protocol(policy.ICMPv6), icmpType(), compare, verdict(expr.VerdictAccept))
	}
	return []nft.Rule{
		{Comment: "of a known connection", Exprs: slices.Concat(
			state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))},
		{Comment: "router, neighbour and multicast listener messages", Exprs: icmp(within(130, 137)...)},
		{Comment: "multicast listener reports", Exprs: icmp(nft.Equals(143))},
	}
}

// rules returns the rules of a chain.
func (o Options) rules(ch *policy.Chain) (all []nft.Rule) {
	for _, r := range ch.Rules {
		conditions := conditions(ch.Direction, r)
		comment := fmt.Sprintf("%s[%d] of %s", ch.Direction, r.Index, r.Policy)
		switch {
		case r.Outcome == policy.Drop:
			why := Denial{Direction: ch.Direction, Reason: Isolated}
			switch {
			case r.Invalid:
				why.Reason = Invalid
			case r.Policy != "":
				why.Reason, why.Policy, why.Rule = Denied, r.Policy, r.Index
			}
			for _, c := range conditions {
				all = append(all, o.deny(why, c)...)
			}
			continue
		case r.Loop != "":
			comment = "a pod reaches itself"
		case r.Outcome == policy.Jump:
			comment = "policy"
		}
		for _, c := range conditions {
			all = append(all, nft.Rule{Comment: comment, Exprs: append(c, outcome(r))})
		}
	}
	return all
}

func outcome(r policy.Rule) expr.Any {
	kinds := map[policy.Outcome]expr.VerdictKind{
		policy.Allow: expr.VerdictAccept, policy.Return: expr.VerdictReturn, policy.Jump: expr.VerdictJump,
	}
	return &expr.Verdict{Kind: kinds[r.Outcome], Chain: r.Target}
}

// conditions returns the conditions of a rule. Each range of ports takes a rule of its own: a rule has no "or". What
// costs least comes first.
func conditions(d policy.Direction, r policy.Rule) (all [][]expr.Any) {
	var before, sets []expr.Any
	if r.Invalid {
		before = state(expr.CtStateBitINVALID)
	}
	if r.Protocol != 0 {
		before = append(before, protocol(r.Protocol)...)
	}
	f := nft.Families()[r.Family]
	if r.Loop != "" {
		sets = append(sets, f.FromTo(r.Loop)...)
	}
	if r.Endpoint != "" {
		sets = append(sets, f.ToWithPort(r.Endpoint)...)
	}
	switch {
	case r.Peer == "":
	case d == policy.Ingress:
		sets = append(sets, f.From(r.Peer)...)
	default:
		sets = append(sets, f.To(r.Peer)...)
	}
	if len(r.Ports) == 0 {
		return [][]expr.Any{slices.Concat(before, sets)}
	}
	for _, p := range r.Ports {
		all = append(all, slices.Concat(before, ports(p), sets))
	}
	return all
}

// state matches packets by the state of their connection: a mask of expr.CtStateBit….
func state(bits uint32) []expr.Any {
	mask := binary.NativeEndian.AppendUint32(nil, bits)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: mask,
			Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

// protocol matches packets of a protocol.
func protocol(p policy.Protocol) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}, nft.Equals(byte(p))}
}

// ports matches packets by the destination port. A rule has matched the protocol before.
func ports(p policy.PortRange) []expr.Any {
	number := func(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
	load := &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: unix.NFT_REG_1}
	if p.First == p.Last {
		return []expr.Any{load, nft.Equals(number(p.First)...)}
	}
	return append([]expr.Any{load}, between(number(p.First), number(p.Last))...)
}

// icmpType loads the type of an ICMP message.
func icmpType() []expr.Any {
	return []expr.Any{&expr.Payload{Base: expr.PayloadBaseTransportHeader, Len: 1, DestRegister: unix.NFT_REG_1}}
}

func within(first, last byte) []expr.Any { return between([]byte{first}, []byte{last}) }

// between compares the value that was loaded last with both ends of a range, which it includes.
func between(first, last []byte) []expr.Any {
	return []expr.Any{
		&expr.Cmp{Op: expr.CmpOpGte, Register: unix.NFT_REG_1, Data: first},
		&expr.Cmp{Op: expr.CmpOpLte, Register: unix.NFT_REG_1, Data: last},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// address loads an address at an offset in the network header.
func address(offset uint32, t nftables.SetDatatype, register uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: t.Bytes, DestRegister: register}
}
