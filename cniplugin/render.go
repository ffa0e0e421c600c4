package cniplugin

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// Default delegates.
const (
	defaultDelegate = "bridge"
	defaultIPAM     = "host-local"
)

// rendered is a JSON object under construction. Its values are raw JSON of the user's, or Go values.
type rendered map[string]any

// start returns a copy of the user's object.
func start(o object) rendered {
	r := make(rendered, len(o)+8)
	for key, value := range o {
		r[key] = value
	}
	return r
}

// setDefault sets a key that the user did not set.
func (r rendered) setDefault(key string, value any) {
	if _, ok := r[key]; !ok {
		r[key] = value
	}
}

// render returns the delegate's configuration: the keys of n.Delegate, and those derived from n and the subnet file.
// The same input gives the same bytes (encoding/json sorts the keys of maps).
func render(n netConf, f subnetfile.File) (d delegation, err error) {
	for _, key := range []string{"name", "ipam"} {
		if _, ok := n.Delegate[key]; ok {
			return d, fmt.Errorf("delegate holds %q, want it one level up, beside \"delegate\"", key)
		}
	}
	if d.plugin, err = n.Delegate.pluginType(defaultDelegate); err != nil {
		return d, fmt.Errorf("delegate: %w", err)
	}
	r := start(n.Delegate)
	r["name"] = n.Name
	r["type"] = d.plugin
	if n.CNIVersion != "" {
		r["cniVersion"] = n.CNIVersion
	}
	// Exactly one of the daemon and the delegate masquerades packets that leave the overlay.
	r.setDefault("ipMasq", !f.IPMasq)
	if f.MTU != 0 {
		r.setDefault("mtu", f.MTU)
	}
	if d.plugin == defaultDelegate {
		hairpin, err := wantHairpin(n.Delegate)
		if err != nil {
			return d, fmt.Errorf("delegate: %w", err)
		}
		if hairpin {
			r.setDefault("hairpinMode", true)
		}
		// The bridge holds the subnet's first address: what the subnet file says, and where the containers' routes go.
		r.setDefault("isGateway", true)
	}
	if given(n.RuntimeConfig) {
		r["runtimeConfig"] = n.RuntimeConfig
	}
	if given(n.Args) {
		r.setDefault("args", n.Args)
	}
	if given(n.PrevResult) {
		r["prevResult"] = n.PrevResult
	}
	if r["ipam"], err = renderIPAM(n.IPAM, f); err != nil {
		return d, fmt.Errorf("ipam: %w", err)
	}
	d.config, err = json.Marshal(r)
	return d, err
}

// wantHairpin reports whether hairpin mode is to be on unless the user says otherwise. Without it a container cannot
// reach itself through the address of a service: the packet would have to leave by the bridge port it came in by. But
// the bridge plugin refuses hairpin and promiscuous mode together, so promiscuous mode, if set, disables hairpin mode.
func wantHairpin(delegate object) (bool, error) {
	mode, ok := delegate["promiscMode"]
	if !ok {
		return true, nil
	}
	var promiscuous bool
	if err := json.Unmarshal(mode, &promiscuous); err != nil {
		return false, fmt.Errorf("promiscMode is %.80s, want true or false", mode)
	}
	return !promiscuous, nil
}

// renderIPAM makes the address management's part: one range a family, so that a container gets an address of each, and
// a route to each of the overlay's networks beside the given ones.
func renderIPAM(ipam object, f subnetfile.File) (rendered, error) {
	type ipRange struct {
		Subnet netip.Prefix `json:"subnet"`
	}
	type route struct {
		Dst netip.Prefix `json:"dst"`
	}
	plugin, err := ipam.pluginType(defaultIPAM)
	if err != nil {
		return nil, err
	}
	var routes []any
	if raw, ok := ipam["routes"]; ok {
		var own []json.RawMessage
		if err := json.Unmarshal(raw, &own); err != nil {
			return nil, fmt.Errorf("routes is %.80s, want an array such as [{\"dst\":\"0.0.0.0/0\"}]", raw)
		}
		for _, r := range own {
			routes = append(routes, r)
		}
	}
	var ranges [][]ipRange
	for _, family := range subnet.Families() {
		if s := f.Subnets[family]; s.IsValid() {
			ranges = append(ranges, []ipRange{{s.Masked()}})
		}
		for _, network := range f.Networks[family] {
			routes = append(routes, route{network})
		}
	}
	r := start(ipam)
	r["type"] = plugin
	r["ranges"] = ranges
	r["routes"] = routes
	return r, nil
}

// pluginType returns the object's "type", or def if it has none: the name of a program to be found in CNI_PATH.
func (o object) pluginType(def string) (string, error) {
	raw, ok := o["type"]
	if !ok {
		return def, nil
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return "", fmt.Errorf("type is %.80s, want a string such as %q", raw, def)
	}
	// A path would run a program from outside the directories that the runtime allows.
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return "", fmt.Errorf("type is %q, want the name of a plugin such as %q, without a path", name, def)
	}
	return name, nil
}

// given reports whether the user gave a value; null is none.
func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// refresh returns a stored configuration as a later verb passes it on. The runtime passes again what the ADD of the
// whole chain resulted in (CNI spec, sections DEL and CHECK), in the version that it speaks now; the rest is as it was
// at ADD.
func refresh(stored object, n netConf) (d delegation, err error) {
	if d.plugin, err = stored.pluginType(defaultDelegate); err != nil {
		return d, err
	}
	r := start(stored)
	delete(r, "prevResult")
	delete(r, interfaceKey)
	if given(n.PrevResult) {
		r["prevResult"] = n.PrevResult
		if n.CNIVersion != "" {
			r["cniVersion"] = n.CNIVersion
		}
	}
	d.config, err = json.Marshal(r)
	return d, err
}

// with returns a delegation with one key of its configuration set.
func (d delegation) with(key string, value any) (delegation, error) {
	var o object
	if err := json.Unmarshal(d.config, &o); err != nil {
		return d, err
	}
	r := start(o)
	r[key] = value
	config, err := json.Marshal(r)
	return delegation{d.plugin, config}, err
}

// anyFile stands in for a subnet file at DEL. host-local frees what a container has, whatever the range, but wants one;
// these are for documentation (RFC 5737, RFC 3849) and never in use. Not masqueraded by the daemon means that the
// delegate looks for rules to remove.
func anyFile() subnetfile.File {
	return subnetfile.File{Subnets: [2]netip.Prefix{
		subnet.IPv4: netip.MustParsePrefix("192.0.2.1/24"), subnet.IPv6: netip.MustParsePrefix("2001:db8::1/64"),
	}}
}
