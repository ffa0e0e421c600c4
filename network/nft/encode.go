package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// encoder appends netlink attributes (include/uapi/linux/netlink.h). Numbers of nf_tables are in network byte order.
type encoder struct{ b []byte }

// raw appends an attribute.
func (e *encoder) raw(typ uint16, value []byte) {
	e.header(typ, len(value))
	e.b = append(e.b, value...)
	e.pad()
}

// bytes appends an attribute that holds the bytes of a string, without an end.
func (e *encoder) bytes(typ uint16, value string) {
	e.header(typ, len(value))
	e.b = append(e.b, value...)
	e.pad()
}

// text appends an attribute that holds a string and a zero byte.
func (e *encoder) text(typ uint16, value string) {
	e.header(typ, len(value)+1)
	e.b = append(append(e.b, value...), 0)
	e.pad()
}

func (e *encoder) uint64(typ uint16, n uint64) {
	e.header(typ, 8)
	e.b = binary.BigEndian.AppendUint64(e.b, n)
}

func (e *encoder) uint32(typ uint16, n uint32) {
	e.header(typ, 4)
	e.b = binary.BigEndian.AppendUint32(e.b, n)
}

// nest appends an attribute that holds the attributes that fill appends.
func (e *encoder) nest(typ uint16, fill func()) {
	at := e.open(typ)
	fill()
	e.close(at)
}

// open begins an attribute that holds others; close ends it. They need no closure: an element of a set takes six.
func (e *encoder) open(typ uint16) (at int) {
	at = len(e.b)
	e.header(typ|unix.NLA_F_NESTED, 0)
	return at
}

func (e *encoder) close(at int) { binary.NativeEndian.PutUint16(e.b[at:], uint16(len(e.b)-at)) }

func (e *encoder) header(typ uint16, length int) {
	e.b = binary.NativeEndian.AppendUint16(e.b, uint16(unix.SizeofNlAttr+length))
	e.b = binary.NativeEndian.AppendUint16(e.b, typ)
}

func (e *encoder) pad() {
	for len(e.b)%4 != 0 {
		e.b = append(e.b, 0)
	}
}

// attribute is a netlink attribute: its type, without flags, and payload.
type attribute[T []byte | string] struct {
	typ   uint16
	value T
	ok    bool // false at the end of the attributes
}

// cut splits the first attribute off b. (An iterator would allocate for each nest, nine times for each element.)
func cut[T []byte | string](b T) (a attribute[T], rest T) {
	const typeMask = 1<<14 - 1 // NLA_TYPE_MASK
	if len(b) < unix.SizeofNlAttr {
		return a, rest
	}
	length := int(native16(b[0], b[1]))
	if length < unix.SizeofNlAttr || length > len(b) {
		return a, rest
	}
	a = attribute[T]{native16(b[2], b[3]) & typeMask, b[unix.SizeofNlAttr:length], true}
	return a, b[min(len(b), (length+3)&^3):]
}

func native16(first, second byte) uint16 { return binary.NativeEndian.Uint16([]byte{first, second}) }

// attr returns the first attribute of a type.
func attr[T []byte | string](b T, typ uint16) T {
	for a, rest := cut(b); a.ok; a, rest = cut(rest) {
		if a.typ == typ {
			return a.value
		}
	}
	var none T
	return none
}

// number returns the value of a numeric attribute, 0 if it is not one.
func number[T []byte | string](b T) uint32 {
	if len(b) != 4 {
		return 0
	}
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
