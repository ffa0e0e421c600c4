package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
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
}

// Has reports whether the lease has a part in f.
func (l Lease) Has(f Family) bool { return l.Endpoints[f].Subnet.IsValid() }

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
// fails if an endpoint's Data is not JSON, or if [ParseLease] would not take something for its size or its characters.
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

// anyValue is [Lease.Value] by encoding/json.
func (l Lease) anyValue() ([]byte, error) {
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
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil // not above maxValue: each field is bounded
}

// appendUsual appends the value of a lease in which nothing needs to be escaped or compacted, as is usual. There are thousands to be
// kept on disk, and encoding/json takes several times as long. ok is false for any other lease.
func (l Lease) appendUsual(b []byte) (value []byte, ok bool) {
	plain := func(text string) bool {
		return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })
	}
	compact := func(text string) bool { return !strings.ContainsAny(text, " \t\r\n") && json.Valid([]byte(text)) }
	data := [2]string{l.Endpoints[IPv4].Data, l.Endpoints[IPv6].Data}
	if !plain(l.BackendType) || !plain(l.InstanceID) || !plain(l.NodeName) || data[IPv4] != "" && !compact(data[IPv4]) || data[IPv6] != "" && !compact(data[IPv6]) {
		return nil, false
	}
	b = slices.Grow(b, 192+len(data[IPv4])+len(data[IPv6])+len(l.BackendType)+len(l.InstanceID)+len(l.NodeName))
	public := netip.IPv4Unspecified()
	if a := l.Endpoints[IPv4].PublicIP; a.IsValid() {
		public = a
	}
	b = append(public.AppendTo(append(b, `{"PublicIP":"`...)), `","PublicIPv6":`...)
	if a := l.Endpoints[IPv6].PublicIP; a.IsValid() {
		b = append(a.AppendTo(append(b, '"')), '"')
	} else {
		b = append(b, "null"...)
	}
	for _, f := range [...]struct{ before, text, after string }{
		{`,"BackendType":"`, l.BackendType, `"`},
		{`,"BackendData":`, data[IPv4], ""},
		{`,"BackendV6Data":`, data[IPv6], ""},
		{`,"InstanceID":"`, l.InstanceID, `"`},
		{`,"NodeName":"`, l.NodeName, `"`},
	} {
		if f.text != "" {
			b = append(append(append(b, f.before...), f.text...), f.after...)
		}
	}
	return append(b, '}'), true
}

// ParseLease decodes a key and its value. Fields it does not know are ignored. It checks form only; whether the lease
// may be let in is for [View] to say. Beside an error about the value, the lease says what the key says.
func ParseLease(key string, data []byte) (Lease, error) {
	subnets, err := ParseKey(key)
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

// parseValue decodes the value kept under the key of the given subnets. What it says goes on from the word "value".
func parseValue(subnets [2]netip.Prefix, data []byte) (l Lease, err error) {
	if len(data) > maxValue {
		return l, fmt.Errorf(" of %d bytes, at most %d are taken", len(data), maxValue)
	}
	var v value
	if err := json.Unmarshal(data, &v); err != nil {
		return l, fmt.Errorf(": %w", describeJSON(data, err))
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
			return l, fmt.Errorf(": no %s", name)
		}
		e.PublicIP, err = netip.ParseAddr(*text)
		if a := e.PublicIP; err != nil || FamilyOf(a) != f || a.Is4In6() || a.Zone() != "" {
			return l, fmt.Errorf(": %s is %s, want an %s address", name, quote(*text), f)
		}
		if e.Data, err = compact(raw); err != nil {
			return l, fmt.Errorf(": %s: %w", dataField(f), err)
		}
	}
	if err := l.checkTexts(); err != nil {
		return l, fmt.Errorf(": %w", err)
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
			return fmt.Errorf("is %s, want an object", kindOf(typ))
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
			if strings.EqualFold(name, typ.Field) && len(raw) <= maxQuoted && raw[0] != '{' && raw[0] != '[' && isASCII(raw) {
				return string(raw)
			}
		}
	}
	return kindOf(typ)
}

// isASCII reports whether text holds printable ASCII only.
func isASCII(text []byte) bool {
	return !slices.ContainsFunc(text, func(b byte) bool { return b < ' ' || b > '~' })
}

// kindOf says what kind of JSON was found. Of a number the decoder gives the digits too, however many.
func kindOf(typ *json.UnmarshalTypeError) string {
	kind, _, _ := strings.Cut(typ.Value, " ")
	return "a JSON " + kind
}
