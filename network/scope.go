package network

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Several daemons can keep several networks on one node. Each object that a daemon creates carries the network that
// it belongs to: this file is where all these names come from.

// Alias is the ifalias of the devices of the default network; those of other networks begin with it.
const Alias = "selvage"

// Defaults of a [Scope]: flannel's.
const (
	DefaultPrefix = "/coreos.com/network"
	DefaultVNI    = 1
)

// aliasPrefixLimit bounds, in bytes, the store prefix in an ifalias: the kernel takes 255 (IFALIASZ).
const aliasPrefixLimit = 200

// Scope is the network that a daemon keeps: what distinguishes its objects in the kernel from those of another daemon
// on the same node. Scopes are comparable, see [NewScope].
type Scope struct {
	Prefix string // of the store, without a slash at the end: "/coreos.com/network"
	VNI    uint32 // DefaultVNI for a backend without VNIs
}

// NewScope returns the scope of the network under a prefix of the store (empty: DefaultPrefix), with a VNI (0:
// DefaultVNI).
func NewScope(prefix string, vni uint32) Scope {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if vni == 0 {
		vni = DefaultVNI
	}
	return Scope{path.Clean(prefix), vni} // as the etcd client does
}

// orDefault returns the default scope for the zero value.
func (s Scope) orDefault() Scope {
	if s == (Scope{}) {
		return NewScope("", 0)
	}
	return s
}

// String returns the form "/coreos.com/network (VNI 1)".
func (s Scope) String() string {
	s = s.orDefault()
	return fmt.Sprintf("%s (VNI %d)", s.Prefix, s.VNI)
}

// IsDefault reports whether objects of the scope have the plain names.
func (s Scope) IsDefault() bool { return s.orDefault() == NewScope("", 0) }

// Alias returns the ifalias of the scope's devices: "selvage" for the default scope, else "selvage /second vni 2"
// without what is default in it.
func (s Scope) Alias() string {
	s = s.orDefault()
	alias, prefix := Alias, s.Prefix
	if len(prefix) > aliasPrefixLimit {
		prefix = "#" + digest(prefix)
	}
	if prefix != DefaultPrefix {
		alias += " " + prefix
	}
	if s.VNI != DefaultVNI {
		alias += fmt.Sprintf("%s%d", aliasVNI, s.VNI)
	}
	return alias
}

// KubernetesAnnotations is the prefix of the annotations by which the nodes of the default network announce their
// leases in Kubernetes: flannel's.
const KubernetesAnnotations = "flannel.alpha.coreos.com/"

// KubernetesPrefix returns the prefix of the scope of the network whose nodes announce their leases by annotations
// with a prefix, such as "example.org/blue-". Unlike the prefixes of etcd's keys, it begins with no slash, except that
// of the default network: whichever store that has, its objects have the plain names.
func KubernetesPrefix(annotations string) string {
	if annotations == "" || annotations == KubernetesAnnotations {
		return DefaultPrefix
	}
	return strings.TrimSuffix(annotations, "/")
}

const aliasVNI = " vni "

// ParseAlias is the inverse of [Scope.Alias]. ok is false for a device that is not selvage's.
func ParseAlias(alias string) (s Scope, ok bool) {
	rest, ok := strings.CutPrefix(alias, Alias)
	if !ok || rest != "" && rest[0] != ' ' {
		return s, false
	}
	vni := uint64(DefaultVNI)
	if i := strings.LastIndex(rest, aliasVNI); i >= 0 {
		n, err := strconv.ParseUint(rest[i+len(aliasVNI):], 10, 32)
		if err != nil {
			return s, false
		}
		rest, vni = rest[:i], n
	}
	return NewScope(strings.TrimPrefix(rest, " "), uint32(vni)), true
}

// Tag distinguishes the scope in names of limited length: eight hexadecimal digits; empty for the default scope.
func (s Scope) Tag() string {
	s = s.orDefault()
	if s.IsDefault() {
		return ""
	}
	return digest(s.String())
}

// Name returns the name of the scope's object that is called base in the default scope: base-1f0c7a2e.
func (s Scope) Name(base string) string { return Tagged(base, s.Tag()) }

// Tagged returns the name of an object that is called base in the default scope, in the scope with a tag.
func Tagged(base, tag string) string {
	if tag == "" {
		return base
	}
	return base + "-" + tag
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// Ownership says which objects on this node belong to one daemon. The zero value is that of the default scope, with
// routes anywhere.
type Ownership struct {
	Scope Scope
	// Former are scopes that the same daemon had in earlier runs. What they left behind is removed.
	Former []Scope
	// Networks are the overlay's, and those of earlier runs: outside the scope's devices, routes and nexthop objects
	// with our protocol number are ours only inside these. nil: anywhere.
	Networks []netip.Prefix
	// Plain says that a desired device with the plain ifalias is ours, although the scope is not the default one:
	// earlier versions gave all devices that alias.
	Plain bool
}

// OwnsAlias reports whether a device with an ifalias is ours, whatever else it is.
func (o Ownership) OwnsAlias(alias string) bool {
	if !strings.HasPrefix(alias, Alias) { // nearly all devices
		return false
	}
	return alias == o.Scope.Alias() || slices.ContainsFunc(o.Former, func(s Scope) bool { return alias == s.Alias() })
}

// Other returns the other network that a device with an ifalias belongs to. ok is false for devices that are ours, or
// not selvage's at all.
func (o Ownership) Other(alias string) (s Scope, ok bool) {
	if o.OwnsAlias(alias) || o.Plain && alias == Alias {
		return s, false
	}
	return ParseAlias(alias)
}

// OwnsPrefix reports whether a route to p with our protocol number is ours.
func (o Ownership) OwnsPrefix(p netip.Prefix) bool {
	return o.Networks == nil || slices.ContainsFunc(o.Networks, func(n netip.Prefix) bool {
		return n.Bits() <= p.Bits() && n.Contains(p.Addr())
	})
}

// OwnsNexthop reports whether a nexthop object with our protocol number is ours: its number is its gateway's address,
// see [NexthopIDOf], and gateways are the first addresses of peers' subnets.
func (o Ownership) OwnsNexthop(id NexthopID) bool {
	a := netip.AddrFrom4([4]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)})
	return o.OwnsPrefix(netip.PrefixFrom(a, a.BitLen()))
}
