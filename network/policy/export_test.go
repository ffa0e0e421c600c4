package policy

import "testing"

// The model test is outside of the package, since policytest imports it. This is what it uses of the tests inside.

const ThisNode = thisNode

var (
	Apply       = apply
	Consistent  = consistent
	EqualTables = equalTables
)

// Interpret reports whether a table allows a packet in a direction.
func Interpret(t *testing.T, table Table, p Packet, d Direction) bool {
	return interpreter{t, table}.allowed(p, d)
}

// Compiled returns a compiler with all objects of a cluster.
func Compiled(c *Cluster, node string) *Compiler { return (&world{Cluster: c}).compiled(node) }

// Fixed returns the number of sets that every table has.
func Fixed() int { return len(fixedSets()) }

// Remembered counts what a compiler has, apart from what it always has.
func (c *Compiler) Remembered() int {
	return len(c.spaces) + len(c.pods) + len(c.owners) + len(c.rivals) + len(c.scopes) + len(c.wide) + len(c.local) +
		len(c.sets) - len(fixedSets()) + len(c.chains) + len(c.pending.sets) - len(fixedSets()) +
		len(c.pending.chains) + len(c.pending.elements) + len(c.pending.touched)
}
