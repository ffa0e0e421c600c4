// Package mesh is the view of the whole cluster, as selvaged mesh shows it: the [Summary] that each node serves of
// itself, and the [Cluster] that is made of all nodes' answers, what is odd first. It is pure; network/mesh/exchange
// carries the summaries.
//
// The nodes are those with a lease, so a node that does not answer is named. A summary has no texts of errors, no names
// of pods or policies and no network config: those can quote what others must not read. It has codes, counts and times;
// selvaged status on the node itself says the rest.
package mesh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// Path is where a node serves its [Summary].
const Path = "/v1/summary"

// SummaryVersion is the version of [Summary]. Within a version, fields may be added; existing fields keep their names
// and meanings.
const SummaryVersion = 1

// MaxSummary limits the size of an answer, in bytes.
const MaxSummary = 64 << 10

// maxProblems is how many problems a summary lists.
const maxProblems = 32

// Summary is what a node tells other nodes of itself.
type Summary struct {
	Version int           `json:"version"`          // SummaryVersion
	Now     time.Time     `json:"now,omitzero"`     // the node's clock; the other times are by it too
	Age     time.Duration `json:"age_ns,omitempty"` // of the state; it grows while the daemon's loop does not answer

	Node     string       `json:"node"`
	Lease    string       `json:"lease,omitempty"` // its key; empty: it has none yet
	Subnets  []string     `json:"subnets,omitempty"`
	Zone     string       `json:"zone,omitempty"` // see status.Status.Zone
	Selvaged string       `json:"selvaged"`       // the daemon's version
	Kernel   string       `json:"kernel,omitempty"`
	Started  time.Time    `json:"started"`
	State    status.State `json:"state"`
	Since    time.Time    `json:"since"`
	Problems []Problem    `json:"problems,omitempty"`
	More     int          `json:"more_problems,omitempty"` // that are not listed
	Cut      []string     `json:"cut,omitempty"`           // the families whose traffic is cut

	Networks []string `json:"networks,omitempty"` // of the network config in use
	Backend  string   `json:"backend,omitempty"`
	// Encrypted is the number of peers to which packets are sent encrypted; nil: the node has no device that encrypts.
	Encrypted *int   `json:"encrypted_peers,omitempty"`
	Config    string `json:"config,omitempty"` // identifies the network config in use, see ConfigID
	// ConfigRejected: the node cannot use the network config in the store, so it keeps the one in use.
	ConfigRejected bool      `json:"config_rejected,omitempty"`
	FastPath       *FastPath `json:"fast_path,omitempty"` // nil: the daemon's flags turn it off

	MTU    int `json:"mtu,omitempty"`     // of the uplink
	PodMTU int `json:"pod_mtu,omitempty"` // of packets between pods

	Peers   status.PeerCounts `json:"peers"`
	Entries []Entries         `json:"entries,omitempty"` // of the kinds that the node has, by name
	Probes  []Probes          `json:"probes,omitempty"`
	Repairs Count             `json:"repairs"`
	// LastRepairs are the latest repairs, the newest first.
	LastRepairs []Repair `json:"last_repairs,omitempty"`
	// DropsBy are the drops within [Window] by policy, the most first.
	DropsBy []PolicyDrops `json:"drops_by,omitempty"`
	Drops   Count         `json:"policy_drops"` // packets that network policies denied, as far as they were reported
}

// Problem is one of a node's problems, without its text.
type Problem struct {
	Topic   string        `json:"topic"`
	Code    status.Reason `json:"code"`
	Since   time.Time     `json:"since"`
	Warning bool          `json:"warning,omitempty"`
}

// FastPath is the state of a node's fast path.
type FastPath struct {
	InUse bool          `json:"in_use"`
	Code  status.Reason `json:"code,omitempty"` // why it is not
}

// Probes are the results of a node's probes of a few other nodes in one family.
type Probes struct {
	Family string              `json:"family"`
	Peers  []status.ProbedPeer `json:"peers,omitempty"`
	Off    status.Reason       `json:"off,omitempty"` // why none is probed
}

// Unreachable returns the keys of the leases of those that do not answer.
func (p Probes) Unreachable() (keys []string) {
	for _, x := range p.Peers {
		if x.State == status.Unreachable {
			keys = append(keys, x.Key)
		}
	}
	return keys
}

// Reachable counts those that answer.
func (p Probes) Reachable() (n int) {
	for _, x := range p.Peers {
		if x.State == status.Reachable {
			n++
		}
	}
	return n
}

// Entries counts a node's kernel entries of one kind.
type Entries struct {
	Kind    string `json:"kind"` // such as route
	Desired int    `json:"desired"`
	Pending int    `json:"pending"` // out of sync
}

// Repair is a repaired external change to a node's kernel entries, without the entry's key and the process.
type Repair struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	What string    `json:"what"` // missing or changed
}

