package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
)

// maxValue bounds the size of a lease value in bytes. A real one is under 400; what is larger is not a lease, and 10,000
// of them would cost memory on every node.
const maxValue = 4096

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
}

// Has reports whether the lease has a part in f.
func (l Lease) Has(f Family) bool { return l.Endpoints[f].Subnet.IsValid() }

// Key returns the lease's key below <prefix>/subnets/: "10.5.29.0-24", "10.5.29.0-24&fd00:5:0:1d::-64" or
// "fd00:5:0:1d::-64".
func (l Lease) Key() string {
	return FormatKey(l.Endpoints[IPv4].Subnet, l.Endpoints[IPv6].Subnet)
}

// FormatKey returns the key of the given subnets; an invalid prefix stands for a family that is not in use.
func FormatKey(subnets ...netip.Prefix) string {
	var b strings.Builder
	for _, p := range subnets {
		if !p.IsValid() {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.Addr().String())
		b.WriteByte('-')
		b.WriteString(strconv.Itoa(p.Bits()))
	}
	return b.String()
}

// ParseKey is the inverse of [FormatKey]. It takes the canonical form only: any other spelling of a subnet would be a
// second key for it.
func ParseKey(key string) ([2]netip.Prefix, error) {
	var subnets [2]netip.Prefix
	if len(key) > 128 {
		return subnets, fmt.Errorf("key of %d bytes: want ADDRESS-LENGTH, at most one IPv4 and one IPv6, parted by &", len(key))
	}
	parts := strings.Split(key, "&")
	if len(parts) > 2 {
		return subnets, fmt.Errorf("key %q: has %d parts, want one or two", key, len(parts))
	}
	for i, part := range parts {
		addr, length, ok := strings.Cut(part, "-")
		a, err := netip.ParseAddr(addr)
		if !ok || err != nil {
			return subnets, fmt.Errorf("key %q: %q is not ADDRESS-LENGTH, such as 10.5.29.0-24", key, part)
		}
		bits, err := strconv.Atoi(length)
		if err != nil || a.Zone() != "" || a.Is4In6() || !netip.PrefixFrom(a, bits).IsValid() {
			return subnets, fmt.Errorf("key %q: %q is not an IP prefix", key, part)
		}
		f := FamilyOf(a)
		if i == 1 && f == IPv4 || subnets[f].IsValid() {
			return subnets, fmt.Errorf("key %q: want the IPv4 subnet first, then the IPv6 one", key)
		}
		subnets[f] = netip.PrefixFrom(a, bits)
		if subnets[f] != subnets[f].Masked() {
			return subnets, fmt.Errorf("key %q: %s has host bits set, want %s", key, subnets[f], subnets[f].Masked())
		}
	}
	if canonical := FormatKey(subnets[:]...); canonical != key {
		return subnets, fmt.Errorf("key %q: not in canonical form, want %q", key, canonical)
	}
	return subnets, nil
}

// value is the JSON of a lease, field by field in the order in which flannel v0.28 writes it.
type value struct {
	PublicIP      *string         `json:"PublicIP"`
	PublicIPv6    *string         `json:"PublicIPv6"`
	BackendType   string          `json:"BackendType,omitempty"`
	BackendData   json.RawMessage `json:"BackendData,omitempty"`
	BackendV6Data json.RawMessage `json:"BackendV6Data,omitempty"`
	InstanceID    string          `json:"InstanceID,omitempty"`
	NodeName      string          `json:"NodeName,omitempty"`
}

