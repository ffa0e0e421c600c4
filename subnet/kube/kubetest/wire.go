package kubetest

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// message is a protobuf message that is being encoded. Field numbers are those of generated.proto in k8s.io/api and
// k8s.io/apimachinery.
type message []byte

func (m *message) bytes(number protowire.Number, value []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, number, protowire.BytesType), value)
}

// text leaves out an empty string, where Kubernetes encodes it: both mean the same.
func (m *message) text(number protowire.Number, value string) {
	if value != "" {
		m.bytes(number, []byte(value))
	}
}

func (m *message) num(number protowire.Number, value uint64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, number, protowire.VarintType), value)
}

// time encodes a Time in RFC 3339.
func (m *message) time(number protowire.Number, value string) {
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return
	}
	var seconds message
	seconds.num(1, uint64(t.Unix()))
	m.bytes(number, seconds)
}

// texts encodes a map of strings, sorted by key.
func (m *message) texts(number protowire.Number, value any) {
	f, _ := value.(fields)
	for _, k := range slices.Sorted(maps.Keys(f)) {
		var entry message
		entry.bytes(1, []byte(k))
		entry.bytes(2, []byte(text(f, k)))
		m.bytes(number, entry)
	}
}

// envelope encodes an object's envelope, runtime.Unknown.
func envelope(apiVersion, kind string, raw message) []byte {
	var typeMeta, m message
	typeMeta.text(1, apiVersion)
	typeMeta.text(2, kind)
	m.bytes(1, typeMeta)
	m.bytes(2, raw)
	m.bytes(3, nil)
	m.bytes(4, nil)
	return append([]byte("k8s\x00"), m...)
}

// objectMeta encodes an ObjectMeta.
func objectMeta(f fields) (m message) {
	m.text(1, text(f, "name"))
	m.text(3, text(f, "namespace"))
	m.text(5, text(f, "uid"))
	m.text(6, text(f, "resourceVersion"))
	if n, ok := f["generation"].(json.Number); ok {
		v, _ := n.Int64()
		m.num(7, uint64(v))
	}
	m.time(8, text(f, "creationTimestamp"))
	if at := text(f, "deletionTimestamp"); at != "" {
		m.time(9, at)
	}
	m.texts(11, f["labels"])
	m.texts(12, f["annotations"])
	return m
}

// listMeta encodes a ListMeta.
func listMeta(version int64, next string, remaining int) (m message) {
	m.text(2, strconv.FormatInt(version, 10))
	m.text(3, next)
	if remaining > 0 {
		m.num(4, uint64(remaining))
	}
	return m
}

// wire encodes an object: of a Node and a Pod what the tests need, of others the metadata.
func wire(f fields) (m message) {
	m.bytes(1, objectMeta(metadata(f)))
	switch text(f, "kind") {
	case "Node":
		m.bytes(2, nodeSpec(sub(f, "spec")))
		m.bytes(3, nodeStatus(sub(f, "status")))
	case "Pod":
		m.bytes(2, podSpec(sub(f, "spec")))
		m.bytes(3, podStatus(sub(f, "status")))
	}
	return m
}

func podSpec(f fields) (m message) {
	for _, c := range list(f, "containers") {
		m.bytes(2, container(c))
	}
	m.text(10, text(f, "nodeName"))
	if on, _ := f["hostNetwork"].(bool); on {
		m.num(11, 1)
	}
	for _, c := range list(f, "initContainers") {
		m.bytes(20, container(c))
	}
	return m
}

func container(c any) (m message) {
	f, _ := c.(fields)
	m.text(1, text(f, "name"))
	for _, p := range list(f, "ports") {
		p, _ := p.(fields)
		var e message
		e.text(1, text(p, "name"))
		if n, ok := p["containerPort"].(json.Number); ok {
			v, _ := n.Int64()
			e.num(3, uint64(v))
		}
		e.text(4, text(p, "protocol"))
		m.bytes(6, e)
	}
	m.text(24, text(f, "restartPolicy"))
	return m
}

func podStatus(f fields) (m message) {
	m.text(1, text(f, "phase"))
	m.text(6, text(f, "podIP"))
	m.time(7, text(f, "startTime"))
	for _, p := range list(f, "podIPs") {
		p, _ := p.(fields)
		var e message
		e.text(1, text(p, "ip"))
		m.bytes(12, e)
	}
	return m
}

func nodeSpec(f fields) (m message) {
	m.text(1, text(f, "podCIDR"))
	m.text(3, text(f, "providerID"))
	for _, c := range list(f, "podCIDRs") {
		s, _ := c.(string)
		m.text(7, s)
	}
	return m
}

func nodeStatus(f fields) (m message) {
	for _, c := range list(f, "conditions") {
		c, _ := c.(fields)
		var e message
		e.text(1, text(c, "type"))
		e.text(2, text(c, "status"))
		e.time(3, text(c, "lastHeartbeatTime"))
		e.time(4, text(c, "lastTransitionTime"))
		e.text(5, text(c, "reason"))
		e.text(6, text(c, "message"))
		m.bytes(4, e)
	}
	for _, a := range list(f, "addresses") {
		a, _ := a.(fields)
		var e message
		e.text(1, text(a, "type"))
		e.text(2, text(a, "address"))
		m.bytes(5, e)
	}
	for _, i := range list(f, "images") {
		i, _ := i.(fields)
		var e message
		for _, name := range list(i, "names") {
			s, _ := name.(string)
			e.text(1, s)
		}
		m.bytes(8, e)
	}
	return m
}

// list returns a list within an object.
func list(f fields, name string) []any {
	l, _ := f[name].([]any)
	return l
}

// statusWire encodes a Status.
func statusWire(f fields) (m message) {
	code, _ := f["code"].(int)
	m.bytes(1, nil)
	m.text(2, text(f, "status"))
	m.text(3, text(f, "message"))
	m.text(4, text(f, "reason"))
	if d, ok := f["details"].(fields); ok {
		var details message
		for _, c := range list(d, "causes") {
			c, _ := c.(fields)
			var cause message
			cause.text(1, text(c, "reason"))
			cause.text(2, text(c, "message"))
			details.bytes(4, cause)
		}
		if s, ok := d["retryAfterSeconds"].(int); ok {
			details.num(5, uint64(s))
		}
		m.bytes(5, details)
	}
	m.num(6, uint64(code))
	return m
}
