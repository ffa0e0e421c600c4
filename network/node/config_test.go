package node

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

func configOf(t *testing.T, json string) subnet.Config {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseConfig(t *testing.T) {
	const valid = `{"Network":"10.5.0.0/16"}`
	current := configOf(t, valid)
	for _, x := range []struct {
		name    string
		data    []byte
		current *subnet.Config
		want    string // of the error; empty: none
	}{
		{"the first", []byte(valid), nil, ""},
		{"another", []byte(`{"Network":"10.6.0.0/16"}`), &current, ""},
		{"none yet", nil, nil, errNoConfig.Error()},
		{"deleted", nil, &current, errConfigDeleted.Error()},
		{"the first is invalid", []byte(`{`), nil, "; waiting for a valid one"},
		{"another is invalid", []byte(`{`), &current, "; the current one stays in force"},
		{"a backend in capitals", []byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"VXLAN"}}`), nil, ""},
		{"a device name that is too long", []byte(`{"Network":"10.5.0.0/16","Backend":{"VNI":16777215}}`), nil,
			"Backend.VNI is 16777215, want at most 9999999"},
		{"encrypted", []byte(`{"Network":"10.5.0.0/16","Encryption":"required","Backend":{"Type":"wireguard"}}`), nil, ""},
		{"not encrypted", []byte(`{"Network":"10.5.0.0/16","Encryption":"required"}`), &current,
			"network config: Encryption is required, and the backend vxlan does not encrypt: set Backend.Type to wireguard, " +
				"or remove Encryption; the current one stays in force"},
		{"unknown backend", []byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"pigeon"}}`), &current, `"pigeon"`},
	} {
		c, err := parseConfig(subnet.StoreEtcd, x.data, x.current)
		if x.want == "" {
			if err != nil || !c.Ranges[subnet.IPv4].Enabled() {
				t.Errorf("%s: %+v, %v", x.name, c, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: error %v, want %q", x.name, err, x.want)
		}
	}
	if _, err := parseConfig(subnet.StoreEtcd, nil, nil); !errors.Is(err, errNoConfig) {
		t.Errorf("%v is not errNoConfig", err)
	}
}

// TestConfigChange: what may change while the node runs, and what may not.
func TestConfigChange(t *testing.T) {
	const before = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	own := [2]netip.Prefix{subnet.IPv4: netip.MustParsePrefix("10.5.1.0/24")}
	for _, x := range []struct{ name, after, want string }{
		{"the same", before, ""},
		{"direct routing", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`, ""},
		{"a larger network", `{"Network":"10.4.0.0/15","Backend":{"Type":"vxlan"}}`, ""},
		{"a network without our lease", `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}`, "this node's lease does not fit"},
		{"another family", `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`, "it turns IPv6 on"},
		{"another VNI", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7}}`, "VNI 7"},
		{"another port", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","Port":4789}}`, "port 4789"},
		{"no device", `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, "it needs other devices"},
	} {
		have, want := configOf(t, before), configOf(t, x.after)
		a, err := newBackend(have, desiredUnderlay(have))
		if err != nil {
			t.Fatal(err)
		}
		b, err := newBackend(want, desiredUnderlay(want))
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(sameFamilies(have, want), covers(want, own), sameDevices(a, b))
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}
