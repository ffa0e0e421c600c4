package apiserver

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// magic begins each object in protobuf (apimachinery, pkg/runtime/serializer/protobuf). A message
// k8s.io.apimachinery.pkg.runtime.Unknown follows.
const magic = "k8s\x00"

// message is a protobuf message that is being decoded.
type message struct {
	rest []byte
	// cut says that the end of the message is missing, because it exceeds a limit. Its last field then is too.
	cut bool
}

// field is one field of a message. Of bytes and num, the one of its type is set.
type field struct {
	number protowire.Number
	bytes  message // strings and messages
	num    uint64
}

// next returns the next field of the types that Kubernetes' messages have; false at the end.
func (m *message) next() (f field, ok bool, err error) {
	for len(m.rest) > 0 {
		number, kind, n := protowire.ConsumeTag(m.rest)
		if n < 0 {
			return f, false, m.broken(n)
		}
		value := m.rest[n:]
		switch kind {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(value)
			if n < 0 {
				return f, false, m.broken(n)
			}
			m.rest = value[n:]
			return field{number: number, num: v}, true, nil
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(value)
			if n >= 0 {
				m.rest = value[n:]
				return field{number: number, bytes: message{rest: v}}, true, nil
			}
			_, n2 := protowire.ConsumeVarint(value) // the length
			if !m.cut || n2 < 0 {
				return f, false, m.broken(n)
			}
			m.rest = nil
			return field{number: number, bytes: message{rest: value[n2:], cut: true}}, true, nil
		default:
			n := protowire.ConsumeFieldValue(number, kind, value)
			if n < 0 {
				return f, false, m.broken(n)
			}
			m.rest = value[n:]
		}
	}
	return f, false, nil
}

// broken is the error for what protowire found; none where the end is missing anyway.
func (m *message) broken(n int) error {
	if m.cut {
		m.rest = nil
		return nil
	}
	return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
}

// each calls fn with each field.
func (m message) each(fn func(field) error) error {
	for {
		f, ok, err := m.next()
		if err != nil || !ok {
			return err
		}
		if err := fn(f); err != nil {
			return err
		}
	}
}

// entry decodes an entry of a map.
func (m message) entry() (key, value message, err error) {
	err = m.each(func(f field) error {
		switch f.number {
		case mapKey:
			key = f.bytes
		case mapValue:
			value = f.bytes
		}
		return nil
	})
	return key, value, err
}

// text returns a string of at most limit bytes.
func (m message) text(what string, limit int) (string, error) {
	switch {
	case m.cut || len(m.rest) > limit:
		return "", fmt.Errorf("%w: %s of more than %d bytes", ErrMalformed, what, limit)
	case !utf8.Valid(m.rest):
		return "", fmt.Errorf("%w: %s is not UTF-8", ErrMalformed, what)
	}
	return string(m.rest), nil
}

// version decodes a resourceVersion. An empty one is 0.
func (m message) version() (int64, error) {
	if len(m.rest) == 0 && !m.cut {
		return 0, nil
	}
	text, err := m.text("resourceVersion", 20)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 {
		return 0, fmt.Errorf("%w: resourceVersion %q is no number", ErrMalformed, text)
	}
	return v, nil
}

// time decodes a meta/v1 Time.
func (m message) time() (time.Time, error) {
	var seconds, nanos int64
	err := m.each(func(f field) error {
		switch f.number {
		case timeSeconds:
			seconds = int64(f.num)
		case timeNanos:
			nanos = int64(f.num)
		}
		return nil
	})
	// Year 1 to 9999, as in JSON. The zero time is encoded as an empty message, or as year 1.
	const first, last = -62135596800, 253402300799
	if err != nil || seconds == 0 || seconds < first || seconds > last || nanos < 0 || nanos > 999_999_999 {
		return time.Time{}, err
	}
	return time.Unix(seconds, nanos).UTC(), nil
}

// unknown decodes an object's envelope (runtime.Unknown).
func unknown(b []byte, cut bool) (kind string, raw message, err error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return "", raw, fmt.Errorf("%w: no object in protobuf", ErrMalformed)
	}
	m := message{rest: b[len(magic):], cut: cut}
	err = m.each(func(f field) error {
		var err error
		switch f.number {
		case unknownTypeMeta:
			kind, err = f.bytes.kind()
		case unknownRaw:
			raw = f.bytes
		case unknownContentEncoding:
			err = f.bytes.noEncoding()
		}
		return err
	})
	return kind, raw, err
}

// kind returns the kind in a TypeMeta.
func (m message) kind() (kind string, err error) {
	err = m.each(func(f field) (err error) {
		if f.number == typeMetaKind {
			kind, err = f.bytes.text("kind", maxName)
		}
		return err
	})
	return kind, err
}

// noEncoding rejects an envelope with a contentEncoding: none is defined.
func (m message) noEncoding() error {
	if len(m.rest) > 0 {
		return fmt.Errorf("%w: an object with a content encoding", ErrMalformed)
	}
	return nil
}
