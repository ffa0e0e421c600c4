package nft

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TableInfo is a table in the kernel, of any program.
type TableInfo struct {
	Family  nftables.TableFamily
	Name    string
	Dormant bool // its chains are not called
}

// ChainInfo is a chain in the kernel, of any program.
type ChainInfo struct {
	Family      nftables.TableFamily
	Table, Name string
	Base        bool // the kernel calls it at a hook; else the fields below are not set
	Hook        nftables.ChainHook
	Priority    int32
	Policy      nftables.ChainPolicy
	Type        string // "filter", "nat" or "route"
	Devices     string // of a hook of single devices, with spaces between them
}

// FamilyName returns what nft(8) calls a family of tables, such as "ip6", or "" if it has no name for it.
func FamilyName(f nftables.TableFamily) string {
	return map[nftables.TableFamily]string{
		nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
		nftables.TableFamilyARP: "arp", nftables.TableFamilyBridge: "bridge", nftables.TableFamilyNetdev: "netdev",
	}[f]
}

// RuleInfo is a rule in the kernel, of any program.
type RuleInfo struct {
	Chain    string
	Handle   uint64
	Exprs    []Expression
	userData []byte
}

// SetInfo is a set in the kernel, of any program.
type SetInfo struct {
	Name   string
	Flags  uint32 // NFT_SET_…
	Length int    // of a key, in bytes

	definition definition
}

// Expression is one expression of a rule, as encoded by the kernel.
type Expression struct {
	Name string
	data []byte // attributes
}

// Attr returns an attribute, nil if it is absent.
func (e Expression) Attr(typ uint16) []byte { return attr(e.data, typ) }

// Uint32 returns a numeric attribute, 0 if it is absent.
func (e Expression) Uint32(typ uint16) uint32 { return number(e.Attr(typ)) }

// String returns a text attribute, "" if it is absent.
func (e Expression) String(typ uint16) string { return unix.ByteSliceToString(e.Attr(typ)) }

// Value returns the bytes of an attribute that holds a value to load or to compare with.
func (e Expression) Value(typ uint16) []byte { return attr(e.Attr(typ), unix.NFTA_DATA_VALUE) }

// Verdict returns the verdict of an immediate expression, and the chain of a jump or goto.
func (e Expression) Verdict() (code int32, chain string, ok bool) {
	if e.Name != "immediate" || e.Uint32(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
		return 0, "", false
	}
	verdict := attr(e.Attr(unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
	code = int32(number(attr(verdict, unix.NFTA_VERDICT_CODE)))
	return code, unix.ByteSliceToString(attr(verdict, unix.NFTA_VERDICT_CHAIN)), verdict != nil
}

// Tables lists all tables.
func (c *Conn) Tables() (all []TableInfo, err error) {
	return all, c.dumpAll("list the tables", unix.NFT_MSG_GETTABLE, unix.NFPROTO_UNSPEC, nil,
		func(family byte, m []byte) {
			const dormant = 1 // NFT_TABLE_F_DORMANT
			all = append(all, TableInfo{
				Family: nftables.TableFamily(family), Name: unix.ByteSliceToString(attr(m, unix.NFTA_TABLE_NAME)),
				Dormant: number(attr(m, unix.NFTA_TABLE_FLAGS))&dormant != 0,
			})
		})
}

// Chains lists all chains.
func (c *Conn) Chains() ([]ChainInfo, error) { return c.chains(unix.NFPROTO_UNSPEC) }

// DeviceChains lists the chains at hooks of single devices: ingress and egress.
func (c *Conn) DeviceChains() (all []ChainInfo, err error) {
	for _, family := range []nftables.TableFamily{nftables.TableFamilyNetdev, nftables.TableFamilyINet} {
		chains, err := c.chains(family)
		if err != nil {
			return nil, err
		}
		for _, x := range chains {
			if x.Devices != "" {
				all = append(all, x)
			}
		}
	}
	return all, nil
}

// chains lists the chains of a family's tables. The kernel cannot list those of one table.
func (c *Conn) chains(family nftables.TableFamily) (all []ChainInfo, err error) {
	return all, c.dumpAll("list the chains", unix.NFT_MSG_GETCHAIN, byte(family), nil,
		func(family byte, m []byte) {
			x := ChainInfo{Family: nftables.TableFamily(family)}
			for a, rest := cut(m); a.ok; a, rest = cut(rest) {
				switch a.typ {
				case unix.NFTA_CHAIN_TABLE:
					x.Table = unix.ByteSliceToString(a.value)
				case unix.NFTA_CHAIN_NAME:
					x.Name = unix.ByteSliceToString(a.value)
				case unix.NFTA_CHAIN_HOOK:
					x.Base = true
					x.Hook = nftables.ChainHook(number(attr(a.value, unix.NFTA_HOOK_HOOKNUM)))
					x.Priority = int32(number(attr(a.value, unix.NFTA_HOOK_PRIORITY)))
					x.Devices = hookDevices(a.value)
				case unix.NFTA_CHAIN_POLICY:
					x.Policy = nftables.ChainPolicy(number(a.value))
				case unix.NFTA_CHAIN_TYPE:
					x.Type = unix.ByteSliceToString(a.value)
				}
			}
			all = append(all, x)
		})
}

// hookDevices returns the devices of a hook: one, or a list (NFTA_HOOK_DEVS).
func hookDevices(hook []byte) string {
	const list = 4 // NFTA_HOOK_DEVS
	if d := attr(hook, unix.NFTA_HOOK_DEV); d != nil {
		return unix.ByteSliceToString(d)
	}
	var all []string
	for d, rest := cut(attr(hook, list)); d.ok; d, rest = cut(rest) {
		all = append(all, unix.ByteSliceToString(d.value))
	}
	return strings.Join(all, " ")
}

// Rules lists the rules of a chain, or of all chains of the table if it is "". Those of a chain that is not there are
// none.
func (c *Conn) Rules(family nftables.TableFamily, table, chain string) (all []RuleInfo, err error) {
	attrs := []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")}}
	if chain != "" {
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain + "\x00")})
	}
	return all, c.dump("list the rules of "+table, unix.NFT_MSG_GETRULE, family, attrs, func(m []byte) {
		var x RuleInfo
		for a, rest := cut(m); a.ok; a, rest = cut(rest) {
			switch a.typ {
			case unix.NFTA_RULE_CHAIN:
				x.Chain = unix.ByteSliceToString(a.value)
			case unix.NFTA_RULE_HANDLE:
				if len(a.value) == 8 {
					x.Handle = binary.BigEndian.Uint64(a.value)
				}
			case unix.NFTA_RULE_USERDATA:
				x.userData = a.value
			case unix.NFTA_RULE_EXPRESSIONS:
				for e, rest := cut(a.value); e.ok; e, rest = cut(rest) {
					x.Exprs = append(x.Exprs, decodeExpression(e.value))
				}
			}
		}
		all = append(all, x)
	})
}

