package apiserver

import (
	"fmt"
	"unique"
)

const (
	maxName     = 253 // of what is a DNS subdomain, as all names are that are watched here
	maxUID      = 128
	maxLabels   = 1000
	maxLabel    = 63               // of a label's value (apimachinery, validation.LabelValueMaxLength)
	maxLabelKey = maxName + 1 + 63 // a prefix, a slash and a name
)

// decoder decodes objects.
type decoder struct {
	annotations map[string]string // the names of those that are kept, each to itself
	labels      bool              // are kept, all of them
}

func newDecoder(annotations []string) decoder {
	d := decoder{annotations: make(map[string]string, len(annotations))}
	for _, name := range annotations {
		d.annotations[name] = name
	}
	return d
}

// labelled is a decoder that keeps labels too.
func (d decoder) labelled() decoder {
	d.labels = true
	return d
}

// intern returns a string of which equal ones share one copy.
func intern(s string) string { return unique.Make(s).Value() }

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
			o.Namespace = intern(o.Namespace)
		case metaUID:
			o.UID, err = f.bytes.text("uid", maxUID)
		case metaVersion:
			o.Version, err = f.bytes.version()
		case metaCreated:
			o.Created, err = f.bytes.time()
		case metaDeleted:
			o.Deleting = true
		case metaAnnotations:
			var key, value message
			if key, value, err = f.bytes.entry(); err == nil {
				err = d.keep(o, key, value)
			}
		case metaLabels:
			var key, value message
			if key, value, err = f.bytes.entry(); err == nil {
				o.zone(key, value)
			}
			switch {
			case !d.labels:
				err = nil
			case err == nil:
				err = o.label(key, value)
			}
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

// keep keeps an annotation if it is one of those that are kept.
func (d decoder) keep(o *Object, key, value message) error {
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

// zoneLabel names the part of the data centre that a Node is in (k8s.io/api, core/v1, LabelTopologyZone).
const zoneLabel = "topology.kubernetes.io/zone"

// zone keeps a label if it is that of the zone. A malformed one is none: nothing depends on it.
func (o *Object) zone(key, value message) {
	if string(key.rest) != zoneLabel || key.cut {
		return
	}
	if zone, err := value.text("label "+zoneLabel, maxLabel); err == nil {
		o.Zone = intern(zone)
	}
}

// label keeps a label.
func (o *Object) label(key, value message) error {
	name, err := key.text("name of a label", maxLabelKey)
	if err != nil {
		return err
	}
	text, err := value.text("label "+name, maxLabel)
	switch {
	case err != nil:
		return err
	case len(o.Labels) == maxLabels:
		return fmt.Errorf("%w: more than %d labels", ErrMalformed, maxLabels)
	case o.Labels == nil:
		o.Labels = map[string]string{}
	}
	o.Labels[name] = text
	return nil
}
