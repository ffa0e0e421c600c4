package mesh

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// ClusterVersion is the version of [Cluster]. Within a version, fields may be added; existing fields keep their names
// and meanings.
const ClusterVersion = 1

// Target is a node to be asked.
type Target struct {
	Key    string // of its lease
	Node   string // empty for a lease of flannel
	Public []netip.Addr
	Local  []netip.Addr // of this node itself: where it is asked instead of at Public; empty for others
	// MeshKey identifies the key of its server, see subnet.Lease.MeshKey; empty: it has none for tokens.
	MeshKey string
	Reject  status.Reason // why the asking node rejects its lease, or that it was withdrawn; empty: neither
}

// TargetsOf returns the nodes with a lease, as a node's daemon knows them: first itself. Those whose lease is rejected
// are asked, too: a node that refuses a new network config is one of them, and only a node answers that has a
// certificate for the address that is asked.
func TargetsOf(own status.Status, peers []status.Peer) (targets []Target) {
	self := Target{Node: own.Node}
	if own.Lease != nil {
		self.Key = own.Lease.Key
	}
	if own.Uplink != nil {
		self.Public, self.Local = own.Uplink.PublicIP, own.Uplink.Local
	}
	if own.Mesh != nil {
		self.MeshKey = own.Mesh.Key
	}
	targets = append(targets, self)
	for _, p := range peers {
		t := Target{Key: p.Key, Node: p.Node, Public: validOf(p.PublicIP), MeshKey: p.MeshKey}
		if p.State == status.Quarantined || p.State == status.Grace {
			t.Reject = p.Code
		}
		targets = append(targets, t)
	}
	return targets
}

func validOf(all []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return !a.IsValid() })
}

// Answer is what a node has answered.
type Answer struct {
	Summary         *Summary      // nil: nothing, and Code says why
	Code            status.Reason // of the last of its addresses that was tried
	Text            status.Text   // the same for people
	CertificateEnds time.Time     // when its certificate expires
}

// Reasons why a node has given no summary.
const (
	NotListening       status.Reason = "not-listening"       // its daemon does not run, or without --mesh-addr
	NoAnswer           status.Reason = "no-answer"           // in time
	NoAddress          status.Reason = "no-address"          // its lease has no public IP that can be asked
	BadCertificate     status.Reason = "bad-certificate"     // the node's: expired, or another authority, address, key
	CertificateRefused status.Reason = "certificate-refused" // the node refuses the asking node's
	NoKey              status.Reason = "no-mesh-key"         // its lease names no key, so it is shown no token
	TokenRefused       status.Reason = "token-refused"       // the node refuses the asking side's
	TokenNotReviewed   status.Reason = "token-not-reviewed"  // the node gets no review of it by the API server
	NotReadyYet        status.Reason = "not-ready-yet"       // its daemon has just started
	Unreadable         status.Reason = "unreadable"          // of another version, or of another program
)

// Cluster is the view of all nodes.
type Cluster struct {
	Version  int       `json:"version"` // ClusterVersion
	At       time.Time `json:"at"`
	Counts   Counts    `json:"counts"`
	Versions []Tally   `json:"versions"` // of selvaged, the most frequent first
	Configs  []Tally   `json:"configs"`  // the IDs of the network configs in use, the most frequent first
	Networks []string  `json:"networks"` // of the most frequent config
	Nodes    []Node    `json:"nodes"`    // what is odd first
}

// Counts counts nodes.
type Counts struct {
	Nodes    int `json:"nodes"`
	Ready    int `json:"ready"`
	Degraded int `json:"degraded"`
	Starting int `json:"starting"`
	Missing  int `json:"missing"` // they have a lease, and have not answered
}

// Tally is how many nodes have a value.
type Tally struct {
	Value string `json:"value"`
	Nodes int    `json:"nodes"`
}

