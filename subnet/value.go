package subnet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// value is the JSON of a lease, field by field in the order in which flannel v0.28 writes it.
type value struct {
	PublicIP      *string         `json:"PublicIP"`
	PublicIPv6    *string         `json:"PublicIPv6"`
	BackendType   string          `json:"BackendType,omitempty"`
	BackendData   json.RawMessage `json:"BackendData,omitempty"`
	BackendV6Data json.RawMessage `json:"BackendV6Data,omitempty"`
	InstanceID    string          `json:"InstanceID,omitempty"`
	NodeName      string          `json:"NodeName,omitempty"`
	MeshKey       string          `json:"MeshKey,omitempty"`
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
		MeshKey:       l.MeshKey,
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

// appendUsual appends the value of a lease in which nothing needs to be escaped or compacted, as is usual. Thousands
// are written to disk, and encoding/json takes several times as long. ok is false for any other lease.
func (l Lease) appendUsual(b []byte) (value []byte, ok bool) {
	data := [2]string{l.Endpoints[IPv4].Data, l.Endpoints[IPv6].Data}
	if !plain(l.BackendType) || !plain(l.InstanceID) || !plain(l.NodeName) || !plain(l.MeshKey) ||
		data[IPv4] != "" && !isCompact(data[IPv4]) || data[IPv6] != "" && !isCompact(data[IPv6]) {
		return nil, false
	}
	b = slices.Grow(b, 192+len(data[IPv4])+len(data[IPv6])+len(l.BackendType)+len(l.InstanceID)+len(l.NodeName)+
		len(l.MeshKey))
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
		{`,"MeshKey":"`, l.MeshKey, `"`},
	} {
		if f.text != "" {
			b = append(append(append(b, f.before...), f.text...), f.after...)
		}
	}
	return append(b, '}'), true
}

// texts are the fields of a lease's value. Data is compact JSON; a missing field is empty. They can be parts of a
// larger text.
type texts struct {
	public, data                      [2]string // by Family
	backendType, instanceID, nodeName string
	meshKey                           string
}

// parseAny decodes a value by encoding/json.
func parseAny(data []byte) (t texts, err error) {
	var v value
	if err := json.Unmarshal(data, &v); err != nil {
		return t, describeJSON(data, err)
	}
	t.backendType, t.instanceID, t.nodeName = v.BackendType, v.InstanceID, v.NodeName
	t.meshKey = v.MeshKey
	for f, text := range [...]*string{IPv4: v.PublicIP, IPv6: v.PublicIPv6} {
		if text != nil {
			t.public[f] = *text
		}
	}
	for f, raw := range [...]json.RawMessage{IPv4: v.BackendData, IPv6: v.BackendV6Data} {
		if len(raw) == 0 || string(raw) == "null" { // null and nothing are the same
			continue
		}
		var b bytes.Buffer
		_ = json.Compact(&b, raw) // it was decoded, so it is JSON
		t.data[f] = b.String()
	}
	return t, nil
}

// parseUsual decodes a value in the form in which flannel and selvage write it. There are thousands at a start, and
// encoding/json takes several times as long. It accepts only what encoding/json decodes alike; ok is false for any
// other value.
func parseUsual(data []byte) (t texts, ok bool) {
	r := fields{rest: string(data), ok: true}
	r.expect(`{"PublicIP":`)
	t.public[IPv4] = r.text()
	r.expect(`,"PublicIPv6":`)
	t.public[IPv6] = r.text()
	if r.has(`,"BackendType":`) {
		t.backendType = r.text()
	}
	if r.has(`,"BackendData":`) {
		t.data[IPv4] = r.object()
	}
	if r.has(`,"BackendV6Data":`) {
		t.data[IPv6] = r.object()
	}
	if r.has(`,"InstanceID":`) {
		t.instanceID = r.text()
	}
	if r.has(`,"NodeName":`) {
		t.nodeName = r.text()
	}
	if r.has(`,"MeshKey":`) {
		t.meshKey = r.text()
	}
	r.expect(`}`)
	return t, r.ok && r.rest == ""
}

// fields takes JSON apart from its beginning, as long as it is as expected; ok is false from then on.
type fields struct {
	rest string
	ok   bool
}

// has takes a prefix, and reports whether it was there.
func (r *fields) has(prefix string) (had bool) {
	r.rest, had = strings.CutPrefix(r.rest, prefix)
	return had
}

func (r *fields) expect(prefix string) { r.ok = r.has(prefix) && r.ok }

// text takes a string in which nothing is escaped, or null, which is an empty one.
func (r *fields) text() string {
	if r.has("null") {
		return ""
	}
	r.expect(`"`)
	text, rest, ended := strings.Cut(r.rest, `"`)
	r.rest, r.ok = rest, r.ok && ended && plain(text)
	return text
}

// object takes an object without others in it.
func (r *fields) object() string {
	end := strings.IndexByte(r.rest, '}') + 1
	text := r.rest[:end]
	r.rest, r.ok = r.rest[end:], r.ok && strings.LastIndexByte(text, '{') == 0 && isCompact(text)
	return text
}

// plain reports whether encoding/json writes text as it is.
func plain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })
}

// isCompact reports whether text is JSON that json.Compact leaves as it is.
func isCompact(text string) bool {
	return !strings.ContainsAny(text, " \t\r\n") && json.Valid([]byte(text))
}
