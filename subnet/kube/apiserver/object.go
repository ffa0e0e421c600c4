package apiserver

import "fmt"

const (
	maxName = 253 // of what is a DNS subdomain, as all names are that are watched here
	maxUID  = 128
)

// decoder decodes objects.
type decoder struct {
	annotations map[string]string // the names of those that are kept, each to itself
}

func newDecoder(annotations []string) decoder {
	d := decoder{annotations: make(map[string]string, len(annotations))}
	for _, name := range annotations {
		d.annotations[name] = name
	}
	return d
}

// object decodes a message whose first field is an ObjectMeta, as that of all objects is, and hands the others to
// rest, if it is not nil.
func (d decoder) object(m message, rest func(field) error) (o Object) {
	if m.cut {
		o.Bad = fmt.Errorf("%w: the object has more than %d bytes", ErrMalformed, MaxObject)
	}
	bad := func(err error) {
		if o.Bad == nil {
			o.Bad = err
		}
	}
	bad(m.each(func(f field) error {
		switch {
		case f.number == objectMetadata:
			bad(d.meta(f.bytes, &o))
		case rest != nil:
			bad(rest(f))
		}
		return nil
	}))
	if o.Name == "" {
		bad(fmt.Errorf("%w: an object without a name", ErrMalformed))
	}
	return o
}

// meta decodes an ObjectMeta. After an error it goes on with the next field, so that name and version are known.
func (d decoder) meta(m message, o *Object) (first error) {
	err := m.each(func(f field) error {
		var err error
		switch f.number {
		case metaName:
			o.Name, err = f.bytes.text("name", maxName)
		case metaNamespace:
			o.Namespace, err = f.bytes.text("namespace", maxName)
		case metaUID:
			o.UID, err = f.bytes.text("uid", maxUID)
		case metaVersion:
			o.Version, err = f.bytes.version()
		case metaCreated:
			o.Created, err = f.bytes.time()
		case metaDeleted:
			o.Deleting = true
		case metaAnnotations:
			err = d.annotation(f.bytes, o)
		}
		if first == nil {
			first = err
		}
		return nil
	})
	if first == nil {
		first = err
	}
	return first
}

// annotation decodes an entry of the map.
func (d decoder) annotation(m message, o *Object) error {
	var key, value message
	if err := m.each(func(f field) error {
		switch f.number {
		case mapKey:
			key = f.bytes
		case mapValue:
			value = f.bytes
		}
		return nil
	}); err != nil {
		return err
	}
	name, kept := d.annotations[string(key.rest)]
	if !kept || key.cut {
		return nil
	}
	text, err := value.text("annotation "+name, MaxAnnotation)
	if err != nil {
		return err
	}
	if o.Annotations == nil {
		o.Annotations = make(map[string]string, len(d.annotations))
	}
	o.Annotations[name] = text
	return nil
}
