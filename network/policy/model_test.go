package policy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	. "github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/policytest"
	"github.com/selvage-net/selvage/subnet"
)

// packet returns a packet in any state. Some are neighbour messages, some are the node's own, some have port 0.
func packet(r policytest.Random) Packet {
	p := r.Packet()
	if p.Protocol == ICMPv6 {
		p.ICMPType = policytest.Pick[uint8](r, 128, 129, 130, 135, 137, 138, 143)
	}
	if p.Protocol.HasPorts() && r.Chance(10) {
		p.Port = 0
	}
	if r.Chance(10) {
		p.State = policytest.Pick(r, Established, Invalid)
	}
	if r.Chance(3) {
		p.FromNode, p.ToNode = r.Chance(50), r.Chance(50)
	}
	return p
}

// difference says about which packet a table and the evaluator differ; it is empty if they differ about none.
func difference(t *testing.T, r policytest.Random, s Source, table Table, packets int) string {
	for range packets {
		p := packet(r)
		v := Judge(s, ThisNode, p)
		for _, d := range Directions() {
			if got := Interpret(t, table, p, d); got != v[d].Allowed {
				return fmt.Sprintf("%+v, %s: the table says %v, the evaluator %+v", p, d, got, v[d])
			}
		}
	}
	return ""
}

// TestModel drives a compiler through random histories. After each step, the changes add up to the same table as a
// compiler makes that gets all objects at once; and the table does with packets what the evaluator says.
func TestModel(t *testing.T) {
	r := policytest.New(policytest.Seed(t), policytest.Options{})
	packets, elements := 0, 0
	for range 15 {
		w, c, table := policytest.NewCluster(), NewCompiler(ThisNode), NewTable()
		for range 100 {
			r.Step(w)(c)
			if r.Chance(30) {
				continue // changes accumulate
			}
			changes := c.Changes()
			Apply(t, table, changes)
			Consistent(t, table)
			EqualTables(t, "the whole table", c.Table(), table)
			EqualTables(t, "the table from scratch", Compiled(w, ThisNode).Table(), table)
			if again := c.Changes(); !again.Empty() {
				t.Errorf("changes were taken and are there again: %+v", again)
			}
			if d := difference(t, r, w, table, 40); d != "" {
				t.Error(d)
			}
			packets += 40
			for _, all := range table.Elements {
				elements += len(all)
			}
			if t.Failed() {
				return
			}
		}
		empty(w, c)
		Apply(t, table, c.Changes())
		if n := c.Remembered(); n != 0 || len(table.Chains) != 0 || len(table.Sets) != Fixed() {
			t.Fatalf("%d things left in the empty compiler, and %+v", n, table)
		}
	}
	t.Logf("%d packets, tables of %d elements in the mean", packets, elements*40/packets)
}

// empty removes all objects of a cluster from a compiler.
func empty(w *Cluster, c *Compiler) {
	for _, p := range w.Policies {
		c.DeletePolicy(p.Namespace, p.Name)
	}
	for name := range w.ClusterWide {
		c.DeleteClusterPolicy(name)
	}
	for uid := range w.Pods {
		c.DeletePod(uid)
	}
	for name := range w.Namespaces {
		c.DeleteNamespace(name)
	}
}

