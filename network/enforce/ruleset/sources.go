package ruleset

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// Binding is a port of a bridge and the addresses of the pod behind it.
type Binding struct {
	Interface string // the name of the port
	Addresses [2]netip.Addr
}

const portsSet = "ports"

// sourcesSet returns the name of the set of ports with their addresses.
func sourcesSet(f subnet.Family) string { return "sources-" + nft.Families()[f].Name }

// sourcesPriority is before everything else in the bridge's prerouting: br_netfilter has 0 (NF_BR_PRI_BRNF).
const sourcesPriority = -300

// Sources returns the table, of family bridge, that drops what a pod sends from an address that is not its own:
//
//	prerouting, priority -300
//	  IPv4: the source is the pod's: accept
//	  not from a pod's port: accept
//	  ARP: the sender's address is the pod's, or 0.0.0.0 (a probe): accept
//	  IPv4: the source is 0.0.0.0, to the port of DHCP: accept
//	  IPv6: a neighbour advertisement of an address that is neither the pod's nor link-local: drop
//	  IPv6: the source is the pod's or link-local, or :: in a neighbour or multicast listener message: accept
//	  drop
//	forward
//	  not IPv6: accept
//	  between two pods' ports, from a link-local source, other than neighbour and multicast listener messages: drop
//
// Each packet between two pods of one bridge passes both chains, whether or not its connection is known. So what nearly
// all packets are comes first: together that saves a third of what the table costs them.
//
// Other protocols than these are dropped too: what has a VLAN tag, or is PPPoE, passes the bridge unjudged.
// Link-local addresses are not in the API, so that no policy can judge what pods of one bridge send from them.
func Sources(o Options, bindings []Binding) nft.Content {
	o.Reject = false // the family has no answer, and the sender is not known
	bound := nft.Set{Name: portsSet, Key: nftables.TypeIFName, Comment: "ports of pods"}
	names, keys := map[string]bool{}, [2]map[string]bool{{}, {}}
	for _, b := range bindings {
		names[deviceName(b.Interface)] = true
		for _, f := range subnet.Families() {
			if a := b.Addresses[f]; a.IsValid() {
				keys[f][nft.Key([]byte(deviceName(b.Interface)), a.AsSlice())] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		bound.Elements = append(bound.Elements, nft.Element{Key: name})
	}
	c := nft.Content{Sets: []nft.Set{bound}}
	for _, f := range subnet.Families() {
		set := nft.Set{Name: sourcesSet(f), Key: nftables.MustConcatSetType(nftables.TypeIFName, nft.Families()[f].Key),
			Comment: "ports and the addresses of the pods behind them"}
		for _, key := range slices.Sorted(maps.Keys(keys[f])) {
			set.Elements = append(set.Elements, nft.Element{Key: key})
		}
		c.Sets = append(c.Sets, set)
	}
	c.Chains = []nft.Chain{
		{Name: advertisedChain, Rules: o.advertised()},
		hook("prerouting", nftables.ChainHookPrerouting, sourcesPriority, o.prerouting()),
		hook("forward", nftables.ChainHookForward, 0, o.betweenPods()),
	}
	return c
}

func hook(name string, hook *nftables.ChainHook, priority nftables.ChainPriority, rules []nft.Rule) nft.Chain {
	return nft.Chain{
		Name: name, Type: nftables.ChainTypeFilter, Hook: hook, Priority: nftables.ChainPriorityRef(priority),
		Rules: rules,
	}
}

// deviceName returns a name as the kernel compares it.
func deviceName(name string) string {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return string(b)
}

// Offsets in headers, in bytes, and numbers in them.
const (
	arpSender     = 14 // of ARP for IPv4 on Ethernet (RFC 826)
	source4       = 12
	source6       = 8
	target        = 8 // of neighbour messages (RFC 4861, section 4.4), in the ICMPv6 header
	dhcpServer    = 67
	advertisement = 136
	report        = 143 // of multicast listeners, version 2 (RFC 3810)
)

// loader loads a value into a register.
type loader func(register uint32) expr.Any

func source(f subnet.Family) loader {
	offset := [...]uint32{source4, source6}[f]
	return func(register uint32) expr.Any { return address(offset, nft.Families()[f].Key, register) }
}

// own matches packets with an address that belongs to the pod behind the port that they came by.
func own(f subnet.Family, load loader) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}, load(unix.NFT_REG_2),
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: sourcesSet(f)},
	}
}

func is(load loader, value ...byte) []expr.Any {
	return []expr.Any{load(unix.NFT_REG_1), nft.Equals(value...)}
}