func decodeExpression(b []byte) Expression {
	return Expression{
		Name: unix.ByteSliceToString(attr(b, unix.NFTA_EXPR_NAME)), data: attr(b, unix.NFTA_EXPR_DATA),
	}
}

// Sets lists the sets of a table, including the anonymous sets of rules.
func (c *Conn) Sets(family nftables.TableFamily, table string) (all []SetInfo, err error) {
	attrs := []netlink.Attribute{{Type: unix.NFTA_SET_TABLE, Data: []byte(table + "\x00")}}
	return all, c.dump("list the sets of "+table, unix.NFT_MSG_GETSET, family, attrs, func(m []byte) {
		all = append(all, SetInfo{
			Name:   unix.ByteSliceToString(attr(m, unix.NFTA_SET_NAME)),
			Flags:  number(attr(m, unix.NFTA_SET_FLAGS)),
			Length: int(number(attr(m, unix.NFTA_SET_KEY_LEN))),

			definition: decodeDefinition(m),
		})
	})
}

const (
	setDescConcat = 2 // NFTA_SET_DESC_CONCAT
	setFieldLen   = 1 // NFTA_SET_FIELD_LEN
)

func decodeDefinition(m []byte) definition {
	d := definition{
		flags: number(attr(m, unix.NFTA_SET_FLAGS)), key: number(attr(m, unix.NFTA_SET_KEY_TYPE)),
		length: number(attr(m, unix.NFTA_SET_KEY_LEN)), data: number(attr(m, unix.NFTA_SET_DATA_TYPE)),
		size: number(attr(attr(m, unix.NFTA_SET_DESC), unix.NFTA_SET_DESC_SIZE)),
	}
	for f, rest := cut(attr(attr(m, unix.NFTA_SET_DESC), setDescConcat)); f.ok; f, rest = cut(rest) {
		d.fields += string([]byte{byte(number(attr(f.value, setFieldLen)))})
	}
	return d
}

// dump lists objects of one family.
func (c *Conn) dump(
	what string, get uint16, family nftables.TableFamily, attrs []netlink.Attribute, each func(attrs []byte),
) error {
	return c.dumpAll(what, get, byte(family), attrs, func(_ byte, m []byte) { each(m) })
}

// dumpAll lists objects of one family, or of all with NFPROTO_UNSPEC. each may keep its argument.
func (c *Conn) dumpAll(
	what string, get uint16, family byte, attrs []netlink.Attribute, each func(family byte, attrs []byte),
) error {
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var replies []netlink.Message
	for n := 0; n == 0 || err == nil && interrupted(replies) && n < attempts; n++ {
		replies = replies[:0]
		err = c.exchange(func() error {
			request, err := c.socket.Send(netlink.Message{
				Header: netlink.Header{Type: nftMessage(get), Flags: netlink.Request | netlink.Dump},
				Data:   append(nfgenmsg(family), b...),
			})
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			for m, err := range c.socket.ReceiveIter() {
				switch {
				case err != nil:
					return fmt.Errorf("%s: %w", what, err)
				case m.Header.Sequence != request.Header.Sequence || len(m.Data) < sizeofNfgenmsg:
					return fmt.Errorf("%s: the kernel's reply is malformed", what)
				}
				replies = append(replies, m)
			}
			return nil
		})
	}
	if err != nil {
		return explain(err)
	}
	for _, m := range replies {
		each(m.Data[0], m.Data[sizeofNfgenmsg:])
	}
	return nil
}

// interrupted reports whether the ruleset changed while the kernel listed it, so that something may be missing. The
// last of several attempts is taken as it is: a change notifies whoever watches.
func interrupted(replies []netlink.Message) bool {
	return slices.ContainsFunc(replies, func(m netlink.Message) bool {
		return m.Header.Flags&netlink.DumpInterrupted != 0
	})
}
