package subnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// DefaultBackend is the backend of a config that names none. flannel's code then takes udp, its documentation says
// vxlan; selvage has no backend udp.
const DefaultBackend = "vxlan"

// maxConfig bounds the size of a network config in bytes.
const maxConfig = 64 << 10

// Config is the cluster's network config, the value of <prefix>/config, with every default filled in.
type Config struct {
	Ranges   [2]Range // by Family; at least one is enabled
	NFTables *bool    // EnableNFTables; nil if the config does not say, then the node chooses
	Backend  Backend
	// Encrypted says that Encryption is "required": no node sends to one whose lease has no backend that encrypts. In a
	// move from another backend that begins once all nodes are reached by the one that encrypts.
	Encrypted bool
}

// Backend is the config's Backend object. Which options there are is the backend's own business: each reads Options.
type Backend struct {
	Type    string // for example "vxlan", "host-gw"
	Options []byte // the whole Backend object as JSON, Type included; nil if there is none
}

// configJSON is the config as written. Pointers tell a field that is absent from one that is zero. encoding/json
// matches names without regard to case, as flannel does.
type configJSON struct {
	EnableIPv4, EnableIPv6, EnableNFTables *bool
	Network, SubnetMin, SubnetMax          *string
	SubnetLen                              *int
	IPv6Network                            *string
	IPv6SubnetMin, IPv6SubnetMax           *string
	IPv6SubnetLen                          *int
	Backend                                json.RawMessage
	Encryption                             *string
}

// ParseConfig reads a network config. Fields it does not know are ignored. An error names the field, its value and what
// would be right.
func ParseConfig(data []byte) (Config, error) { return parseWrapped(data, false) }

// ParseAllocatedConfig is [ParseConfig] for a store that gives the nodes their subnets ([Allocator]), of whatever
// length. SubnetLen, SubnetMin, SubnetMax and the same of IPv6 have no effect then, and are not checked: flannel does
// not check them either. The ranges have no Min and no Max.
func ParseAllocatedConfig(data []byte) (Config, error) { return parseWrapped(data, true) }

func parseWrapped(data []byte, allocated bool) (Config, error) {
	c, err := parseConfig(data, allocated)
	if err != nil {
		return Config{}, fmt.Errorf("network config: %w", err)
	}
	return c, nil
}

func parseConfig(data []byte, allocated bool) (Config, error) {
	var c Config
	if len(data) > maxConfig {
		return c, fmt.Errorf("is %d bytes long, want at most %d", len(data), maxConfig)
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return c, fmt.Errorf(`is empty, want at least {"Network": "10.5.0.0/16"}`)
	}
	var j configJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return c, describeJSON(data, err)
	}
	enabled := [2]bool{IPv4: j.EnableIPv4 == nil || *j.EnableIPv4, IPv6: j.EnableIPv6 != nil && *j.EnableIPv6}
	if enabled == [2]bool{} {
		return c, fmt.Errorf("EnableIPv4 and EnableIPv6 are both false, want at least one of them true")
	}
	fields := [2]rangeFields{
		IPv4: {prefix: "", network: j.Network, length: j.SubnetLen, min: j.SubnetMin, max: j.SubnetMax},
		IPv6: {
			prefix: "IPv6", network: j.IPv6Network, length: j.IPv6SubnetLen, min: j.IPv6SubnetMin, max: j.IPv6SubnetMax,
		},
	}
	for _, f := range Families() {
		if !enabled[f] {
			continue
		}
		r, err := fields[f].parse(f, allocated)
		if err != nil {
			return c, err
		}
		c.Ranges[f] = r
	}
	c.NFTables = j.EnableNFTables
	if e := j.Encryption; e != nil && *e != "" {
		if c.Encrypted = *e == requireEncryption; !c.Encrypted {
			return c, fmt.Errorf("%s is %s, want %q, or no such key", "Encryption", quote(*e), requireEncryption)
		}
	}
	var err error
	c.Backend, err = parseBackend(j.Backend)
	return c, err
}

// requireEncryption is the value of Encryption.
const requireEncryption = "required"