// Value returns the lease's value in flannel's format, byte for byte what flannel writes for the fields it knows. It
// fails if an endpoint's Data is not JSON, or if the value is larger than what [ParseLease] takes.
func (l Lease) Value() ([]byte, error) {
	// flannel's readers want a string for PublicIP; 0.0.0.0 is how they write none.
	none := netip.IPv4Unspecified().String()
	v := value{
		PublicIP:      &none,
		BackendType:   l.BackendType,
		BackendData:   json.RawMessage(l.Endpoints[IPv4].Data),
		BackendV6Data: json.RawMessage(l.Endpoints[IPv6].Data),
		InstanceID:    l.InstanceID,
		NodeName:      l.NodeName,
	}
	if a := l.Endpoints[IPv4].PublicIP; a.IsValid() {
		s := a.String()
		v.PublicIP = &s
	}
	if a := l.Endpoints[IPv6].PublicIP; a.IsValid() {
		s := a.String()
		v.PublicIPv6 = &s
	}
	// Not json.Marshal: it would escape <, > and & inside Data, and the lease read back would differ from this one.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("lease %s: %w", l.Key(), err)
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(out) > maxValue {
		return nil, fmt.Errorf("lease %s: value of %d bytes, at most %d are taken", l.Key(), len(out), maxValue)
	}
	return out, nil
}

// ParseLease decodes a key and its value. Fields it does not know are ignored. It checks form only; whether the lease
// may be let in is for [View] to say.
func ParseLease(key string, data []byte) (Lease, error) {
	var l Lease
	subnets, err := ParseKey(key)
	if err != nil {
		return l, err
	}
	if len(data) > maxValue {
		return l, fmt.Errorf("key %s: value of %d bytes, at most %d are taken", key, len(data), maxValue)
	}
	var v value
	if err := json.Unmarshal(data, &v); err != nil {
		return l, fmt.Errorf("key %s: value: %w", key, describeJSON(data, err))
	}
	l.BackendType, l.InstanceID, l.NodeName = v.BackendType, v.InstanceID, v.NodeName
	for _, f := range Families() {
		name, text, raw := "PublicIP", v.PublicIP, v.BackendData
		if f == IPv6 {
			name, text, raw = "PublicIPv6", v.PublicIPv6, v.BackendV6Data
		}
		if !subnets[f].IsValid() {
			continue // flannel names a public address in a family that is off; nothing is to be sent there
		}
		e := &l.Endpoints[f]
		e.Subnet = subnets[f]
		if text == nil || *text == "" {
			return l, fmt.Errorf("key %s: value: no %s", key, name)
		}
		e.PublicIP, err = netip.ParseAddr(*text)
		if a := e.PublicIP; err != nil || FamilyOf(a) != f || a.Is4In6() || a.Zone() != "" {
			return l, fmt.Errorf("key %s: value: %s is %q, want an %s address", key, name, *text, f)
		}
		if e.Data, err = compact(raw); err != nil {
			return l, fmt.Errorf("key %s: value: %w", key, err)
		}
	}
	return l, nil
}

// compact returns raw without white space; null and nothing are the same.
func compact(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", err
	}
	return b.String(), nil
}

// describeJSON says where in data, which was to be an object, the decoder stopped, and what it found against what it
// wanted.
func describeJSON(data []byte, err error) error {
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		if typ.Field == "" {
			return fmt.Errorf("is a JSON %s, want an object", typ.Value)
		}
		want := "a " + typ.Type.String()
		switch typ.Type.Kind() {
		case reflect.Bool:
			want = "true or false"
		case reflect.Int:
			want = "a whole number"
		}
		return fmt.Errorf("%s is %s, want %s", typ.Field, foundJSON(data, typ), want)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		before := data[:min(max(int(syntax.Offset)-1, 0), len(data))] // Offset counts the byte that is wrong
		line := 1 + bytes.Count(before, []byte("\n"))
		column := len(before) - bytes.LastIndexByte(before, '\n')
		return fmt.Errorf("line %d, column %d: not JSON: %w", line, column, err)
	}
	return fmt.Errorf("not JSON: %w", err)
}

// foundJSON returns what stands in the field of data that was of the wrong type: its text if it is short, else its type.
func foundJSON(data []byte, typ *json.UnmarshalTypeError) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) == nil {
		for name, raw := range fields {
			if strings.EqualFold(name, typ.Field) && len(raw) <= 64 && raw[0] != '{' && raw[0] != '[' {
				return string(raw)
			}
		}
	}
	return "a JSON " + typ.Value
}
