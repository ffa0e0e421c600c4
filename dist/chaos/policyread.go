package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// The tables of network policies.
const (
	policyTable = "selvage-policy"        // of family inet
	closedTable = "selvage-policy-closed" // of family inet; there is none while all pods' rules are in force
	sourceTable = "selvage-policy-source" // of family bridge
	portsSet    = "ports"                 // in the table of sources: of all pods
)

// policyTables are what there is of these tables, by name.
type policyTables map[string]*rawTable

// rawTable is a table as the kernel lists it. The library that the other faults use cannot read verdict maps.
type rawTable struct {
	family byte
	name   string
	flags  uint32
	chains []rawChain
	sets   []*rawSet
}

type rawChain struct {
	name string
	base []byte // hook, priority and policy; nil: other chains call it
	list []rawRule
}

type rawRule struct {
	handle  uint64
	comment string
	drops   bool
	content []byte // without handle and counters
}

type rawSet struct {
	name     string
	flags    uint32
	content  []byte // without handle and elements
	elements []rawElement
}

type rawElement struct{ key, chain string }

// keys are those of the elements, sorted.
func (s *rawSet) keys() (keys []string) {
	for _, e := range s.elements {
		keys = append(keys, e.key)
	}
	slices.Sort(keys)
	return keys
}

// isMap reports whether elements lead to chains.
func (s *rawSet) isMap() bool { return s.flags&unix.NFT_SET_MAP != 0 }

// cut reports whether an object is about connections that were cut, which come and go.
func cut(text string) bool {
	return strings.HasPrefix(text, "cut-") || strings.Contains(text, "egress: cut")
}

// set returns a set of a table, nil if there is none.
func (all policyTables) set(table, name string) *rawSet {
	if t := all[table]; t != nil {
		for _, s := range t.sets {
			if s.name == name {
				return s
			}
		}
	}
	return nil
}

// lines are all there is, a line a thing. Rules are in their order.
func (all policyTables) lines() (lines []string) {
	for _, name := range []string{policyTable, closedTable, sourceTable} {
		t := all[name]
		if t == nil {
			continue
		}
		add := func(format string, args ...any) {
			lines = append(lines, "nft "+name+" "+fmt.Sprintf(format, args...))
		}
		add("flags %d", t.flags)
		for _, s := range t.sets {
			if cut(s.name) {
				continue
			}
			add("set %s (%08x)", s.name, crc32.ChecksumIEEE(s.content))
			for _, e := range s.elements {
				add("element of %s: %x %s", s.name, e.key, e.chain)
			}
		}
		for _, c := range t.chains {
			add("chain %s %x", c.name, c.base)
			for _, r := range c.list {
				if !cut(r.comment) {
					add("rule of %s: %s (%08x)", c.name, r.comment, crc32.ChecksumIEEE(r.content))
				}
			}
		}
	}
	return lines
}

// readPolicies reads the tables. It may be called at any time: what changes meanwhile is there or not.
func (h *host) readPolicies() (policyTables, error) {
	all := policyTables{}
	for name, family := range map[string]byte{
		policyTable: unix.NFPROTO_INET, closedTable: unix.NFPROTO_INET, sourceTable: unix.NFPROTO_BRIDGE,
	} {
		t := &rawTable{family: family, name: name}
		exists, err := h.readRaw(t)
		if err != nil {
			return nil, fmt.Errorf("%s: read the table %s: %w", h.Name(), name, err)
		}
		if exists {
			all[name] = t
		}
	}
	return all, nil
}

// readRaw fills in a table, and reports whether there is one.
func (h *host) readRaw(t *rawTable) (exists bool, err error) {
	err = h.dumpNFT(unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWTABLE, t.family, nil, func(m message) {
		a := attributesOf(m)
		if unix.ByteSliceToString(a[unix.NFTA_TABLE_NAME]) == t.name {
			exists, t.flags = true, number(a[unix.NFTA_TABLE_FLAGS])
		}
	})
	if err != nil || !exists {
		return false, err
	}
	chains := map[string]int{}
	err = h.dumpNFT(unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, t.family, nil, func(m message) {
		a := attributesOf(m)
		if unix.ByteSliceToString(a[unix.NFTA_CHAIN_TABLE]) == t.name {
			c := rawChain{name: unix.ByteSliceToString(a[unix.NFTA_CHAIN_NAME])}
			if hook := a[unix.NFTA_CHAIN_HOOK]; hook != nil {
				c.base = slices.Concat(hook, a[unix.NFTA_CHAIN_POLICY], a[unix.NFTA_CHAIN_TYPE])
			}
			t.chains = append(t.chains, c)
		}
	})
	if err != nil {
		return false, err
	}
	slices.SortFunc(t.chains, func(a, b rawChain) int { return strings.Compare(a.name, b.name) })
	for i, c := range t.chains {
		chains[c.name] = i
	}
	named := nftString(unix.NFTA_RULE_TABLE, t.name) // the attribute of sets has the same number
	err = h.dumpNFT(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, t.family, named, func(m message) {
		a := attributesOf(m)
		i, known := chains[unix.ByteSliceToString(a[unix.NFTA_RULE_CHAIN])]
		if known && unix.ByteSliceToString(a[unix.NFTA_RULE_TABLE]) == t.name {
			t.chains[i].list = append(t.chains[i].list, ruleOf(a))
		}
	})
	if err != nil {
		return false, err
	}
	err = h.dumpNFT(unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET, t.family, named, func(m message) {
		a := attributesOf(m)
		s := &rawSet{name: unix.ByteSliceToString(a[unix.NFTA_SET_NAME]), flags: number(a[unix.NFTA_SET_FLAGS])}
		for _, typ := range []uint16{unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN,
			unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_USERDATA} {
			s.content = append(append(s.content, byte(typ)), a[typ]...)
		}
		t.sets = append(t.sets, s)
	})
	slices.SortFunc(t.sets, func(a, b *rawSet) int { return strings.Compare(a.name, b.name) })
	for _, s := range t.sets {
		if err == nil {
			err = h.readElements(t, s)
		}
	}
	return true, err
}