// Node is one node in the view.
type Node struct {
	Name     string       `json:"name"` // that of its lease, else its own, else its key
	Key      string       `json:"key,omitempty"`
	PublicIP []netip.Addr `json:"public_ip,omitempty"`
	Summary  *Summary     `json:"summary,omitempty"` // nil: it is missing
	// CertificateEnds is when the certificate expires that it has shown.
	CertificateEnds time.Time `json:"certificate_ends,omitzero"`
	UnreachedBy     []string  `json:"unreached_by,omitempty"` // nodes whose probes it does not answer
	Findings        []Finding `json:"findings,omitempty"`     // what is odd, the worst first
}

// Assemble makes the view of all nodes from their answers, which are in the order of the targets.
func Assemble(targets []Target, answers []Answer, now time.Time) Cluster {
	c := Cluster{Version: ClusterVersion, At: now, Nodes: make([]Node, 0, len(targets))}
	names := map[string]string{} // by key
	for i, t := range targets {
		n := Node{
			Key: t.Key, PublicIP: t.Public, Summary: answers[i].Summary, CertificateEnds: answers[i].CertificateEnds,
		}
		n.Name = t.Node
		if n.Summary != nil {
			n.Name = cmp.Or(n.Name, n.Summary.Node)
		}
		n.Name = Printable(cmp.Or(n.Name, t.Key), maxText)
		names[t.Key] = n.Name
		c.Nodes = append(c.Nodes, n)
	}
	c.tally()
	by := unreached(c.Nodes)
	usual := c.usual()
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.UnreachedBy = by[n.Key]
		n.Findings = findings(n, targets[i], answers[i], usual, names, now)
		c.Counts.add(n)
	}
	slices.SortStableFunc(c.Nodes, compareNodes)
	return c
}

func (c *Counts) add(n *Node) {
	c.Nodes++
	switch {
	case n.Summary == nil:
		c.Missing++
	case n.Summary.State == status.Ready:
		c.Ready++
	case n.Summary.State == status.Degraded:
		c.Degraded++
	default:
		c.Starting++
	}
}

// unreachable returns how many peers a node cannot reach in one of the families.
func (s *Summary) unreachable() (n int) {
	for _, p := range s.Probes {
		n = max(n, len(p.Unreachable()))
	}
	return n
}

// compareNodes orders nodes by their worst finding, then by name.
func compareNodes(a, b Node) int {
	return cmp.Or(cmp.Compare(a.Worst(), b.Worst()), compareNames(a.Name, b.Name), strings.Compare(a.Key, b.Key))
}

// compareNames orders node10 after node9: a number at the end counts as a number.
func compareNames(a, b string) int {
	stemA, stemB := strings.TrimRight(a, "0123456789"), strings.TrimRight(b, "0123456789")
	if stemA != stemB {
		return strings.Compare(a, b)
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// tally counts versions and configs.
func (c *Cluster) tally() {
	versions, configs, networks := map[string]int{}, map[string]int{}, map[string][]string{}
	for _, n := range c.Nodes {
		if s := n.Summary; s != nil {
			versions[s.Selvaged]++
			if s.Config != "" {
				configs[s.Config]++
				networks[s.Config] = s.Networks
			}
		}
	}
	c.Versions, c.Configs, c.Networks = tallies(versions), tallies(configs), []string{}
	if len(c.Configs) > 0 {
		c.Networks = networks[c.Configs[0].Value]
	}
}

// tallies returns counts, the largest first.
func tallies(counts map[string]int) []Tally {
	all := []Tally{}
	for _, value := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, Tally{value, counts[value]})
	}
	slices.SortStableFunc(all, func(a, b Tally) int { return cmp.Compare(b.Nodes, a.Nodes) })
	return all
}

// unreached returns by key which nodes' probes a node does not answer. Probes of a node that reaches none of several
// peers say nothing about these: it is cut off itself.
func unreached(nodes []Node) map[string][]string {
	by := map[string][]string{}
	for _, n := range nodes {
		if n.Summary == nil {
			continue
		}
		for _, p := range n.Summary.Probes {
			keys := p.Unreachable()
			if len(keys) > 1 && p.Reachable() == 0 {
				continue
			}
			for _, key := range keys {
				if !slices.Contains(by[key], n.Name) {
					by[key] = append(by[key], n.Name)
				}
			}
		}
	}
	for _, names := range by {
		slices.SortFunc(names, compareNames)
	}
	return by
}
