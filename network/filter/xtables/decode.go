package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// hooks is NF_INET_NUMHOOKS.
const hooks = 5

// Table is a table in the kernel.
type Table struct {
	Name   string
	Chains []Chain
}

// Chain is a chain. A built-in chain ends in its policy, a user-defined chain in a return.
type Chain struct {
	Name    string // such as "FORWARD"
	Builtin bool
	Accepts bool // the policy is accept
	Rules   []Rule
}

// Rule is a rule.
type Rule struct {
	Src, Dst       Prefix
	In, Out        Device
	Proto          uint16 // 0: any
	NotProto       bool
	Fragments, Tos bool // the rule has a condition on fragments, on the type of service
	Matches        []Extension
	Target         Extension
	Verdict        Verdict // of the standard target
	To             string  // chain of a jump or goto
}

// Prefix is a condition on an address; the zero value is no condition.
type Prefix struct {
	Addr netip.Addr
	Mask netip.Addr // a bit mask, not necessarily that of a prefix
	Not  bool
}

// Device is a condition on an interface name; the zero value is no condition.
type Device struct {
	Name     string
	Wildcard bool // Name is a prefix of the interface name
	Not      bool
}

// Extension is a match, or a target other than the standard one.
type Extension struct {
	Name string
	Rev  uint8
	Info []byte
}

// Verdict is the verdict of the standard target.
type Verdict int

// The verdicts.
const (
	None   Verdict = iota // no standard target, or a rule without a target
	Accept                // the packet passes this table
	Drop
	Queue
	Return // back to the calling chain
	Jump
	Goto
)

var errMalformed = errors.New("the kernel's reply is malformed")

// layout is the layout of a struct ipt_entry or ip6t_entry, in bytes.
type layout struct {
	address                    int // length of an address
	devices, proto, flags, inv int // offsets
	target, next               int // offsets of the fields that hold the offsets of the target and the next entry
	size                       int
	// Flags: a condition on fragments, on the type of service, on the protocol (IPv4 has no such flag); a goto.
	fragment, tos, hasProto, isGoto byte
}

func layoutOf(f subnet.Family) layout {
	return [...]layout{
		subnet.IPv4: {
			address: 4, devices: 16, proto: 80, flags: 82, inv: 83, target: 88, next: 90, size: 112,
			fragment: 1, isGoto: 2,
		},
		subnet.IPv6: {
			address: 16, devices: 64, proto: 128, flags: 131, inv: 132, target: 140, next: 142, size: 168,
			hasProto: 1, tos: 2, isGoto: 4,
		},
	}[f]
}

const (
	sizeofExtension = 32 // struct xt_entry_target, struct xt_entry_match: u16 size, char name[29], u8 revision
	errorTarget     = "ERROR"
	// Bits of invflags, the same in both families.
	invIn, invOut, invSrc, invDst, invProto = 0x01, 0x02, 0x08, 0x10, 0x40
)

// decode decodes a table. A built-in chain begins at the entry point of its hook and ends in its policy, the underflow.
// A user-defined chain begins after an entry with the target ERROR, which holds its name, and ends in a return.
func decode(f subnet.Family, name string, i info, b []byte) (Table, error) {
	l := layoutOf(f)
	t := Table{Name: name}
	begins := map[uint32]string{} // chains by the offset of their first rule
	builtin, policies := map[uint32]bool{}, map[uint32]bool{}
	for h := range hooks {
		if i.ValidHooks&(1<<h) != 0 {
			begins[i.HookEntry[h]] = [...]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}[h]
			builtin[i.HookEntry[h]], policies[i.Underflow[h]] = true, true
		}
	}
	var entries []entry
	for at := 0; at < len(b); {
		e, err := l.entry(b, at)
		if err != nil {
			return Table{}, err
		}
		if e.target.Name == errorTarget && at+e.next < len(b) { // the last entry ends the table
			begins[uint32(at+e.next)] = unix.ByteSliceToString(e.target.Info)
		}
		entries = append(entries, e)
		at += e.next
	}
	for _, e := range entries {
		name, starts := begins[uint32(e.at)]
		switch {
		case e.target.Name == errorTarget:
			continue
		case starts:
			t.Chains = append(t.Chains, Chain{Name: name, Builtin: builtin[uint32(e.at)]})
		case len(t.Chains) == 0:
			return Table{}, errMalformed
		}
		c := &t.Chains[len(t.Chains)-1]
		r, err := l.rule(b, e, begins)
		if err != nil {
			return Table{}, err
		}
		if policies[uint32(e.at)] {
			c.Accepts = r.Verdict == Accept
			continue
		}
		c.Rules = append(c.Rules, r)
	}
	for n := range t.Chains { // the last rule of a user-defined chain is its return
		if c := &t.Chains[n]; !c.Builtin && len(c.Rules) > 0 {
			c.Rules = c.Rules[:len(c.Rules)-1]
		}
	}
	return t, nil
}

