package wireguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/selvage-net/selvage/network"
)

// Defaults of [Options]: flannel's.
const (
	defaultPort   = 51820
	defaultPortV6 = 51821
	maxMTU        = 65535
	maxUint16     = 65535
)

// Mode is how many devices a node has, and by which of their addresses peers are reached.
type Mode string

// The modes.
const (
	Separate Mode = "separate" // a device for each family, over an underlay of the same family
	Auto     Mode = "auto"     // one device; see [Options]
	OverIPv4 Mode = "ipv4"     // one device, over IPv4
	OverIPv6 Mode = "ipv6"     // one device, over IPv6
)

// Options are the fields of the config's Backend object, with defaults filled in.
type Options struct {
	PSK          network.Secret // the preshared key of each pair of nodes; zero: none
	ListenPort   uint16
	ListenPortV6 uint16 // of the IPv6 device in mode Separate
	MTU          int    // of the underlay; 0: the uplink's
	// Mode chooses the endpoint of a peer with addresses of both families. Auto takes IPv4, unless both nodes have
	// public IPv6 addresses and the peer's IPv4 address is private.
	Mode      Mode
	Keepalive uint16 // seconds; 0: none
}

// optionsJSON is the Backend object as JSON. Missing fields are nil.
type optionsJSON struct {
	PSK                         *string
	ListenPort, ListenPortV6    *int64
	MTU                         *int64
	Mode                        *string
	PersistentKeepaliveInterval *int64
}

// configKeys returns the keys of the Backend object, beside Type.
func configKeys() (names []string) {
	for f := range reflect.TypeFor[optionsJSON]().Fields() {
		names = append(names, f.Name)
	}
	return names
}

// parseOptions reads the Backend object; nil is one without fields. No error repeats the preshared key.
func parseOptions(data []byte) (o Options, err error) {
	o = Options{ListenPort: defaultPort, ListenPortV6: defaultPortV6, Mode: Separate}
	if len(data) == 0 {
		return o, nil
	}
	var j optionsJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return o, fmt.Errorf("network config: Backend%w", describe(err))
	}
	if j.PSK != nil && *j.PSK != "" {
		if o.PSK, err = network.ParseSecret(*j.PSK); err != nil {
			return o, fmt.Errorf("network config: Backend.PSK %w: \"wg genpsk\" makes such a key", err)
		}
	}
	if o.Mode, err = parseMode(j.Mode); err != nil {
		return o, err
	}
	for _, n := range []struct {
		field string
		from  *int64
		limit int64
		set   func(int64)
	}{
		{"ListenPort", j.ListenPort, maxUint16, func(v int64) { o.ListenPort = orDefault(v, defaultPort) }},
		{"ListenPortV6", j.ListenPortV6, maxUint16, func(v int64) { o.ListenPortV6 = orDefault(v, defaultPortV6) }},
		{"MTU", j.MTU, maxMTU, func(v int64) { o.MTU = int(v) }},
		{"PersistentKeepaliveInterval", j.PersistentKeepaliveInterval, maxUint16,
			func(v int64) { o.Keepalive = uint16(v) }},
	} {
		if n.from == nil {
			continue
		}
		if *n.from < 0 || *n.from > n.limit {
			return o, fmt.Errorf("network config: Backend.%s is %d, want 0 to %d", n.field, *n.from, n.limit)
		}
		n.set(*n.from)
	}
	return o, nil
}

// orDefault returns a port, or the default one for 0: peers have to know it.
func orDefault(v int64, def uint16) uint16 {
	if v == 0 {
		return def
	}
	return uint16(v)
}

func parseMode(text *string) (Mode, error) {
	if text == nil || *text == "" {
		return Separate, nil
	}
	switch m := Mode(strings.ToLower(*text)); m {
	case Separate, Auto, OverIPv4, OverIPv6:
		return m, nil
	}
	return "", fmt.Errorf("network config: Backend.Mode is %.20q, want %s, %s, %s or %s",
		*text, Separate, Auto, OverIPv4, OverIPv6)
}

// describe says what in a JSON object is of the wrong type, without repeating it.
func describe(err error) error {
	var typ *json.UnmarshalTypeError
	if !errors.As(err, &typ) {
		return fmt.Errorf(": it is not valid JSON")
	}
	kind, _, _ := strings.Cut(typ.Value, " ")
	if typ.Field == "" {
		return fmt.Errorf(" is a JSON %s, want an object", kind)
	}
	want := "a text"
	if typ.Type.Kind() != reflect.String {
		want = "a whole number"
	}
	return fmt.Errorf(".%s is a JSON %s, want %s", typ.Field, kind, want)
}
