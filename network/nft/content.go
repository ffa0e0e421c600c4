package nft

import (
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Content is the desired content of a table, in the order of creation.
type Content struct {
	Sets   []Set
	Chains []Chain
}

// Set is a set, or a map from keys to verdicts. A key is one value, such as an address, or several that are
// concatenated: see [nftables.ConcatSetType].
type Set struct {
	Name string
	Key  nftables.SetDatatype
	// Comment is for operators, who see it in "nft list ruleset". It is set when the set is created, and not compared.
	Comment string
	// Interval sets hold ranges: see [Family.Intervals] for keys of one value, and [Element.Upper] for concatenated
	// keys. The kernel needs 5.6 for the latter, and copies all elements for each transaction that changes one.
	Interval bool
	Verdicts bool      // the elements have verdicts: see [Element.Verdict] and [Family.SwitchFrom]
	External bool      // the caller manages the elements, see [Table.Change]
	Elements []Element // unless External
	List     *List     // takes the place of Elements, for a set that changes often; nil: Elements count
}

// Chain is a chain with the policy accept. Hook is nil for a chain that is called by another chain.
type Chain struct {
	Name     string
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Rules    []Rule
}

// Rule is a rule. Operators see the comment in "nft list ruleset".
type Rule struct {
	Comment string
	Exprs   []expr.Any
}

// userData encodes the comment as the nft program does.
func (r Rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, comment(r.Comment))
}

// maxComment is the size of the longest comment that the nft program shows (NFTNL_UDATA_COMMENT_MAXLEN), in bytes.
const maxComment = 127

// comment marks a comment as ours, and cuts off what is too long.
func comment(text string) string {
	text = "selvage: " + text
	return strings.ToValidUTF8(text[:min(len(text), maxComment)], "")
}

// In returns the library's form of the chain in table t.
func (c Chain) In(t *nftables.Table) *nftables.Chain {
	x := &nftables.Chain{Table: t, Name: c.Name}
	if c.Hook != nil {
		policy := nftables.ChainPolicyAccept
		x.Type, x.Hooknum, x.Priority, x.Policy = c.Type, c.Hook, c.Priority, &policy
	}
	return x
}

// hook holds the properties of a chain that cannot be changed, in plain values.
type hook struct {
	base     bool
	typ      string
	num      uint32
	priority int32
}

func (c Chain) hook() hook {
	if c.Hook == nil {
		return hook{}
	}
	return hook{true, string(c.Type), uint32(*c.Hook), int32(*c.Priority)}
}

// In returns the library's form of the set in table t.
func (s Set) In(t *nftables.Table, id uint32) *nftables.Set {
	x := &nftables.Set{
		Table: t, ID: id, Name: s.Name, KeyType: s.Key, Interval: s.Interval, KeyByteOrder: binaryutil.BigEndian,
		Concatenation: s.ranges(), IsMap: s.Verdicts,
	}
	if s.Verdicts {
		x.DataType = nftables.TypeVerdict
	}
	if s.Key == nftables.TypeIFName {
		x.KeyByteOrder = binaryutil.NativeEndian
	}
	return x
}

// ranges reports whether the set holds ranges of concatenated keys.
func (s Set) ranges() bool { return s.Interval && len(s.fields()) > 1 }

// fields returns the types of which the key consists.
func (s Set) fields() []nftables.SetDatatype { return nftables.ConcatSetTypeElements(s.Key) }

// definition holds the properties of a set, without its elements. fields has the length of each field of the key, in
// bytes, if the set holds ranges of concatenated keys. (The kernel's header file says bits.)
type definition struct {
	flags, key, length, data, size uint32
	fields                         string
}

const setConcat = 0x80 // NFT_SET_CONCAT

func (s Set) definition() definition {
	d := definition{key: s.Key.GetNFTMagic(), length: s.Key.Bytes}
	if s.Interval {
		d.flags |= unix.NFT_SET_INTERVAL
	}
	if s.Verdicts {
		d.flags |= unix.NFT_SET_MAP
		d.data = unix.NFT_DATA_VERDICT
	}
	if s.ranges() {
		d.flags |= setConcat
		for _, f := range s.fields() {
			d.fields += string([]byte{byte(f.Bytes)})
		}
	}
	return d
}

// userData encodes the byte order of the key, by which the nft program shows names, and the comment.
func (s Set) userData() []byte {
	const native, network = 1, 2 // enum byteorder of nft
	order := uint32(network)
	if s.Key == nftables.TypeIFName {
		order = native
	}
	data := userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, order)
	if s.Comment == "" {
		return data
	}
	return userdata.AppendString(data, userdata.NFTNL_UDATA_SET_COMMENT, comment(s.Comment))
}
