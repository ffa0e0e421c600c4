package subnet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// UnknownKey is a key of a network config that has no effect.
type UnknownKey struct {
	Key     string // with the object that it is in: "SubnetLength", "Backend.vnid"
	Nearest string // the known key that may be meant, in the same form; empty: none is near
}

// String returns `"SubnetLength", did you mean "SubnetLen"?`. A long key is cut.
func (k UnknownKey) String() string {
	if k.Nearest == "" {
		return quote(k.Key)
	}
	return fmt.Sprintf("%s, did you mean %q?", quote(k.Key), k.Nearest)
}

// UnknownKeys returns the keys of a network config that have no effect, sorted. They are no error: flannel ignores them
// too. "$schema", by which an editor finds the schema, is not among them. backendKeys returns the keys of the Backend
// object for a Backend.Type, beside Type; if ok is false, the Backend object is not looked at. Anything but a JSON
// object has none.
func UnknownKeys(data []byte, backendKeys func(backendType string) (keys []string, ok bool)) (unknown []UnknownKey) {
	if len(data) > maxConfig {
		return nil
	}
	var config map[string]json.RawMessage
	if json.Unmarshal(data, &config) != nil {
		return nil
	}
	known := []string{"$schema"} // for editors
	for f := range reflect.TypeFor[configJSON]().Fields() {
		known = append(known, f.Name)
	}
	unknown = unknownKeys(config, "", known)
	for key, raw := range config {
		var options map[string]json.RawMessage
		if !strings.EqualFold(key, "Backend") || json.Unmarshal(raw, &options) != nil {
			continue
		}
		b, err := parseBackend(raw)
		if keys, ok := backendKeys(b.Type); ok && err == nil {
			unknown = append(unknown, unknownKeys(options, "Backend.", append([]string{"Type"}, keys...))...)
		}
	}
	return unknown
}

func unknownKeys(object map[string]json.RawMessage, within string, known []string) (unknown []UnknownKey) {
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, key) }) {
			continue
		}
		u := UnknownKey{Key: within + key}
		if near := Nearest(key, known); near != "" {
			u.Nearest = within + near
		}
		unknown = append(unknown, u)
	}
	return unknown
}

// Nearest returns the first of [Similar]; empty: none is near.
func Nearest(word string, known []string) string {
	for _, k := range Similar(word, known) {
		return k
	}
	return ""
}

// Similar returns those of several words that a mistyped word may have been meant to be, without regard to case, the
// nearest first. One is near if few letters differ, or one of the two begins with the other.
func Similar(word string, known []string) (similar []string) {
	const longest = 64 // no key or command is longer, and the search costs the product of the lengths
	if len(word) > longest {
		return nil
	}
	word = strings.ToLower(word)
	distances := map[string]int{}
	for _, k := range known {
		lower := strings.ToLower(k)
		n := distance(word, lower)
		if len(word) > 2 && (strings.HasPrefix(word, lower) || strings.HasPrefix(lower, word)) {
			n = min(n, 2)
		}
		if n <= max(2, len(word)/4) && n < len(lower) {
			similar, distances[k] = append(similar, k), n
		}
	}
	slices.SortStableFunc(similar, func(a, b string) int { return cmp.Compare(distances[a], distances[b]) })
	return similar
}

// distance is the number of bytes to insert, delete or replace, or of neighbours to exchange, that turns a into b.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[(i+2)%3], rows[i%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := above[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(above[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
