package apiserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// headSize is how much is decoded of an object that is too large, to know its name.
	headSize = 32 << 10
	// maxMeta is the largest metadata of a list, in bytes: the continue token has some hundred.
	maxMeta = 64 << 10
	// maxObjects is how many objects a list may have. Kubernetes supports 5,000 Nodes and 150,000 Pods.
	maxObjects = 400_000
	// keepBuffer is how large a buffer may be to be kept for the next object.
	keepBuffer = 64 << 10
)

// stream decodes an answer while it arrives. It holds one object at a time.
type stream struct {
	r    *bufio.Reader
	read int64 // bytes so far
	buf  []byte
}

func newStream(r io.Reader) *stream { return &stream{r: bufio.NewReaderSize(r, 8<<10)} }

// short is the error for an answer that ends too early.
func short(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// varint reads a number. The error is io.EOF if there is nothing more to read.
func (s *stream) varint() (v uint64, err error) {
	for shift := 0; shift < 64; shift += 7 {
		b, err := s.r.ReadByte()
		if err != nil {
			if shift > 0 {
				err = short(err)
			}
			return 0, err
		}
		s.read++
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%w: a number of more than 64 bits", ErrMalformed)
}

// message reads a message of a length. Of one that exceeds limit, it returns the beginning. The result is valid until
// the next call.
func (s *stream) message(length uint64, limit int) (message, error) {
	keep := int(min(length, uint64(limit)))
	if length > uint64(limit) {
		keep = min(keep, headSize)
	}
	if cap(s.buf) < keep || cap(s.buf) > keepBuffer && keep <= keepBuffer {
		s.buf = make([]byte, keep)
	}
	b := s.buf[:keep]
	n, err := io.ReadFull(s.r, b)
	s.read += int64(n)
	if err != nil {
		return message{}, short(err)
	}
	return message{rest: b, cut: uint64(keep) < length}, s.skip(length - uint64(keep))
}

// skip reads and drops what is not needed.
func (s *stream) skip(length uint64) error {
	for length > 0 {
		part := min(length, 1<<20)
		n, err := s.r.Discard(int(part))
		s.read += int64(n)
		if err != nil {
			return short(err)
		}
		length -= part
	}
	return nil
}

// tag reads what begins a field: its number, and its length if it has one. Other fields are skipped, and have number 0.
// The error is io.EOF where the answer ends.
func (s *stream) tag() (number protowire.Number, length uint64, err error) {
	tag, err := s.varint()
	if err != nil {
		return 0, 0, err
	}
	number, kind := protowire.DecodeTag(tag)
	switch {
	case number < protowire.MinValidNumber:
		return 0, 0, fmt.Errorf("%w: field number %d", ErrMalformed, number)
	case kind == protowire.BytesType:
		length, err = s.varint()
		return number, length, short(err)
	case kind == protowire.VarintType:
		_, err = s.varint()
		return 0, 0, short(err)
	case kind == protowire.Fixed64Type:
		return 0, 0, s.skip(8)
	case kind == protowire.Fixed32Type:
		return 0, 0, s.skip(4)
	}
	return 0, 0, fmt.Errorf("%w: wire type %d", ErrMalformed, kind)
}

// protobufCodec decodes protobuf.
type protobufCodec struct{}

func (protobufCodec) metadata(d decoder, m message) Object { return d.object(m, nil) }

func (protobufCodec) status(m message) (s status) {
	s.decode(m)
	return s
}

func (protobufCodec) list(r io.Reader, kind string, meta func(listMeta) error, item func(message) error) error {
	return newStream(r).list(kind, func(m message) error {
		l, err := m.listMeta()
		if err != nil {
			return err
		}
		return meta(l)
	}, item)
}

// listMeta decodes a ListMeta.
func (m message) listMeta() (l listMeta, err error) {
	err = m.each(func(f field) (err error) {
		switch f.number {
		case listMetaVersion:
			l.version, err = f.bytes.version()
		case listMetaContinue:
			l.next, err = f.bytes.text("continue token", maxMeta)
		}
		return err
	})
	return l, err
}

// frames decodes WatchEvents, each with an object in its envelope in a RawExtension.
func (protobufCodec) frames(r io.Reader) func() (string, message, error) {
	s := newStream(r)
	return func() (kind string, object message, err error) {
		m, err := s.frame()
		if err != nil {
			return "", object, err
		}
		var body message
		err = m.each(func(f field) (err error) {
			switch f.number {
			case watchEventType:
				kind, err = f.bytes.text("type of an event", maxName)
			case watchEventObject:
				err = f.bytes.each(func(f field) error {
					if f.number == rawExtensionRaw {
						body = f.bytes
					}
					return nil
				})
			}
			return err
		})
		if err == nil {
			_, object, err = unknown(body.rest, body.cut)
		}
		return kind, object, err
	}
}

// list decodes a list of a kind in its envelope: see unknown.
func (s *stream) list(kind string, meta, item func(message) error) error {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(s.r, head); err != nil || string(head) != magic {
		return errors.Join(fmt.Errorf("%w: the list is not in protobuf", ErrMalformed), err)
	}
	seen := false
	for {
		number, length, err := s.tag()
		if err == io.EOF && seen {
			return nil
		} else if err != nil {
			return short(err)
		}
		switch number {
		case unknownTypeMeta:
			m, err := s.message(length, maxName)
			if err != nil {
				return err
			}
			if got, err := m.kind(); err != nil || got != kind {
				return errors.Join(fmt.Errorf("%w: the list is of kind %q, want %s", ErrMalformed, got, kind), err)
			}
		case unknownRaw:
			seen = true
			err = s.items(length, meta, item)
		case unknownContentEncoding:
			var m message
			if m, err = s.message(length, maxName); err == nil {
				err = m.noEncoding()
			}
		default:
			err = s.skip(length)
		}
		if err != nil {
			return err
		}
	}
}

// items decodes a list.
func (s *stream) items(length uint64, meta, item func(message) error) error {
	begin := s.read
	for count := 0; uint64(s.read-begin) < length; {
		number, size, err := s.tag()
		if err != nil {
			return short(err)
		}
		if end := uint64(s.read-begin) + size; end > length || size > length {
			return fmt.Errorf("%w: a field exceeds its list", ErrMalformed)
		}
		var m message
		switch number {
		case listMetadata:
			if m, err = s.message(size, maxMeta); err == nil {
				err = meta(m)
			}
		case listItems:
			if count++; count > maxObjects {
				return fmt.Errorf("%w: a list of more than %d objects", ErrMalformed, maxObjects)
			}
			if m, err = s.message(size, MaxObject); err == nil {
				err = item(m)
			}
		default:
			err = s.skip(size)
		}
		if err != nil {
			return err
		}
	}
	if uint64(s.read-begin) != length {
		return fmt.Errorf("%w: a field exceeds its list", ErrMalformed)
	}
	return nil
}

// frame reads a frame of a watch: its length in 4 bytes, big endian, and a WatchEvent. The error is io.EOF where the
// watch ends.
func (s *stream) frame() (message, error) {
	var length [4]byte
	if _, err := io.ReadFull(s.r, length[:]); err != nil {
		return message{}, err
	}
	s.read += int64(len(length))
	return s.message(uint64(binary.BigEndian.Uint32(length[:])), MaxObject)
}
