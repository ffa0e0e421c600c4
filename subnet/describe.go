package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// describeJSON says where in data, which has to be an object, the decoder stopped, and what it found and expected.
func describeJSON(data []byte, err error) error {
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		if typ.Field == "" {
			return fmt.Errorf("is %s, want an object", kindOf(typ))
		}
		want := "a " + typ.Type.String()
		switch typ.Type.Kind() {
		case reflect.Bool:
			want = "true or false"
		case reflect.Int:
			want = "a whole number"
		}
		return fmt.Errorf("%s is %s, want %s", typ.Field, foundJSON(data, typ), want)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		before := data[:min(max(int(syntax.Offset)-1, 0), len(data))] // Offset counts the byte that is wrong
		line := 1 + bytes.Count(before, []byte("\n"))
		column := len(before) - bytes.LastIndexByte(before, '\n')
		return fmt.Errorf("line %d, column %d: not JSON: %w", line, column, err)
	}
	return fmt.Errorf("not JSON: %w", err)
}

// foundJSON returns what stands in the field of data that was of the wrong type: its text if it is short, else its
// type.
func foundJSON(data []byte, typ *json.UnmarshalTypeError) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) == nil {
		for name, raw := range fields {
			if strings.EqualFold(name, typ.Field) &&
				len(raw) <= maxQuoted && raw[0] != '{' && raw[0] != '[' && isASCII(raw) {
				return string(raw)
			}
		}
	}
	return kindOf(typ)
}

// isASCII reports whether text holds printable ASCII only.
func isASCII(text []byte) bool {
	return !slices.ContainsFunc(text, func(b byte) bool { return b < ' ' || b > '~' })
}

// kindOf says what kind of JSON was found. Of a number the decoder gives the digits too, however many.
func kindOf(typ *json.UnmarshalTypeError) string {
	kind, _, _ := strings.Cut(typ.Value, " ")
	return "a JSON " + kind
}
