package policy

import (
	"slices"
	"strconv"
	"strings"
)

// Operator is the operator of a [Requirement], as the API writes it.
type Operator string

// The operators of matchExpressions.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// Requirement is one condition of a [Selector].
type Requirement struct {
	Key      string
	Operator Operator
	Values   []string // of In and NotIn: sorted, each once
}

// matches reports whether labels meet the requirement. Labels without the key meet NotIn and DoesNotExist.
func (r Requirement) matches(l Labels) bool {
	value, ok := l.Get(r.Key)
	switch r.Operator {
	case In:
		return ok && slices.Contains(r.Values, value)
	case NotIn:
		return !ok || !slices.Contains(r.Values, value)
	case Exists:
		return ok
	case DoesNotExist:
		return !ok
	}
	return false
}

// text returns the requirement in kubectl's syntax. Different requirements have different texts.
func (r Requirement) text() string {
	values := make([]string, len(r.Values))
	for i, v := range r.Values {
		values[i] = plain(v)
	}
	list := strings.Join(values, ",")
	switch {
	case r.Operator == In && len(values) == 1:
		return plain(r.Key) + "=" + list
	case r.Operator == In:
		return plain(r.Key) + " in (" + list + ")"
	case r.Operator == NotIn:
		return plain(r.Key) + " notin (" + list + ")"
	case r.Operator == Exists:
		return plain(r.Key)
	}
	return "!" + plain(r.Key)
}

// plain returns a key or value of a label as it is. What the API server would not accept as one is quoted.
func plain(s string) string {
	odd := func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune("-_./", c)
	}
	if s == "" || strings.ContainsFunc(s, odd) {
		return strconv.Quote(s)
	}
	return s
}

// Selector selects by labels: all requirements have to be met. The zero value selects everything. Selectors that say
// the same in another order, or as matchLabels and matchExpressions, have the same text.
type Selector struct {
	requirements []Requirement
	text         string
}

// MakeSelector returns the selector of a list of requirements.
func MakeSelector(list ...Requirement) Selector {
	byText := map[string]Requirement{}
	texts := make([]string, 0, len(list))
	for _, r := range list {
		r.Values = slices.Compact(slices.Sorted(slices.Values(r.Values)))
		byText[r.text()] = r
		texts = append(texts, r.text())
	}
	slices.Sort(texts)
	texts = slices.Compact(texts)
	s := Selector{text: strings.Join(texts, ",")}
	for _, text := range texts {
		s.requirements = append(s.requirements, byText[text])
	}
	return s
}

// Matches reports whether the selector selects an object with these labels.
func (s Selector) Matches(l Labels) bool {
	for _, r := range s.requirements {
		if !r.matches(l) {
			return false
		}
	}
	return true
}

// String returns the selector in kubectl's syntax; it is empty if the selector selects everything.
func (s Selector) String() string { return s.text }
