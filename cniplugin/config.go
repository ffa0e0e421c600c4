package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	records "github.com/selvage-net/selvage/subnet/attachment"
)

// Default directories and files; they are flannel's.
const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
)

// object is a JSON object of which only some keys concern us. The others pass through as they are: a number that no
// float64 holds, or an order of keys, must not change in a message that is only passed on.
type object map[string]json.RawMessage

// netConf is the network configuration, as libcni passes it on standard input.
type netConf struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	SubnetFile string `json:"subnetFile"`
	DataDir    string `json:"dataDir"`
	IPAM       object `json:"ipam"`
	Delegate   object `json:"delegate"`

	// Not supported by flannel's plugin.
	SubnetFileWait float64 `json:"subnetFileWait"` // seconds; see [netConf.wait]
	RepairBridge   bool    `json:"repairBridge"`

	// What ADD does while the daemon enforces network policies.
	PolicyWait    *float64 `json:"policyWait"`    // seconds; see [netConf.policyWait]
	PolicyFailure string   `json:"policyFailure"` // what is done after that: records.FailureIsolate or FailureFail

	// Added by the runtime, passed on unchanged.
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	Args          json.RawMessage `json:"args"`
	PrevResult    json.RawMessage `json:"prevResult"`

	// GC only; the second name is one that older runtimes use.
	Valid      json.RawMessage `json:"cni.dev/valid-attachments"`
	ValidOlder json.RawMessage `json:"cni.dev/attachments"`

	// Derived from the above.
	valid      []types.GCAttachment // attachments to keep
	listsValid bool                 // the runtime sent the list, which may be empty
	wait       time.Duration        // how long ADD waits for a missing subnet file
	policyWait time.Duration        // how long ADD waits for the rules of a pod; 0: not at all
}

// parseNetConf decodes a network configuration. It checks types only: at DEL, a delegate that may not be so must not
// stand in the way of what was stored when it was otherwise.
func parseNetConf(data []byte) (netConf, error) {
	var n netConf
	if err := json.Unmarshal(data, &n); err != nil {
		if typ, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && typ.Field != "" {
			return n, fmt.Errorf("%s is a JSON %s, want %s", typ.Field, typ.Value, wantedType(typ.Field))
		}
		return n, fmt.Errorf("not a JSON object: %w", err)
	}
	if n.SubnetFileWait < 0 || n.SubnetFileWait > maxWait.Seconds() {
		return n, fmt.Errorf("subnetFileWait is %v, want a number of seconds from 0 to %v",
			n.SubnetFileWait, maxWait.Seconds())
	}
	n.wait = time.Duration(n.SubnetFileWait * float64(time.Second))
	if err := n.parsePolicies(); err != nil {
		return n, err
	}
	if n.SubnetFile == "" {
		n.SubnetFile = defaultSubnetFile
	}
	if n.DataDir == "" {
		n.DataDir = defaultDataDir
	}
	return n, n.parseValid()
}

func (n *netConf) parsePolicies() error {
	n.policyWait = defaultPolicyWait
	if n.PolicyWait != nil {
		if *n.PolicyWait < 0 || *n.PolicyWait > records.MaxWait.Seconds() {
			return fmt.Errorf("policyWait is %v, want a number of seconds from 0 to %v",
				*n.PolicyWait, records.MaxWait.Seconds())
		}
		n.policyWait = time.Duration(*n.PolicyWait * float64(time.Second))
	}
	if n.PolicyFailure == "" {
		n.PolicyFailure = records.FailureIsolate
	}
	if n.PolicyFailure != records.FailureIsolate && n.PolicyFailure != records.FailureFail {
		return fmt.Errorf("policyFailure is %q, want %q or %q",
			n.PolicyFailure, records.FailureIsolate, records.FailureFail)
	}
	return nil
}

func (n *netConf) parseValid() error {
	raw := n.Valid
	if raw == nil {
		raw = n.ValidOlder
	}
	if raw == nil {
		return nil
	}
	n.listsValid = true // null too: it is how Go writes an empty list
	if err := json.Unmarshal(raw, &n.valid); err != nil {
		return fmt.Errorf(
			`cni.dev/valid-attachments is %.80s, want an array such as [{"containerID":"c1","ifname":"eth0"}]`, raw)
	}
	return nil
}

func wantedType(field string) string {
	switch field {
	case "ipam", "delegate":
		return "an object"
	case "subnetFileWait", "policyWait":
		return "a number of seconds"
	case "repairBridge":
		return "true or false"
	default:
		return "a string"
	}
}
