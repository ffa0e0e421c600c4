package kubetest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// fields are those of an object in JSON.
type fields = map[string]any

// object is one version of an object. It does not change.
type object struct {
	version int64
	json    []byte // without its resourceVersion
}

// newObject encodes fields.
func newObject(f fields) (*object, error) {
	delete(metadata(f), "resourceVersion")
	data, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("kubetest: encode object %q: %w", text(metadata(f), "name"), err)
	}
	return &object{json: data}, nil
}

// fields decodes the object at its version.
func (o *object) fields() (fields, error) {
	f, err := decode(o.json)
	if err != nil {
		return nil, fmt.Errorf("kubetest: decode object of version %d: %w", o.version, err)
	}
	metadata(f)["resourceVersion"] = strconv.FormatInt(o.version, 10)
	return f, nil
}

// at is the object as it is reported with another version: a deletion has one of its own.
func (o *object) at(version int64) *object { return &object{version: version, json: o.json} }

// decode decodes an object.
func decode(data []byte) (fields, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var f fields
	err := d.Decode(&f)
	return f, err
}

// sub returns an object within one, which is created if it is missing.
func sub(f fields, name string) fields {
	if m, ok := f[name].(fields); ok {
		return m
	}
	m := fields{}
	f[name] = m
	return m
}

func metadata(f fields) fields { return sub(f, "metadata") }

// text returns a string within an object.
func text(f fields, name string) string {
	s, _ := f[name].(string)
	return s
}

// born sets what the server gives to a new object.
func born(f fields) {
	m := metadata(f)
	m["uid"] = newUID()
	m["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
}

// newUID returns a random UUID (RFC 9562, version 4).
func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// partial returns an object's metadata, as PartialObjectMetadata.
func partial(f fields) fields {
	return fields{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": f["metadata"]}
}

// clone copies what was decoded from JSON.
func clone(v any) any {
	switch v := v.(type) {
	case fields:
		c := make(fields, len(v))
		for k, e := range v {
			c[k] = clone(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = clone(e)
		}
		return c
	}
	return v
}
