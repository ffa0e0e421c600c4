package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Where files are unless the network configuration says otherwise; flannel's places.
const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
)

// object is a JSON object of which only some keys concern us. The others pass through as they are: a number that no
// float64 holds, or an order of keys, is nothing to change for somebody who only passes a message on.
type object map[string]json.RawMessage

// netConf is the network configuration, as libcni passes it on standard input.
type netConf struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	SubnetFile string `json:"subnetFile"`
	DataDir    string `json:"dataDir"`
	IPAM       object `json:"ipam"`
	Delegate   object `json:"delegate"`

	// What the runtime adds, passed on as it is.
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	Args          json.RawMessage `json:"args"`
	PrevResult    json.RawMessage `json:"prevResult"`
}

// parseNetConf decodes a network configuration. It checks types only: at DEL, a delegate that may not be so must not
// stand in the way of what was stored when it was otherwise.
func parseNetConf(data []byte) (netConf, error) {
	var n netConf
	if err := json.Unmarshal(data, &n); err != nil {
		if typ, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && typ.Field != "" {
			want := "a string"
			if typ.Field == "ipam" || typ.Field == "delegate" {
				want = "an object"
			}
			return n, fmt.Errorf("%s is a JSON %s, want %s", typ.Field, typ.Value, want)
		}
		return n, fmt.Errorf("not a JSON object: %w", err)
	}
	if n.SubnetFile == "" {
		n.SubnetFile = defaultSubnetFile
	}
	if n.DataDir == "" {
		n.DataDir = defaultDataDir
	}
	return n, nil
}
