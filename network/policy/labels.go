package policy

import (
	"encoding/binary"
	"iter"
	"maps"
	"slices"
	"strings"
	"unique"
)

// Labels are the labels of a pod or a namespace. Equal labels compare equal with == and share one copy in memory, since
// all pods of a Deployment have the same ones. The zero value has no labels.
type Labels struct{ fields packed }

// MakeLabels returns the labels of a map.
func MakeLabels(m map[string]string) Labels {
	fields := make([]string, 0, 2*len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fields = append(fields, key, m[key])
	}
	return Labels{pack(fields)}
}

// All yields keys and values in the order of the keys.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for rest := l.fields.text(); rest != ""; {
			var key, value string
			key, rest = cut(rest)
			value, rest = cut(rest)
			if !yield(key, value) {
				return
			}
		}
	}
}

// Get returns the value of a label; ok is false if there is no such label.
func (l Labels) Get(key string) (value string, ok bool) {
	for k, v := range l.All() {
		if k == key {
			return v, true
		}
	}
	return "", false
}

// NamedPort is a port of a container that has a name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Number   uint16
}

// Ports are the named ports of a pod, shared and comparable like [Labels]. The zero value has none.
type Ports struct{ fields packed }

// MakePorts returns the ports of a list, in which each counts once.
func MakePorts(list []NamedPort) Ports {
	list = slices.SortedFunc(slices.Values(list), func(a, b NamedPort) int {
		return strings.Compare(a.order(), b.order())
	})
	var fields []string
	for _, p := range slices.Compact(list) {
		fields = append(fields, p.order())
	}
	return Ports{pack(fields)}
}

// order returns the port as text: its number in two bytes, its protocol and its name.
func (p NamedPort) order() string {
	return string([]byte{byte(p.Number >> 8), byte(p.Number), byte(p.Protocol)}) + p.Name
}

// All yields the ports.
func (p Ports) All() iter.Seq[NamedPort] {
	return func(yield func(NamedPort) bool) {
		for rest := p.fields.text(); rest != ""; {
			var f string
			f, rest = cut(rest)
			if !yield(NamedPort{Name: f[3:], Protocol: Protocol(f[2]), Number: uint16(f[0])<<8 | uint16(f[1])}) {
				return
			}
		}
	}
}

// packed is a list of strings as one string that is stored once for all equal lists: 8 bytes for each use.
type packed struct{ handle unique.Handle[string] }

// pack returns a list of strings as one.
func pack(fields []string) packed {
	if len(fields) == 0 {
		return packed{}
	}
	var b []byte
	for _, f := range fields {
		b = append(binary.AppendUvarint(b, uint64(len(f))), f...)
	}
	return packed{unique.Make(string(b))}
}

func (p packed) text() string {
	if p == (packed{}) {
		return ""
	}
	return p.handle.Value()
}

// cut returns the first string of a list that pack made, and the rest of the list.
func cut(list string) (first, rest string) {
	length, shift := 0, 0
	for {
		c := list[0]
		list = list[1:]
		length |= int(c&0x7f) << shift
		if c < 0x80 {
			return list[:length], list[length:]
		}
		shift += 7
	}
}
