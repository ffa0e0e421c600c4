package vxlan

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

const (
	// defaultPort is the kernel's (drivers/net/vxlan/vxlan_core.c), from before IANA assigned 4789; flannel keeps it.
	defaultPort = 8472
	defaultVNI  = 1
	maxVNI      = 1<<24 - 1 // RFC 7348 section 5
	maxMTU      = 65535
)

// Options are the fields of the config's Backend object, with defaults filled in.
type Options struct {
	VNI      uint32
	Port     uint16
	MTU      int // of the underlay; 0: the uplink's
	GBP      bool
	Learning bool
	// DirectRouting: peers that the uplink reaches without a gateway get a route, and no tunnel.
	DirectRouting bool
}

// optionsJSON is the Backend object as JSON. Missing fields are nil.
type optionsJSON struct {
	VNI, Port, MTU               *int64
	GBP, Learning, DirectRouting *bool
}

// keys returns the keys of the Backend object, beside Type.
func keys() (names []string) {
	for f := range reflect.TypeFor[optionsJSON]().Fields() {
		names = append(names, f.Name)
	}
	return names
}

// parseOptions reads the Backend object; nil is one without fields.
func parseOptions(data []byte) (Options, error) {
	o := Options{VNI: defaultVNI, Port: defaultPort}
	if len(data) == 0 {
		return o, nil
	}
	var j optionsJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return o, fmt.Errorf("network config: Backend%w", describe(err))
	}
	vni, err := number("VNI", j.VNI, defaultVNI, maxVNI)
	if err != nil {
		return o, err
	}
	port, err := number("Port", j.Port, defaultPort, 65535)
	if err != nil {
		return o, err
	}
	mtu, err := number("MTU", j.MTU, 0, maxMTU)
	if err != nil {
		return o, err
	}
	if port == 0 {
		port = defaultPort
	}
	o.VNI, o.Port, o.MTU = uint32(vni), uint16(port), int(mtu)
	o.GBP, o.Learning, o.DirectRouting = isTrue(j.GBP), isTrue(j.Learning), isTrue(j.DirectRouting)
	return o, nil
}

// describe says what in a JSON object is of the wrong type, without repeating it: the decoder gives the digits of a
// number, however many.
func describe(err error) error {
	var typ *json.UnmarshalTypeError
	if !errors.As(err, &typ) {
		return fmt.Errorf(": %w", err)
	}
	kind, _, _ := strings.Cut(typ.Value, " ")
	if typ.Field == "" {
		return fmt.Errorf(" is a JSON %s, want an object", kind)
	}
	want := typ.Type.String()
	switch typ.Type.Kind() {
	case reflect.Bool:
		want = "true or false"
	case reflect.Int64:
		want = "a whole number"
	}
	return fmt.Errorf(".%s is a JSON %s, want %s", typ.Field, kind, want)
}

func number(field string, v *int64, def, limit int64) (int64, error) {
	if v == nil {
		return def, nil
	}
	if *v < 0 || *v > limit {
		return 0, fmt.Errorf("network config: Backend.%s is %d, want 0 to %d", field, *v, limit)
	}
	return *v, nil
}

func isTrue(b *bool) bool { return b != nil && *b }
