package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"
)

// Document is an object of a file.
type Document struct {
	File       string
	Line       int // where the document begins in the file, from 1; of an item of a List, that of the List
	APIVersion string
	Kind       string
	JSON       []byte
}

// Place returns where the object is, for people.
func (d Document) Place() string { return fmt.Sprintf("%s:%d", d.File, d.Line) }

// ErrSyntax is returned for a file that has no objects of Kubernetes, or not only such.
var ErrSyntax = errors.New("want objects of Kubernetes as YAML or JSON")

// Split returns the objects of a file: documents of YAML that are separated by "---", or JSON. The items of a List are
// objects of their own. Documents without content are left out. A field that is there twice is an error.
func Split(file string, data []byte) ([]Document, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		if all, err := splitJSON(file, data); err == nil {
			return all, nil
		} // Otherwise it can be YAML in braces.
	}
	var all []Document
	for _, part := range splitYAML(string(data)) {
		raw, err := yaml.YAMLToJSONStrict([]byte(part.text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w: in the document that begins at line %d: %w",
				file, ErrSyntax, part.line, err)
		}
		if all, err = appendObjects(all, Document{File: file, Line: part.line, JSON: raw}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// splitJSON is much faster than the parser of YAML, which can read JSON too.
func splitJSON(file string, data []byte) (all []Document, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	line, from := 1, 0
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		begin := int(decoder.InputOffset()) - len(raw)
		line += bytes.Count(data[from:begin], []byte("\n"))
		from = begin
		if all, err = appendObjects(all, Document{File: file, Line: line, JSON: raw}); err != nil {
			return nil, err
		}
	}
}

// part is a document of a file.
type part struct {
	line int
	text string
}

// splitYAML splits a file at lines that begin with "---". Such a line has at most a comment as well, and a text in the
// document is indented if it has such a line.
func splitYAML(text string) (all []part) {
	begin, from, at, number := 0, 1, 0, 0
	for line := range strings.Lines(text) {
		number++
		rest, ok := strings.CutPrefix(line, "---")
		if ok && (rest == "" || strings.ContainsRune(" \t\r\n", rune(rest[0]))) {
			all = append(all, part{from, text[begin:at]})
			begin, from = at+len("---"), number
		}
		at += len(line)
	}
	return append(all, part{from, text[begin:]})
}

// appendObjects appends the object of a document, or the items of a List.
func appendObjects(all []Document, d Document) ([]Document, error) {
	if bytes.Equal(bytes.TrimSpace(d.JSON), []byte("null")) {
		return all, nil
	}
	var o struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Items      []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(d.JSON, &o); err != nil || o.Kind == "" || o.APIVersion == "" {
		return nil, fmt.Errorf("%s: %w: the document has no apiVersion and kind", d.Place(), ErrSyntax)
	}
	d.APIVersion, d.Kind = o.APIVersion, o.Kind
	kind, isList := strings.CutSuffix(o.Kind, "List")
	if !isList || o.Items == nil {
		return append(all, d), nil
	}
	for i, raw := range o.Items {
		item := Document{File: d.File, Line: d.Line, APIVersion: d.APIVersion, Kind: kind, JSON: raw}
		var of struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
		}
		if err := json.Unmarshal(raw, &of); err != nil {
			return nil, fmt.Errorf("%s: %w: items[%d] of the %s is no object", d.Place(), ErrSyntax, i, o.Kind)
		}
		// The items of a PodList have no kind of their own.
		if of.Kind != "" {
			item.APIVersion, item.Kind = of.APIVersion, of.Kind
		}
		if item.Kind == "" {
			return nil, fmt.Errorf("%s: %w: items[%d] of the %s has no kind", d.Place(), ErrSyntax, i, o.Kind)
		}
		all = append(all, item)
	}
	return all, nil
}