// mutations are faults of a compiler: each changes a table in one place, and reports whether it found one.
func mutations() map[string]func(policytest.Random, Table) bool {
	// rule changes a random rule for which a condition holds.
	rule := func(holds func(Rule) bool, change func(*Rule)) func(policytest.Random, Table) bool {
		return func(r policytest.Random, t Table) bool {
			var found []*Rule
			for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
				ch := *t.Chains[name]
				ch.Rules = slices.Clone(ch.Rules)
				t.Chains[name] = &ch
				for i := range ch.Rules {
					if holds(ch.Rules[i]) {
						found = append(found, &ch.Rules[i])
					}
				}
			}
			if len(found) > 0 {
				change(found[r.IntN(len(found))])
			}
			return len(found) > 0
		}
	}
	// element changes a random element of sets of one type; nil removes it.
	element := func(of SetType, change func(policytest.Random, *Element)) func(policytest.Random, Table) bool {
		return func(r policytest.Random, t Table) bool {
			var sets []string
			for name, s := range t.Sets {
				if s.Type == of && len(t.Elements[name]) > 0 {
					sets = append(sets, name)
				}
			}
			if len(sets) == 0 {
				return false
			}
			slices.Sort(sets)
			all := t.Elements[sets[r.IntN(len(sets))]]
			list := slices.SortedFunc(maps.Keys(all), func(a, b Element) int { return a.Addr.Compare(b.Addr) })
			e := list[r.IntN(len(list))]
			delete(all, e)
			if change != nil {
				change(r, &e)
				all[e] = true
			}
			return true
		}
	}
	other := func(r policytest.Random, e *Element) { e.Addr = r.Address(subnet.FamilyOf(e.Addr)) }
	never := func(ru *Rule) { ru.Protocol = 255 }
	return map[string]func(policytest.Random, Table) bool{
		"a policy's rule is missing":    rule(func(ru Rule) bool { return ru.Policy != "" }, never),
		"a jump is missing":             rule(func(ru Rule) bool { return ru.Outcome == Jump }, never),
		"isolation is missing":          rule(func(ru Rule) bool { return ru.Outcome == Drop && ru.Policy == "" && !ru.Invalid }, never),
		"invalid packets are judged":    rule(func(ru Rule) bool { return ru.Invalid }, never),
		"a pod cannot reach itself":     rule(func(ru Rule) bool { return ru.Loop != "" }, never),
		"a rule matches any port":       rule(func(ru Rule) bool { return ru.Ports != nil }, func(ru *Rule) { ru.Ports = nil }),
		"a range of ports ends early":   rule(func(ru Rule) bool { return ru.Ports != nil }, func(ru *Rule) { ru.Ports = []PortRange{{ru.Ports[0].First, ru.Ports[0].First - 1}} }),
		"TCP is taken for SCTP":         rule(func(ru Rule) bool { return ru.Protocol == TCP }, func(ru *Rule) { ru.Protocol = SCTP }),
		"a rule matches any peer":       rule(func(ru Rule) bool { return ru.Peer != "" }, func(ru *Rule) { ru.Peer = "" }),
		"a rule matches any named port": rule(func(ru Rule) bool { return ru.Endpoint != "" }, func(ru *Rule) { ru.Endpoint = "" }),
		"to pass is to accept":          rule(func(ru Rule) bool { return ru.Outcome == Return }, func(ru *Rule) { ru.Outcome = Allow }),
		"to pass is to go on":           rule(func(ru Rule) bool { return ru.Outcome == Return }, never),
		"to deny is to accept":          rule(func(ru Rule) bool { return ru.Outcome == Drop && ru.Policy != "" }, func(ru *Rule) { ru.Outcome = Allow }),
		"a peer's address is missing":   element(Addresses, nil),
		"a peer's address is another":   element(Addresses, other),
		"a block is missing":            element(Ranges, nil),
		"a block has what it excepts": element(Ranges, func(_ policytest.Random, e *Element) {
			e.Last = subnet.LastAddr(netip.PrefixFrom(e.Last, e.Last.BitLen()-3).Masked())
		}),
		"a named port is missing":         element(Endpoints, nil),
		"a named port has another number": element(Endpoints, func(_ policytest.Random, e *Element) { e.Port ^= 1 }),
		"a named port has another type":   element(Endpoints, func(_ policytest.Random, e *Element) { e.Protocol ^= TCP ^ UDP }),
		"a pod is not dispatched":         element(Dispatch, nil),
		"another pod is dispatched":       element(Dispatch, other),
		"a pod's loop is missing":         element(Loops, nil),
	}
}

// TestMutations: the comparison finds each fault of a compiler. Some are no fault in a cluster where another rule does
// the same, so each is planted until it is found.
func TestMutations(t *testing.T) {
	for name, mutate := range mutations() {
		t.Run(name, func(t *testing.T) {
			r := policytest.New(2, policytest.Options{})
			for planted := 0; planted < 200; {
				c := Compiled(r.Cluster(60), ThisNode)
				table := c.Table()
				if !mutate(r, table) {
					continue
				}
				planted++
				if d := difference(t, r, c, table, 2000); d != "" {
					t.Logf("found when planted %d times: %s", planted, d)
					return
				}
			}
			t.Error("not found")
		})
	}
}
