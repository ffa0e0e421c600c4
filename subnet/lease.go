package subnet

import (
	"fmt"
	"net/netip"
	"strings"
	"unique"
)

// Endpoint is one family's part of a [Lease]. The zero value means that the node does not take part in that family.
type Endpoint struct {
	Subnet   netip.Prefix // the node's part of the overlay, masked
	PublicIP netip.Addr   // the underlay address that peers send to
	Data     string       // the backend's data, compact JSON; empty if it has none
}

// Lease is a node's claim on a subnet a family. It is comparable: two equal leases ask for the same things.
type Lease struct {
	Endpoints   [2]Endpoint // by Family
	BackendType string      // for example "vxlan"
	InstanceID  string      // made once by the node and kept; empty for flannel's nodes
	NodeName    string      // for display only; empty for flannel's nodes
	// MeshKey identifies the key with which the node's daemon serves its summary to those that show a token: the
	// SHA-256 hash of the public key (SubjectPublicKeyInfo) in base64; empty: it serves none so.
	MeshKey string
}

// Has reports whether the lease has a part in f.
func (l Lease) Has(f Family) bool { return l.Endpoints[f].Subnet.IsValid() }

// Value returns the lease's value in flannel's format, byte for byte what flannel writes for the fields it knows. It
// fails if an endpoint's Data is not JSON, or if [ParseLease] would reject a field for its size or its characters.
func (l Lease) Value() ([]byte, error) { return l.AppendValue(nil) }

// AppendValue is [Lease.Value], appended to b.
func (l Lease) AppendValue(b []byte) ([]byte, error) {
	if err := l.checkTexts(); err != nil {
		return nil, fmt.Errorf("lease %s: %w", l.Key(), err)
	}
	if value, ok := l.appendUsual(b); ok {
		return value, nil
	}
	value, err := l.anyValue()
	return append(b, value...), err
}

// ParseLease decodes a key and its value in flannel's format. Fields it does not know are ignored. It checks the form
// only; whether the lease is accepted is for [View] to say. Beside an error about the value, the lease has the key's
// subnets.
func ParseLease(key string, data []byte) (Lease, error) {
	subnets, err := parseKey(key)
	if err != nil {
		return Lease{}, err
	}
	l, err := parseValue(subnets, data)
	if err == nil {
		return l, nil
	}
	l = Lease{}
	for _, f := range Families() {
		l.Endpoints[f].Subnet = subnets[f]
	}
	return l, fmt.Errorf("key %s: value%w", key, err)
}

// parseValue decodes the value kept under the key of subnets. Its error continues the word "value".
func parseValue(subnets [2]netip.Prefix, data []byte) (l Lease, err error) {
	if len(data) > maxValue {
		return l, fmt.Errorf(" of %d bytes, want at most %d", len(data), maxValue)
	}
	v, usual := parseUsual(data)
	if !usual {
		if v, err = parseAny(data); err != nil {
			return l, fmt.Errorf(": %w", err)
		}
	}
	// Nearly all leases are of one type.
	l.BackendType = unique.Make(v.backendType).Value()
	l.InstanceID, l.NodeName = strings.Clone(v.instanceID), strings.Clone(v.nodeName)
	l.MeshKey = strings.Clone(v.meshKey)
	for _, f := range Families() {
		if !subnets[f].IsValid() {
			continue // flannel writes a public address in a family that is off; nothing is sent there
		}
		e, name := &l.Endpoints[f], [...]string{IPv4: "PublicIP", IPv6: "PublicIPv6"}[f]
		e.Subnet = subnets[f]
		if v.public[f] == "" {
			return l, fmt.Errorf(": no %s", name)
		}
		e.PublicIP, err = netip.ParseAddr(v.public[f])
		if a := e.PublicIP; err != nil || FamilyOf(a) != f || a.Is4In6() || a.Zone() != "" {
			return l, fmt.Errorf(": %s is %s, want an %s address", name, quote(v.public[f]), f)
		}
		e.Data = strings.Clone(v.data[f])
	}
	if err := l.checkTexts(); err != nil {
		return l, fmt.Errorf(": %w", err)
	}
	return l, nil
}