func (h *host) readElements(t *rawTable, s *rawSet) error {
	which := append(nftString(unix.NFTA_SET_ELEM_LIST_TABLE, t.name).Serialize(),
		nftString(unix.NFTA_SET_ELEM_LIST_SET, s.name).Serialize()...)
	err := h.dumpNFT(unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM, t.family, message(which), func(m message) {
		list := message(attributesOf(m)[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		list.attributes(0, func(_ uint16, element []byte) {
			a := attributesIn(element)
			e := rawElement{key: string(attributesIn(a[unix.NFTA_SET_ELEM_KEY])[unix.NFTA_DATA_VALUE])}
			verdict := attributesIn(attributesIn(a[unix.NFTA_SET_ELEM_DATA])[unix.NFTA_DATA_VERDICT])
			e.chain = unix.ByteSliceToString(verdict[unix.NFTA_VERDICT_CHAIN])
			s.elements = append(s.elements, e)
		})
	})
	slices.SortFunc(s.elements, func(a, b rawElement) int { return strings.Compare(a.key, b.key) })
	return err
}

// ruleOf reads a rule. What counts packets is left out.
func ruleOf(a map[uint16][]byte) (r rawRule) {
	r.handle = binary.BigEndian.Uint64(a[unix.NFTA_RULE_HANDLE])
	r.comment, _ = userdata.GetString(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment)
	r.content = slices.Clone(a[unix.NFTA_RULE_USERDATA])
	message(a[unix.NFTA_RULE_EXPRESSIONS]).attributes(0, func(_ uint16, element []byte) {
		e := attributesIn(element)
		name, data := unix.ByteSliceToString(e[unix.NFTA_EXPR_NAME]), e[unix.NFTA_EXPR_DATA]
		r.content = append(r.content, name...)
		switch name {
		case "counter":
			return
		case "immediate":
			verdict := attributesIn(attributesIn(attributesIn(data)[unix.NFTA_IMMEDIATE_DATA])[unix.NFTA_DATA_VERDICT])
			code := verdict[unix.NFTA_VERDICT_CODE]
			r.drops = len(code) == 4 && number(code) == 0 // NF_DROP
		}
		r.content = append(r.content, data...)
	})
	return r
}

// dumpNFT asks nf_tables for all objects of a kind, through a socket in the node's namespace.
func (h *host) dumpNFT(get, answer uint16, family byte, which nl.NetlinkRequestData, f func(message)) error {
	q := nl.NewNetlinkRequest(nftMessage(get), unix.NLM_F_DUMP)
	q.Sockets = h.netfilter
	q.AddData(message{family, 0, 0, 0})
	if which != nil {
		q.AddData(which)
	}
	err := q.ExecuteIter(unix.NETLINK_NETFILTER, uint16(nftMessage(answer)), func(data []byte) bool {
		f(data)
		return true
	})
	if errors.Is(err, nl.ErrDumpInterrupted) || errors.Is(err, unix.ENOENT) {
		return nil // something comes or goes right now: it is read again
	}
	return err
}

// attributesOf are those of a message about nf_tables, by type.
func attributesOf(m message) map[uint16][]byte {
	if len(m) < sizeofNfgenmsg {
		return nil
	}
	return attributesIn(m[sizeofNfgenmsg:])
}

// attributesIn are those in a nest.
func attributesIn(b []byte) map[uint16][]byte {
	all := map[uint16][]byte{}
	message(b).attributes(0, func(typ uint16, value []byte) { all[typ] = value })
	return all
}

// number is a number in the network's order of bytes; 0 if there is none.
func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// connections lists what connection tracking has of a family.
func (h *host) connections(f subnet.Family) ([]*netlink.ConntrackFlow, error) {
	flows, err := again(func() ([]*netlink.ConntrackFlow, error) {
		return h.conntrack.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(netlinkFamily(f)))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: list connections: %w", h.Name(), err)
	}
	return flows, nil
}
