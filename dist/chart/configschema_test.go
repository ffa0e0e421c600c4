package chart

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestNetworkConfigSchema compares the schema of the network config with what "selvaged config check" says: what the
// schema rejects is invalid or has a key without effect, and what is valid and has none is valid by the schema.
func TestNetworkConfigSchema(t *testing.T) {
	data, err := os.ReadFile("../../Documentation/network-config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	const (
		ok      = "ok"      // both accept it
		bad     = "bad"     // both reject it
		depends = "depends" // only the daemon knows that it is wrong
	)
	v4 := func(more string) string { return `{"Network":"10.5.0.0/16"` + more + `}` }
	backend := func(text string) string { return v4(`,"Backend":{` + text + `}`) }
	for config, want := range map[string]string{
		`{}`: bad, `[]`: bad, `"x"`: bad, v4(""): ok, `{"Network":null}`: bad, `{"Network":7}`: bad,
		`{"Network":"10.5.0.0/28"}`: ok, `{"Network":"10.5.0.0/29"}`: bad, `{"Network":"10.5.0.0"}`: bad,
		`{"Network":"fd00::/56"}`: bad, `{"Network":"127.0.0.0/8"}`: depends, `{"Network":"10.5.0.0/0"}`: bad,
		v4(`,"$schema":"x"`): ok, v4(`,"SubnetLength":24`): bad, v4(`,"Backend":null`): ok, v4(`,"Backend":{}`): ok,
		v4(`,"SubnetLen":24`): ok, v4(`,"SubnetLen":"24"`): bad, v4(`,"SubnetLen":31`): bad, v4(`,"SubnetLen":-1`): bad,
		v4(`,"SubnetLen":17`): depends, v4(`,"SubnetLen":0`): ok, v4(`,"SubnetLen":null`): ok, v4(`,"SubnetLen":24.5`): bad,
		v4(`,"SubnetMin":"10.5.10.0","SubnetMax":"10.5.20.0"`): ok, v4(`,"SubnetMin":""`): ok, v4(`,"SubnetMin":"x"`): bad,
		v4(`,"SubnetMin":"10.6.0.0"`): depends, v4(`,"SubnetMax":7`): bad, v4(`,"EnableNFTables":true`): ok,
		v4(`,"Encryption":"required","Backend":{"Type":"wireguard"}`): ok, v4(`,"Encryption":""`): ok,
		v4(`,"Encryption":"required"`): depends, v4(`,"Encryption":"on"`): bad, v4(`,"Encryption":true`): bad,
		v4(`,"EnableNFTables":"yes"`): bad, v4(`,"EnableIPv4":true`): ok, v4(`,"EnableIPv4":null`): ok,
		`{"EnableIPv4":false,"Network":"10.5.0.0/16"}`: bad, v4(`,"EnableIPv6":true`): bad,
		v4(`,"EnableIPv6":true,"IPv6Network":"fd00:5::/56"`):                                                      ok,
		v4(`,"EnableIPv6":true,"IPv6Network":"fd00:5::/125"`):                                                     bad,
		v4(`,"EnableIPv6":true,"IPv6Network":"10.6.0.0/16"`):                                                      bad,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`:                                      ok,
		v4(`,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","IPv6SubnetLen":64,"IPv6SubnetMin":"fd00:5:0:10::"`):   ok,
		v4(`,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","IPv6SubnetLen":127`):                                  bad,
		v4(`,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","IPv6SubnetMax":"10.5.0.0"`):                           bad,
		v4(`,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"VNI":10000}`):                              depends,
		backend(`"Type":"vxlan","VNI":7,"Port":4789,"MTU":1400,"GBP":true,"Learning":false,"DirectRouting":true`): ok,
		backend(`"Type":"vxlan","VNI":9999999`):                                                                   ok,
		backend(`"Type":"vxlan","VNI":10000000`):                                                                  bad,
		backend(`"VNI":-1`):                                                                                       bad,
		backend(`"VNI":"1"`):                                                                                      bad,
		backend(`"Port":65536`):                                                                                   bad,
		backend(`"Port":0`):                                                                                       ok,
		backend(`"MTU":100`):                                                                                      depends,
		backend(`"MTU":70000`):                                                                                    bad,
		backend(`"GBP":1`):                                                                                        bad,
		backend(`"vnid":1`):                                                                                       bad,
		backend(`"Type":"host-gw"`):                                                                               ok,
		backend(`"Type":"host-gw","VNI":1`):                                                                       bad,
		backend(`"Type":"wireguard"`):                                                                             ok,
		backend(`"Type":"wireguard","PSK":"cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA=","MTU":1400,"Mode":"auto"`): ok,
		backend(`"Type":"wireguard","ListenPort":7,"ListenPortV6":8,"PersistentKeepaliveInterval":25`):              ok,
		backend(`"Type":"wireguard","PSK":"c2hvcnQ="`):                                                              bad,
		backend(`"Type":"wireguard","PSK":7`):                                                                       bad,
		backend(`"Type":"wireguard","Mode":"both"`):                                                                 bad,
		backend(`"Type":"wireguard","Mode":"ipv6"`):                                                                 depends,
		backend(`"Type":"wireguard","ListenPort":65536`):                                                            bad,
		backend(`"Type":"wireguard","VNI":1`):                                                                       bad,
		backend(`"Type":"udp"`):                                                                                     bad,
		backend(`"Type":7`):                                                                                         bad,
		v4(`,"Backend":"vxlan"`):                                                                                    bad,
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(config))
		if err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		valid := schema.Validate(value) == nil
		cmd := exec.Command("../../bin/selvaged", "config", "check", "-")
		cmd.Stdin = strings.NewReader(config)
		out, err := cmd.CombinedOutput()
		accepted := err == nil && !strings.Contains(string(out), "key without effect")
		if valid != (want != bad) || accepted != (want == ok) {
			t.Errorf("%s: valid by the schema %t, want %s; config check:\n%s", config, valid, want, out)
		}
	}
}

// TestNetworkConfigSchemaIsComplete: the schema has the keys of the documentation, each with a description.
func TestNetworkConfigSchemaIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../Documentation/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../../Documentation/network-config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type property struct {
		Description string
		AnyOf       []struct{ Properties map[string]property }
	}
	var schema struct{ Properties map[string]property }
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	add := func(within string, of map[string]property) {
		for key, p := range of {
			keys[within+key] = true
			if p.Description == "" {
				t.Errorf("%s%s has no description", within, key)
			}
		}
	}
	add("", schema.Properties)
	for _, x := range schema.Properties["Backend"].AnyOf {
		add("Backend.", x.Properties)
	}
	delete(keys, "$schema")
	delete(keys, "Backend")
	table, _, _ := strings.Cut(string(page), "\n\nRunning nodes follow")
	for key := range keys {
		if !strings.Contains(table, "`"+key+"`") {
			t.Errorf("%s is not in the table of configuration.md", key)
		}
	}
	if n := strings.Count(table, "| `Backend."); n != countBackend(keys) {
		t.Errorf("the table of configuration.md has %d keys of Backend, and the schema %d", n, countBackend(keys))
	}
}

func countBackend(keys map[string]bool) (n int) {
	for key := range keys {
		if strings.HasPrefix(key, "Backend.") {
			n++
		}
	}
	return n
}