// PolicyDrops counts packets that network policies denied within [Window].
type PolicyDrops struct {
	Policy    string `json:"policy,omitempty"` // see status.PolicyDrops
	Direction string `json:"direction"`        // ingress or egress
	Cause     string `json:"cause,omitempty"`  // a code: a status.DropCause
	Lately    uint64 `json:"lately"`
}

// Count counts what happened since the start of the daemon, and within [Window].
type Count struct {
	Total  uint64 `json:"total"`
	Lately uint64 `json:"lately"`
}

// accepted returns the number of peers whose lease is accepted.
func (m *Summary) accepted() int { return m.Peers.Programmed + m.Peers.Pending }

// unencrypted returns to how many peers packets are sent that are not encrypted.
func (m *Summary) unencrypted() int {
	if m.Encrypted == nil {
		return m.accepted()
	}
	return max(0, m.accepted()-*m.Encrypted)
}

// Encryption returns to which part of its peers a node sends encrypted packets: "no", "all" or "3 of 4".
func (m *Summary) Encryption() string {
	switch n := m.unencrypted(); {
	case m.Encrypted == nil:
		return "no"
	case n == 0:
		return "all"
	default:
		return fmt.Sprintf("%d of %d", m.accepted()-n, m.accepted())
	}
}

// dropsBy adds up the drops of each policy, direction and cause, whatever the namespace.
func dropsBy(drops []status.PolicyDrops) (all []PolicyDrops) {
	for _, d := range drops {
		by := PolicyDrops{Policy: d.Policy, Direction: d.Direction, Cause: d.Cause}
		i := slices.IndexFunc(all, by.same)
		if i < 0 {
			i = len(all)
			all = append(all, by)
		}
		all[i].Lately += d.Count
	}
	return all
}

// same reports whether two counts are of the same policy, direction and cause.
func (d PolicyDrops) same(other PolicyDrops) bool {
	d.Lately, other.Lately = 0, 0
	return d == other
}

// Summarize returns the summary of a node's status, in which Lately is left to [History], and DropsBy counts from the
// start of the daemon.
func Summarize(s status.Status) Summary {
	m := Summary{
		Version: SummaryVersion, Node: s.Node, Zone: s.Zone, Selvaged: s.Version, Kernel: s.Kernel, Started: s.Started,
		State: s.State, Since: s.Since, Cut: s.Cut,
		Config: ConfigID(s.Config), Networks: networks(s.Config), Peers: s.Peers,
		Repairs: Count{Total: uint64(max(0, s.Repairs.Total))},
	}
	for _, p := range s.Problems {
		m.ConfigRejected = m.ConfigRejected || p.Code == status.ConfigRejected
		if len(m.Problems) == maxProblems {
			m.More++
			continue
		}
		m.Problems = append(m.Problems, Problem{Topic: p.Topic, Code: p.Code, Since: p.Since, Warning: p.Warning})
	}
	if s.Lease != nil {
		m.Lease = s.Lease.Key
		for _, p := range s.Lease.Subnets {
			m.Subnets = append(m.Subnets, p.String())
		}
	}
	if s.Backend != nil {
		m.Backend, m.Encrypted, m.PodMTU = s.Backend.Type, s.Backend.Encrypted, s.Backend.PodMTU
	}
	if s.Uplink != nil {
		m.MTU = s.Uplink.MTU
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Entries)) {
		if c := s.Entries[kind]; c.Wanted > 0 || c.Pending > 0 {
			m.Entries = append(m.Entries, Entries{kind, c.Wanted, c.Pending})
		}
	}
	for _, r := range s.Repairs.Last[:min(len(s.Repairs.Last), maxList)] {
		m.LastRepairs = append(m.LastRepairs, Repair{r.At, r.Kind, r.What})
	}
	if f := s.FastPath; f != nil {
		m.FastPath = &FastPath{InUse: f.InUse, Code: f.Code}
	}
	for _, p := range s.Probes {
		m.Probes = append(m.Probes, Probes{Family: p.Family, Peers: p.Peers, Off: p.Off})
	}
	if s.Enforcement != nil {
		for _, d := range s.Enforcement.Drops {
			m.Drops.Total += d.Count
		}
		m.DropsBy = dropsBy(s.Enforcement.Drops)
	}
	return m
}

// ConfigID identifies a network config: two that differ only in the order of keys and in white space have the same ID.
// It is empty without a config.
func ConfigID(config json.RawMessage) string {
	if len(config) == 0 {
		return ""
	}
	d := json.NewDecoder(bytes.NewReader(config))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err == nil {
		if canonical, err := json.Marshal(value); err == nil {
			config = canonical
		}
	}
	const length = 4 // bytes: enough to tell the few configs of one cluster apart
	sum := sha256.Sum256(config)
	return hex.EncodeToString(sum[:length])
}

// networks returns the networks of a config.
func networks(config json.RawMessage) (all []string) {
	var c struct{ Network, IPv6Network string }
	if json.Unmarshal(config, &c) != nil {
		return nil
	}
	for _, n := range []string{c.Network, c.IPv6Network} {
		if n != "" {
			all = append(all, n)
		}
	}
	return all
}