// entry is a rule with its offset and parts.
type entry struct {
	at, next int
	matches  []Extension
	target   Extension
	isGoto   bool
}

func (l layout) entry(b []byte, at int) (e entry, err error) {
	if len(b)-at < l.size {
		return e, errMalformed
	}
	x := b[at:]
	target, next := int(binary.NativeEndian.Uint16(x[l.target:])), int(binary.NativeEndian.Uint16(x[l.next:]))
	if target < l.size || next < target+sizeofExtension || next > len(x) {
		return e, errMalformed
	}
	e = entry{at: at, next: next, isGoto: x[l.flags]&l.isGoto != 0}
	for m := l.size; m < target; {
		match, size, err := extension(x[m:target])
		if err != nil {
			return e, err
		}
		e.matches = append(e.matches, match)
		m += size
	}
	e.target, _, err = extension(x[target:next])
	return e, err
}

func extension(b []byte) (x Extension, size int, err error) {
	if len(b) < sizeofExtension {
		return x, 0, errMalformed
	}
	size = int(binary.NativeEndian.Uint16(b))
	if size < sizeofExtension || size > len(b) {
		return x, 0, errMalformed
	}
	return Extension{Name: unix.ByteSliceToString(b[2:31]), Rev: b[31], Info: b[sizeofExtension:size]}, size, nil
}

func (l layout) rule(b []byte, e entry, begins map[uint32]string) (Rule, error) {
	x := b[e.at:]
	inv, flags := x[l.inv], x[l.flags]
	prefix := func(n int, not byte) (p Prefix) {
		addr, _ := netip.AddrFromSlice(x[n*l.address : (n+1)*l.address])
		mask, _ := netip.AddrFromSlice(x[(n+2)*l.address : (n+3)*l.address])
		if mask.IsUnspecified() && inv&not == 0 {
			return Prefix{}
		}
		return Prefix{Addr: addr, Mask: mask, Not: inv&not != 0}
	}
	device := func(n int, not byte) Device {
		const length = unix.IFNAMSIZ
		name, mask := x[l.devices+n*length:][:length], x[l.devices+(n+2)*length:][:length]
		if mask[0] == 0 && inv&not == 0 {
			return Device{}
		}
		compared := 0
		for compared < length && mask[compared] != 0 {
			compared++
		}
		d := Device{Name: unix.ByteSliceToString(name[:compared]), Not: inv&not != 0}
		d.Wildcard = len(d.Name) == compared // the terminating zero is not compared
		return d
	}
	r := Rule{
		Src: prefix(0, invSrc), Dst: prefix(1, invDst), In: device(0, invIn), Out: device(1, invOut),
		Proto: binary.NativeEndian.Uint16(x[l.proto:]), NotProto: inv&invProto != 0,
		Fragments: flags&l.fragment != 0, Tos: flags&l.tos != 0, Matches: e.matches, Target: e.target,
	}
	if l.hasProto != 0 && flags&l.hasProto == 0 {
		r.Proto, r.NotProto = 0, false
	}
	if e.target.Name != "" { // not the standard target
		return r, nil
	}
	if len(e.target.Info) < 4 {
		return r, errMalformed
	}
	// A verdict below 0 is -(NF_… + 1), or XT_RETURN; else it is the offset of the next rule.
	switch v := int32(binary.NativeEndian.Uint32(e.target.Info)); {
	case v == -1:
		r.Verdict = Drop
	case v == -2:
		r.Verdict = Accept
	case v == -4:
		r.Verdict = Queue
	case v == -5:
		r.Verdict = Return
	case v < 0:
		return r, fmt.Errorf("%w: verdict %d", errMalformed, v)
	case int(v) == e.at+e.next:
		r.Verdict = None // a rule without a target continues with the next rule
	default:
		r.Verdict, r.To = Jump, begins[uint32(v)]
		if e.isGoto {
			r.Verdict = Goto
		}
		if r.To == "" {
			return r, errMalformed
		}
	}
	return r, nil
}
