package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// SetType is what the elements of a [Set] are.
type SetType uint8

// The types of sets. Which fields of an [Element] count follows from the type.
const (
	Addresses SetType = iota // Addr
	Ranges                   // Addr to Last, both included; no two overlap or touch
	Endpoints                // Addr, Protocol and Port: a destination
	Loops                    // Addr as source and destination of one packet
	Dispatch                 // a map: Addr to Chain
)

// Set is a set of nf_tables, or a verdict map. A set never changes its type or family.
type Set struct {
	Name    string
	Type    SetType
	Family  subnet.Family
	Comment string // what it holds, for people
}

// Element is an element of a [Set].
type Element struct {
	Addr     netip.Addr
	Last     netip.Addr
	Protocol Protocol
	Port     uint16
	Chain    string
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// Outcome is what a [Rule] does with a packet that it matches.
type Outcome uint8

// The outcomes.
const (
	Allow  Outcome = iota // the packet is allowed in this direction: the kernel's accept, which ends one base chain
	Drop                  // the packet is denied
	Return                // the calling chain continues
	Jump                  // Target decides, and if it does not, the next rule
)

// Rule is a rule of a [Chain]. All its conditions have to hold; a condition that is zero always holds. A chain of
// ingress looks up the source as peer, one of egress the destination.
type Rule struct {
	Family   subnet.Family // of the sets; any family if the rule names no set
	Peer     string        // the peer's address is in this set of [Addresses] or [Ranges]
	Endpoint string        // destination, protocol and destination port are in this set of [Endpoints]
	Loop     string        // source and destination are in this set of [Loops]
	Protocol Protocol
	Ports    []PortRange // the destination port is in one of them; Protocol is TCP, UDP or SCTP
	Invalid  bool        // the state of the connection is invalid
	Outcome  Outcome
	Target   string // of Jump: a chain's name
	Policy   string // from which policy the rule is: namespace/name, or the name of a cluster policy
	Index    int    // the index of the rule in the policy's list of the direction
}

// Chain is a regular chain of nf_tables. A packet that reaches its end returns to the calling chain.
type Chain struct {
	Name      string
	Direction Direction
	Comment   string // which policies it has, for people
	Rules     []Rule
}

// Table is what nf_tables has to hold for the pods of a node.
//
// It has to be asked by two base chains in the forward hook, one for each direction, so that to accept in one does not
// skip the other. Each does the following, as [Judge] does:
//
//  1. accept packets of established and related connections, and [AlwaysAllowed] messages of ICMPv6;
//  2. look up the packet's own address, for ingress the destination and for egress the source, in the map
//     [DispatchName] of the direction and the family, and jump to the chain;
//  3. accept what returns, and what is not in the map.
//
// Packets between the node and its pods do not pass the forward hook.
type Table struct {
	Sets   map[string]Set
	Chains map[string]*Chain
	// Elements are those of each set.
	Elements map[string]map[Element]bool
}

// Changes are the differences between two tables. They have to be applied in one transaction: first new sets and chains
// and the rules of changed chains, then removed and new elements, then the removal of chains and sets.
type Changes struct {
	Sets   map[string]SetChange // by name
	Chains map[string]*Chain    // by name: a new chain, or the new rules of one; nil: it is removed
}

// SetChange is the change of one set.
type SetChange struct {
	Set
	Created, Removed bool
	Add, Remove      []Element // in any order, except that Remove comes first: a map's key can be in both
}

// Empty reports whether nothing changes.
func (c Changes) Empty() bool { return len(c.Sets)+len(c.Chains) == 0 }

// NewTable returns an empty table, to which the first changes of a [Compiler] are to be applied.
func NewTable() Table {
	return Table{Sets: map[string]Set{}, Chains: map[string]*Chain{}, Elements: map[string]map[Element]bool{}}
}

// DispatchName returns the name of the map from addresses of this node's pods to chains.
func DispatchName(d Direction, f subnet.Family) string { return d.String() + digit(f) }

// loopName returns the name of the set of pods that may reach themselves.
func loopName(f subnet.Family) string { return "itself" + digit(f) }

// digit returns "4" or "6", which the names of sets have.
func digit(f subnet.Family) string { return [...]string{"4", "6"}[f] }

// fixedSets returns the sets that exist always.
func fixedSets() (sets []Set) {
	for _, f := range subnet.Families() {
		for _, d := range Directions() {
			comment := "pods with policies of " + d.String()
			sets = append(sets, Set{Name: DispatchName(d, f), Type: Dispatch, Family: f, Comment: comment})
		}
		sets = append(sets, Set{Name: loopName(f), Type: Loops, Family: f, Comment: "pods reach themselves"})
	}
	return sets
}

// hashed returns a name for something with a long text. It is long enough that two texts with one hash cannot be found.
func hashed(prefix, text string) string {
	sum := sha256.Sum256([]byte(text))
	return prefix + "_" + hex.EncodeToString(sum[:10])
}

// policyChain returns the name of the chain with a policy's rules. The API's names are at most 63 and 253 bytes long,
// those of nf_tables 255. Names in the API have no underscore, so a hashed name is never that of another policy.
func policyChain(d Direction, p *Policy) string {
	odd := func(c rune) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '.' }
	if len(p.Key()) > 120 || strings.ContainsFunc(p.Namespace+p.Name, odd) {
		return hashed(d.String()+"/policy", p.text())
	}
	return d.String() + "/" + p.Key()
}

// text returns the names of a policy, also if they are not as the API server has them, as a text that no other has.
func (p *Policy) text() string { return plain(p.Namespace) + " " + plain(p.Name) }
