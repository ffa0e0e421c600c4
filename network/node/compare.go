package node

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Comparison is how a network config differs from the one in use.
type Comparison struct {
	Changes []string // "SubnetMin: 10.5.10.0, was not set"
	// Restart is why no running node would follow the change: all of them keep the config in use until they are
	// restarted; nil: they follow it.
	Restart error
	// Refusals are the nodes that cannot follow the change because of their own lease.
	Refusals []Refusal
}

// Refusal is a node that refuses a network config.
type Refusal struct {
	Node   string // its name, if the lease has one
	Lease  string // its key
	Reason error
}

// Compare compares a config with the one in use, for nodes with those leases in a kind of store. Both are as
// [ParseConfig] accepts them, or with hidden secrets, as in the status.
func Compare(kind subnet.StoreKind, before, after []byte, leases []subnet.Record) (c Comparison, err error) {
	have, err := ParseConfig(kind, withoutSecrets(before, ""))
	if err != nil {
		return c, fmt.Errorf("the config in use: %w", err)
	}
	want, err := ParseConfig(kind, withoutSecrets(after, ""))
	if err != nil {
		return c, err
	}
	c.Changes = changes(before, after)
	if c.Restart = sameFamilies(have, want); c.Restart == nil {
		c.Restart = sameKind(have, want)
	}
	for _, r := range leases {
		var subnets [2]netip.Prefix
		var ips [2]netip.Addr
		for _, f := range subnet.Families() {
			if r.Has(f) {
				subnets[f], ips[f] = r.Endpoints[f].Subnet, r.Endpoints[f].PublicIP
			}
		}
		if err := errors.Join(covers(want, subnets), apart(want, ips)); err != nil {
			c.Refusals = append(c.Refusals, Refusal{Node: r.NodeName, Lease: r.Name, Reason: err})
		}
	}
	return c, nil
}

// sameKind returns why a live device cannot become that of another config, or nil. It compares the devices that a node
// would have.
func sameKind(have, want subnet.Config) error {
	if movable(have.Backend.Type, want.Backend.Type) {
		return nil
	}
	if have.Backend.Type != want.Backend.Type {
		return fmt.Errorf("it changes Backend.Type from %s to %s", have.Backend.Type, want.Backend.Type)
	}
	some := backend.Underlay{
		Link: "the uplink", MTU: 65535, Keep: someKeeper{},
		Local: [2]netip.Addr{subnet.IPv4: netip.MustParseAddr("192.0.2.1"),
			subnet.IPv6: netip.MustParseAddr("2001:db8::1")},
	}
	before, err := newBackend(have, some)
	if err != nil {
		return err
	}
	after, err := newBackend(want, some)
	if err != nil {
		return err
	}
	return sameDevices(before, after)
}

// someKeeper is the [backend.Keeper] of a node that does not exist.
type someKeeper struct{}

// MAC implements [backend.Keeper].
func (someKeeper) MAC(string, network.MAC) network.MAC { return network.MAC{2, 0, 0, 0, 0, 1} }

// Secret implements [backend.Keeper].
func (someKeeper) Secret(_ string, _ int, generate func() ([]byte, error)) ([]byte, error) {
	return generate()
}

// changes lists which keys have another value.
func changes(before, after []byte) (all []string) {
	was, is := values(before), values(after)
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		switch now, old := is[key], was[key]; {
		case now == old:
		case now.hidden || old.hidden: // one of them is not known
		case now.secret || old.secret:
			all = append(all, cmp.Or(now.name, old.name)+": another one, which is not shown")
		case old.text == "":
			all = append(all, fmt.Sprintf("%s: %s, was not set", now.name, now.text))
		case now.text == "":
			all = append(all, fmt.Sprintf("%s: not set, was %s", old.name, old.text))
		case now.text != old.text:
			all = append(all, fmt.Sprintf("%s: %s, was %s", now.name, now.text, old.text))
		}
	}
	return all
}

// value is one key of a config as written, and its value as JSON.
type value struct {
	name, text string
	secret     bool // the value is not to be shown
	hidden     bool // and it is not known
}

// values returns the values of a config by their keys in lower case, those in Backend as "backend.vni".
func values(data []byte) map[string]value {
	all := map[string]value{}
	var add func(within string, data []byte)
	add = func(within string, data []byte) {
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil {
			return
		}
		for name, raw := range object {
			if within == "" && strings.EqualFold(name, "Backend") {
				add("Backend.", raw)
				continue
			}
			var compact bytes.Buffer
			if json.Compact(&compact, raw) == nil {
				v := value{name: within + name, text: compact.String(), secret: within != "" && isSecret(name)}
				v.hidden = v.secret && v.text == `"`+hiddenSecret+`"`
				all[strings.ToLower(within+name)] = v
			}
		}
	}
	add("", data)
	return all
}

// BackendMTU returns Backend.MTU of a config; 0: it is not set.
func BackendMTU(data []byte) (mtu int) {
	_ = json.Unmarshal([]byte(values(data)["backend.mtu"].text), &mtu) // what is not a number is not set
	return mtu
}
