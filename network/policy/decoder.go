package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/selvage-net/selvage/subnet"
)

// decoder reads parts of an object of the API, and collects what it does not understand.
//
// It goes through the JSON step by step instead of decoding into structs, because encoding/json ignores fields that it
// does not know and the case of the others, and ends at the first value of another type. A field that is ignored could
// be the one that narrows what a rule allows.
type decoder struct{ problems []Problem }

// members are those of a JSON object.
type members map[string]json.RawMessage

func (d *decoder) note(reason Reason, place, format string, args ...any) {
	d.problems = append(d.problems, Problem{Reason: reason, Place: place, Text: fmt.Sprintf(format, args...)})
}

// absent reports whether a member is missing, or null, which is the same to the API.
func absent(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}

// object reads an object, without members if it is absent. ok is false if it is none, or has other members than the
// known ones.
func (d *decoder) object(place string, raw json.RawMessage, known ...string) (m members, ok bool) {
	if absent(raw) {
		return nil, true
	}
	if json.Unmarshal(raw, &m) != nil {
		d.note(ReasonMalformed, place, "is %s, want an object", excerpt(raw))
		return nil, false
	}
	ok = true
	for key := range m {
		if !slices.Contains(known, key) {
			d.note(ReasonUnknownField, place, "has the field %s, which this version does not know", subnet.Quote(key))
			ok = false
		}
	}
	return m, ok
}

// list reads a list, which is empty if it is absent.
func (d *decoder) list(place string, raw json.RawMessage) (list []json.RawMessage, ok bool) {
	if absent(raw) {
		return nil, true
	}
	if json.Unmarshal(raw, &list) != nil {
		d.note(ReasonMalformed, place, "is %s, want a list", excerpt(raw))
		return nil, false
	}
	return list, true
}

// text reads a string, which is empty if it is absent.
func (d *decoder) text(place string, raw json.RawMessage) (s string, ok bool) {
	if absent(raw) {
		return "", true
	}
	if json.Unmarshal(raw, &s) != nil {
		d.note(ReasonMalformed, place, "is %s, want a string", excerpt(raw))
		return "", false
	}
	return s, true
}

// number reads an integer; ok is false if it is absent or outside of the range.
func (d *decoder) number(reason Reason, place string, raw json.RawMessage, lowest, highest int) (n int, ok bool) {
	if absent(raw) || json.Unmarshal(raw, &n) != nil || n < lowest || n > highest {
		d.note(reason, place, "is %s, want a number from %d to %d", excerpt(raw), lowest, highest)
		return 0, false
	}
	return n, true
}

// excerpt returns a JSON value for people.
func excerpt(raw json.RawMessage) string {
	if absent(raw) {
		return "missing"
	}
	return subnet.Quote(string(raw))
}

// index returns the place of an item of a list.
func index(place string, i int) string { return fmt.Sprintf("%s[%d]", place, i) }

// selector reads a label selector. If ok is false, the selector has only the requirements that were understood: it
// selects no less than the one that was meant.
func (d *decoder) selector(place string, raw json.RawMessage) (s Selector, ok bool) {
	m, ok := d.object(place, raw, "matchLabels", "matchExpressions")
	var all []Requirement
	labels, good := d.strings(place+".matchLabels", m["matchLabels"])
	ok = ok && good
	for key, value := range labels {
		all = append(all, Requirement{Key: key, Operator: In, Values: []string{value}})
	}
	expressions, good := d.list(place+".matchExpressions", m["matchExpressions"])
	ok = ok && good
	for i, e := range expressions {
		r, good := d.requirement(index(place+".matchExpressions", i), e)
		ok = ok && good
		if good {
			all = append(all, r)
		}
	}
	return MakeSelector(all...), ok
}

// strings reads an object of strings; those that were understood are returned in any case.
func (d *decoder) strings(place string, raw json.RawMessage) (all map[string]string, ok bool) {
	var m members
	if !absent(raw) && json.Unmarshal(raw, &m) != nil {
		d.note(ReasonMalformed, place, "is %s, want an object of strings", excerpt(raw))
		return nil, false
	}
	all, ok = map[string]string{}, true
	for key, value := range m {
		if s, good := d.text(place+"."+key, value); good {
			all[key] = s
		} else {
			ok = false
		}
	}
	return all, ok
}

func (d *decoder) requirement(place string, raw json.RawMessage) (r Requirement, ok bool) {
	m, ok := d.object(place, raw, "key", "operator", "values")
	key, good := d.text(place+".key", m["key"])
	ok = ok && good
	operator, good := d.text(place+".operator", m["operator"])
	ok = ok && good
	values, good := d.list(place+".values", m["values"])
	if ok = ok && good; !ok {
		return r, false
	}
	r = Requirement{Key: key, Operator: Operator(operator)}
	for i, v := range values {
		s, good := d.text(index(place+".values", i), v)
		if ok = ok && good; !ok {
			return r, false
		}
		r.Values = append(r.Values, s)
	}
	switch r.Operator {
	case In, NotIn:
		ok = len(values) > 0
	case Exists, DoesNotExist:
		ok = len(values) == 0
	default:
		ok = false
	}
	if ok = ok && key != ""; !ok {
		d.note(ReasonSelector, place, "is %s, want a key, an operator of In, NotIn, Exists and DoesNotExist, and "+
			"values for In and NotIn only", excerpt(raw))
	}
	return r, ok
}

// errObject is the error of an object that cannot be identified.
var errObject = errors.New("not an object of the Kubernetes API with a name")

// identity reads which object it is, and returns its spec.
func identity(kind string, namespaced bool, data []byte) (namespace, name string, spec json.RawMessage, err error) {
	var o struct {
		Metadata struct{ Namespace, Name string }
		Spec     json.RawMessage
	}
	err = json.Unmarshal(data, &o)
	switch {
	case err != nil:
		return "", "", nil, fmt.Errorf("%s: %w: %w", kind, errObject, err)
	case o.Metadata.Name == "":
		return "", "", nil, fmt.Errorf("%s: %w: metadata.name is missing", kind, errObject)
	case namespaced && o.Metadata.Namespace == "":
		return "", "", nil, fmt.Errorf("%s: %w: metadata.namespace is missing", kind, errObject)
	}
	return o.Metadata.Namespace, o.Metadata.Name, o.Spec, nil
}