func parseBackend(raw json.RawMessage) (Backend, error) {
	b := Backend{Type: DefaultBackend}
	if len(raw) == 0 || string(raw) == "null" {
		return b, nil
	}
	var j struct{ Type *string }
	if err := json.Unmarshal(raw, &j); err != nil {
		return b, fmt.Errorf("Backend: %w", describeJSON(raw, err))
	}
	if j.Type != nil && *j.Type != "" {
		b.Type = strings.ToLower(*j.Type) // as flannel does
	}
	if err := checkText("Type", b.Type, maxBackendType); err != nil {
		return b, fmt.Errorf("Backend: %w", err)
	}
	b.Options = raw
	return b, nil
}

// rangeFields are one family's fields as written; prefix is what their names begin with.
type rangeFields struct {
	prefix            string
	network, min, max *string
	length            *int
}

// name spells a field as the config does: SubnetLen, IPv6SubnetLen.
func (j rangeFields) name(field string) string { return j.prefix + field }

func (j rangeFields) parse(f Family, allocated bool) (Range, error) {
	var r Range
	network, err := j.parseNetwork(f)
	if err != nil {
		return r, err
	}
	if r.Network = network; allocated {
		return r, nil
	}
	lim := limitsOf(f)
	shortest := network.Bits() + minSplit
	if j.length == nil || *j.length == 0 { // flannel takes the zero value for none, in the bounds too
		r.SubnetLen = max(lim.defaultLen, shortest)
	} else if r.SubnetLen = *j.length; r.SubnetLen < shortest || r.SubnetLen > lim.maxLen {
		return r, fmt.Errorf("%s is %d, want %d to %d with %s %s",
			j.name("SubnetLen"), r.SubnetLen, shortest, lim.maxLen, j.name("Network"), network)
	}
	// The first subnet is left out by default, as in flannel: its network address is the network's own.
	first := number(network.Addr()).add(uint128{0, 1}.shl(f.Bits() - r.SubnetLen)).addr(f == IPv4)
	if r.Min, err = j.parseBound("SubnetMin", j.min, first, r, f); err != nil {
		return r, err
	}
	if r.Max, err = j.parseBound("SubnetMax", j.max, lastSubnet(network, r.SubnetLen), r, f); err != nil {
		return r, err
	}
	if r.Min.Compare(r.Max) > 0 {
		return r, fmt.Errorf("%s %s is above %s %s, want it below or equal",
			j.name("SubnetMin"), r.Min, j.name("SubnetMax"), r.Max)
	}
	return r, nil
}

func (j rangeFields) parseNetwork(f Family) (netip.Prefix, error) {
	example := "10.5.0.0/16"
	if f == IPv6 {
		example = "fd00:5::/56"
	}
	name := j.name("Network")
	if j.network == nil {
		return netip.Prefix{}, fmt.Errorf(
			"%s is missing, want the %s network of the cluster, such as %q (or Enable%s false)",
			name, f, example, f)
	}
	p, err := netip.ParsePrefix(*j.network)
	if err != nil || FamilyOf(p.Addr()) != f || p.Addr().Is4In6() {
		return p, fmt.Errorf("%s is %s, want an %s network such as %q", name, quote(*j.network), f, example)
	}
	p = p.Masked()
	if longest := limitsOf(f).maxNetwork; p.Bits() > longest {
		return p, fmt.Errorf("%s is %s, want a length of %d or less: there must be room for subnets",
			name, quote(*j.network), longest)
	}
	if a := p.Addr(); a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return p, fmt.Errorf("%s is %s, want a unicast network such as %q", name, quote(*j.network), example)
	}
	return p, nil
}

func (j rangeFields) parseBound(field string, text *string, def netip.Addr, r Range, f Family) (netip.Addr, error) {
	if text == nil || *text == "" {
		return def, nil
	}
	name := j.name(field)
	a, err := netip.ParseAddr(*text)
	if err == nil && FamilyOf(a) == f && a.IsUnspecified() {
		return def, nil
	}
	if err != nil || FamilyOf(a) != f || a.Zone() != "" {
		return a, fmt.Errorf("%s is %s, want an %s address in %s such as %q", name, quote(*text), f, r.Network, def)
	}
	if !r.Network.Contains(a) {
		return a, fmt.Errorf("%s is %s, want an address inside %s %s", name, quote(*text), j.name("Network"), r.Network)
	}
	if p := subnetAt(a, r.SubnetLen); p.Addr() != a {
		return a, fmt.Errorf("%s is %s, want the first address of a /%d subnet, such as %q",
			name, quote(*text), r.SubnetLen, p.Addr())
	}
	return a, nil
}
