package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// jsonCodec decodes JSON. A message then is an object's text.
type jsonCodec struct{}

// jsonStream decodes values while they arrive, and holds one at a time.
type jsonStream struct {
	*json.Decoder
	budget *budget
}

// budget is a reader that ends with an error after so many bytes.
type budget struct {
	r    io.Reader
	left int
}

// errTooLarge is the error of a value that is larger than a stream accepts.
var errTooLarge = fmt.Errorf("%w: a value of more than %d bytes", ErrMalformed, MaxObject)

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func newJSONStream(r io.Reader) jsonStream {
	b := &budget{r: r}
	return jsonStream{json.NewDecoder(b), b}
}

// value decodes the next value into v.
func (s jsonStream) value(v any) error {
	s.budget.left = MaxObject
	return jsonError(s.Decode(v))
}

// jsonError says that what cannot be decoded is malformed; errors of the connection remain what they are.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return err
}

// opens reads the token that opens an object or an array. It is false if null stands in its place.
func (s jsonStream) opens(want json.Delim) (bool, error) {
	s.budget.left = MaxObject
	switch token, err := s.Token(); {
	case err != nil:
		return false, jsonError(err)
	case token == nil:
		return false, nil
	case token != want:
		return false, fmt.Errorf("%w: %v, want %v", ErrMalformed, token, want)
	}
	return true, nil
}

// more reports whether there is another element, and reads the end otherwise.
func (s jsonStream) more() (bool, error) {
	s.budget.left = MaxObject
	if s.More() {
		return true, nil
	}
	_, err := s.Token()
	return false, short(jsonError(err))
}

// maxHeld bounds the objects of a list that come before its metadata, in bytes.
const maxHeld = 64 << 20

// list decodes a list. In those of custom resources, of which the members are sorted (apimachinery,
// unstructuredJSONScheme), the objects come before the metadata: they are held then.
func (jsonCodec) list(r io.Reader, _ string, meta func(listMeta) error, item func(message) error) error {
	s := newJSONStream(r)
	if ok, err := s.opens('{'); err != nil || !ok {
		return errors.Join(fmt.Errorf("%w: no list", ErrMalformed), err)
	}
	var held []message
	known, size := false, 0
	pass := func(m message) error {
		if known {
			return item(m)
		}
		if size += len(m.rest); size > maxHeld {
			return fmt.Errorf("%w: a list with more than %d bytes before its metadata", ErrMalformed, maxHeld)
		}
		held = append(held, m)
		return nil
	}
	for {
		more, err := s.more()
		if err != nil {
			return err
		}
		if !more {
			return each(held, item) // none, unless the list has no metadata
		}
		name, err := s.Token()
		if err != nil {
			return short(jsonError(err))
		}
		switch name {
		case "metadata":
			if err = s.meta(meta); err == nil {
				known = true
				err = each(held, item)
				held = nil
			}
		case "items":
			err = s.items(pass)
		default:
			var skipped json.RawMessage
			err = s.value(&skipped)
		}
		if err != nil {
			return short(err)
		}
	}
}

// each passes objects on.
func each(objects []message, item func(message) error) error {
	for _, m := range objects {
		if err := item(m); err != nil {
			return err
		}
	}
	return nil
}

// meta decodes a ListMeta.
func (s jsonStream) meta(meta func(listMeta) error) error {
	var m struct{ ResourceVersion, Continue string }
	if err := s.value(&m); err != nil {
		return err
	}
	version, err := message{rest: []byte(m.ResourceVersion)}.version()
	if err != nil {
		return err
	}
	return meta(listMeta{version, m.Continue})
}

// items decodes the objects of a list.
func (s jsonStream) items(item func(message) error) error {
	if ok, err := s.opens('['); err != nil || !ok {
		return err
	}
	for count := 0; ; count++ {
		more, err := s.more()
		if err != nil || !more {
			return err
		}
		var object json.RawMessage
		if err := s.value(&object); err != nil {
			return err
		}
		if count == maxObjects {
			return fmt.Errorf("%w: a list of more than %d objects", ErrMalformed, maxObjects)
		}
		if err := item(message{rest: object}); err != nil {
			return err
		}
	}
}

func (jsonCodec) frames(r io.Reader) func() (string, message, error) {
	s := newJSONStream(r)
	return func() (string, message, error) {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		err := s.value(&event)
		return event.Type, message{rest: event.Object}, err
	}
}

func (jsonCodec) status(m message) (s status) {
	s.decodeJSON(m.rest)
	s.message = shorten(s.message)
	return s
}

func (jsonCodec) metadata(d decoder, m message) Object { return d.raw(m).Object }

// raw decodes an object's metadata.
func (d decoder) raw(m message) (o Raw) {
	o.JSON = m.rest
	var j struct {
		Metadata struct {
			Name, Namespace, UID, ResourceVersion string
			CreationTimestamp                     time.Time
			DeletionTimestamp                     *time.Time
			Annotations, Labels                   map[string]string
		}
	}
	bad := func(err error) {
		if o.Bad == nil {
			o.Bad = err
		}
	}
	if err := json.Unmarshal(m.rest, &j); err != nil {
		bad(fmt.Errorf("%w: %w", ErrMalformed, err))
	}
	text := func(what, value string, limit int) string {
		s, err := message{rest: []byte(value)}.text(what, limit)
		bad(err)
		return s
	}
	var err error
	o.Name = text("name", j.Metadata.Name, maxName)
	o.Namespace = text("namespace", j.Metadata.Namespace, maxName)
	o.UID = text("uid", j.Metadata.UID, maxUID)
	o.Version, err = message{rest: []byte(j.Metadata.ResourceVersion)}.version()
	bad(err)
	o.Created, o.Deleting = j.Metadata.CreationTimestamp, j.Metadata.DeletionTimestamp != nil
	for name, value := range j.Metadata.Annotations {
		bad(d.keep(&o.Object, message{rest: []byte(name)}, message{rest: []byte(value)}))
	}
	for name, value := range j.Metadata.Labels {
		if d.labels {
			bad(o.label(message{rest: []byte(name)}, message{rest: []byte(value)}))
		}
	}
	if o.Name == "" {
		bad(fmt.Errorf("%w: an object without a name", ErrMalformed))
	}
	return o
}