// isLinkLocal matches packets with an address in fe80::/10.
func isLinkLocal(load loader) []expr.Any {
	mask, value := make([]byte, 16), make([]byte, 16)
	mask[0], mask[1], value[0], value[1] = 0xff, 0xc0, 0xfe, 0x80
	return []expr.Any{load(unix.NFT_REG_1),
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 16, Mask: mask,
			Xor: make([]byte, 16)},
		nft.Equals(value...)}
}

func ethertype(t uint16) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: unix.NFT_REG_1},
		nft.Equals(binary.BigEndian.AppendUint16(nil, t)...)}
}

func notEthertype(t uint16) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: binary.BigEndian.AppendUint16(nil, t)}}
}

// fromPort matches packets from a pod's port, toPort those to one.
func fromPort(not bool) []expr.Any { return onPort(expr.MetaKeyIIFNAME, not) }
func toPort() []expr.Any           { return onPort(expr.MetaKeyOIFNAME, false) }

func onPort(key expr.MetaKey, not bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: portsSet, Invert: not}}
}

func accept(comment string, conditions ...[]expr.Any) nft.Rule {
	return nft.Rule{Comment: comment, Exprs: append(slices.Concat(conditions...), verdict(expr.VerdictAccept)...)}
}

// messages matches the messages of IPv6 that always pass, as two lists of conditions.
func messages() [][]expr.Any {
	icmp := slices.Concat(ethertype(unix.ETH_P_IPV6), protocol(policy.ICMPv6), icmpType())
	return [][]expr.Any{slices.Concat(icmp, within(130, 137)), slices.Concat(icmp, []expr.Any{nft.Equals(report)})}
}

const advertisedChain = "advertised"

func (o Options) prerouting() []nft.Rule {
	arp, four, six := ethertype(unix.ETH_P_ARP), ethertype(unix.ETH_P_IP), ethertype(unix.ETH_P_IPV6)
	sender := func(register uint32) expr.Any { return address(arpSender, nftables.TypeIPAddr, register) }
	rules := []nft.Rule{
		accept("IPv4, the pod's address", four, own(subnet.IPv4, source(subnet.IPv4))),
		accept("not from a pod", fromPort(true)),
		accept("ARP, the pod's address", arp, own(subnet.IPv4, sender)),
		accept("ARP, a probe", arp, is(sender, 0, 0, 0, 0)),
		accept("DHCP", four, is(source(subnet.IPv4), 0, 0, 0, 0), protocol(policy.UDP),
			ports(policy.PortRange{First: dhcpServer, Last: dhcpServer})),
		{Comment: "neighbour advertisement", Exprs: slices.Concat(six, protocol(policy.ICMPv6), icmpType(), []expr.Any{
			nft.Equals(advertisement), &expr.Verdict{Kind: expr.VerdictJump, Chain: advertisedChain},
		})},
		accept("IPv6, the pod's address", six, own(subnet.IPv6, source(subnet.IPv6))),
		accept("IPv6, a link-local address", six, isLinkLocal(source(subnet.IPv6))),
	}
	for _, m := range messages() {
		rules = append(rules, accept("IPv6, no address yet", m, is(source(subnet.IPv6), make([]byte, 16)...)))
	}
	return append(rules, o.deny(Denial{Direction: policy.Egress, Reason: Spoofed}, nil)...)
}

// advertised returns the rules for neighbour advertisements: what a pod advertises is its own.
func (o Options) advertised() []nft.Rule {
	load := func(register uint32) expr.Any {
		return &expr.Payload{
			Base: expr.PayloadBaseTransportHeader, Offset: target, Len: nftables.TypeIP6Addr.Bytes,
			DestRegister: register,
		}
	}
	back := verdict(expr.VerdictReturn)
	return append([]nft.Rule{
		{Comment: "the pod's address", Exprs: slices.Concat(own(subnet.IPv6, load), back)},
		{Comment: "a link-local address", Exprs: slices.Concat(isLinkLocal(load), back)},
	}, o.deny(Denial{Direction: policy.Egress, Reason: Spoofed}, nil)...)
}

// betweenPods returns the rules for packets from one pod's port to another's.
func (o Options) betweenPods() []nft.Rule {
	rules := []nft.Rule{accept("not IPv6", notEthertype(unix.ETH_P_IPV6))}
	for _, m := range messages() {
		rules = append(rules, accept("IPv6, neighbour and multicast listener messages", m))
	}
	local := slices.Concat(ethertype(unix.ETH_P_IPV6), isLinkLocal(source(subnet.IPv6)), fromPort(false), toPort())
	return append(rules, o.deny(Denial{Direction: policy.Egress, Reason: LinkLocal}, local)...)
}
