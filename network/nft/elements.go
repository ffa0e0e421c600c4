package nft

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Element is one element of a set or of a verdict map. Its strings are bytes as the kernel compares them: an address is
// [netip.Addr.AsSlice], a port is in network byte order, the name of a device is padded to 16 bytes.
type Element struct {
	// Key is empty for a catch-all element. A concatenated key has each field padded to four bytes: see [Key].
	Key string
	// Upper is the last key of a range in an interval set of concatenated keys. It is empty for a range of one key, and
	// in every other set.
	Upper string
	// End marks the first key after a range, in an interval set whose keys are not concatenated.
	End bool
	// Verdict is the verdict of an element of a map ([Set.Verdicts]): usually a jump to a chain.
	Verdict expr.Verdict
}

// Key concatenates fields to a key.
func Key(fields ...[]byte) string {
	var b []byte
	for _, f := range fields {
		b = append(b, f...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return string(b)
}

// In returns the library's form of elements.
func In(list []Element) (all []nftables.SetElement) {
	for _, e := range list {
		x := nftables.SetElement{Key: []byte(e.Key), IntervalEnd: e.End}
		if e.Upper != "" {
			x.KeyEnd = []byte(e.Upper)
		}
		if e.Verdict != (expr.Verdict{}) {
			x.VerdictData = &e.Verdict
		}
		all = append(all, x)
	}
	return all
}

// compare orders elements by their keys. Elements that differ only in their verdicts are in no order.
func (e Element) compare(x Element) int {
	if c := strings.Compare(e.Key, x.Key); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(flag(e.End), flag(x.End)), strings.Compare(e.Upper, x.Upper))
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// normal returns the elements in order, each once, without an upper key that is the key. It copies the list only if
// it is not in that form.
func normal(list []Element) []Element {
	ok := true
	for i, e := range list {
		ok = ok && (i == 0 || list[i-1].compare(e) < 0) && (e.Upper == "" || e.Upper != e.Key)
	}
	if ok {
		return list
	}
	list = slices.Clone(list)
	for i := range list {
		if list[i].Upper == list[i].Key {
			list[i].Upper = ""
		}
	}
	slices.SortStableFunc(list, Element.compare)
	return slices.CompactFunc(list, func(a, b Element) bool { return a.compare(b) == 0 })
}

// difference returns what is to be added to a set and removed from it. Both lists are in [normal] form. An element of a
// map with another verdict is both.
func difference(want, have []Element) (add, remove []Element) {
	for len(want) > 0 && len(have) > 0 {
		switch c := want[0].compare(have[0]); {
		case c < 0:
			add, want = append(add, want[0]), want[1:]
		case c > 0:
			remove, have = append(remove, have[0]), have[1:]
		default:
			if want[0].Verdict != have[0].Verdict {
				add, remove = append(add, want[0]), append(remove, have[0])
			}
			want, have = want[1:], have[1:]
		}
	}
	return append(add, want...), append(remove, have...)
}

// Elements lists the elements of a set, none if the set does not exist.
func (c *Conn) Elements(family nftables.TableFamily, table, set string) (list []Element, err error) {
	attrs := []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(table + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	}
	err = c.dump("list the set "+set, unix.NFT_MSG_GETSETELEM, family, attrs, func(m []byte) {
		list = decodeElements(list, string(m))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// decodeElements appends the elements in the attributes of a message (include/uapi/linux/netfilter/nf_tables.h). They
// share the message, so that an element without a verdict takes no allocation.
func decodeElements(list []Element, message string) []Element {
	for a, rest := cut(message); a.ok; a, rest = cut(rest) {
		if a.typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for e, rest := cut(a.value); e.ok; e, rest = cut(rest) {
			list = append(list, decodeElement(e.value))
		}
	}
	return list
}

const setElemKeyEnd = 10 // NFTA_SET_ELEM_KEY_END

func decodeElement(b string) (e Element) {
	for a, rest := cut(b); a.ok; a, rest = cut(rest) {
		switch a.typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = attr(a.value, unix.NFTA_DATA_VALUE)
		case setElemKeyEnd:
			e.Upper = attr(a.value, unix.NFTA_DATA_VALUE)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.End = number(a.value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_DATA:
			if v := attr(a.value, unix.NFTA_DATA_VERDICT); v != "" {
				e.Verdict.Kind = expr.VerdictKind(int32(number(attr(v, unix.NFTA_VERDICT_CODE))))
				e.Verdict.Chain = strings.TrimSuffix(attr(v, unix.NFTA_VERDICT_CHAIN), "\x00")
			}
		}
	}
	if e.Upper == e.Key { // the kernel has one in every element of such a set
		e.Upper = ""
	}
	return e
}

// element appends one element of a set's list.
func (e *encoder) element(x Element, verdicts bool) {
	at := e.open(unix.NFTA_LIST_ELEM)
	if x.Key != "" {
		e.data(unix.NFTA_SET_ELEM_KEY, x.Key)
	}
	if x.Upper != "" {
		e.data(setElemKeyEnd, x.Upper)
	}
	switch {
	case x.End:
		e.uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	case x.Key == "":
		e.uint32(unix.NFTA_SET_ELEM_FLAGS, setElemCatchAll)
	}
	if verdicts && !x.End {
		data := e.open(unix.NFTA_SET_ELEM_DATA)
		verdict := e.open(unix.NFTA_DATA_VERDICT)
		e.uint32(unix.NFTA_VERDICT_CODE, uint32(x.Verdict.Kind))
		if x.Verdict.Chain != "" {
			e.text(unix.NFTA_VERDICT_CHAIN, x.Verdict.Chain)
		}
		e.close(verdict)
		e.close(data)
	}
	e.close(at)
}

const setElemCatchAll = 2 // NFT_SET_ELEM_CATCHALL

func (e *encoder) data(typ uint16, value string) {
	at := e.open(typ)
	e.bytes(unix.NFTA_DATA_VALUE, value)
	e.close(at)
}
