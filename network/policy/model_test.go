package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// random makes clusters that are so small that policies, labels and addresses meet often.
type random struct{ *rand.Rand }

// newRandom returns a source with the seed of the environment, else a new one, which a failure prints.
func newRandom(t testing.TB) random {
	seed, err := strconv.ParseUint(os.Getenv("POLICY_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with POLICY_SEED=%d", seed)
		}
	})
	return random{rand.New(rand.NewPCG(seed, 1))}
}

func (r random) chance(percent int) bool { return r.IntN(100) < percent }

func pick[T any](r random, of ...T) T { return of[r.IntN(len(of))] }

// labels returns some of three labels with two values each.
func (r random) labels() Labels {
	m := map[string]string{}
	for _, key := range []string{"app", "tier", "new"} {
		if r.chance(60) {
			m[key] = pick(r, "a", "b")
		}
	}
	return MakeLabels(m)
}

func (r random) selector() Selector {
	var list []Requirement
	for range pick(r, 0, 1, 1, 1, 2, 3) {
		q := Requirement{Key: pick(r, "app", "tier", "new"), Operator: pick(r, In, In, In, NotIn, Exists, DoesNotExist)}
		if q.Operator == In || q.Operator == NotIn {
			q.Values = pick(r, []string{"a"}, []string{"b"}, []string{"a", "b"}, []string{"a", "c"})
		}
		list = append(list, q)
	}
	return MakeSelector(list...)
}

// address returns one of a few, with gaps between the pods'.
func (r random) address(f subnet.Family) netip.Addr {
	n := byte(r.IntN(20))
	if f == subnet.IPv6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, n})
}

func (r random) block(f subnet.Family) netip.Prefix {
	a := r.address(f)
	p, _ := a.Prefix(a.BitLen() - pick(r, 0, 1, 2, 3, 4, 5, a.BitLen()))
	return p
}

func (r random) namespaceName() string { return pick(r, "red", "blue", "green") }

func (r random) namespace() Namespace { return Namespace{Name: r.namespaceName(), Labels: r.labels()} }

func (r random) pod() Pod {
	p := Pod{
		UID: fmt.Sprint("uid", r.IntN(16)), Namespace: r.namespaceName(), Node: pick(r, "n1", "n1", "n2", ""), Labels: r.labels(),
		Since: r.Int64N(3), Deleting: r.chance(10), HostNetwork: r.chance(5), Ended: r.chance(10),
	}
	p.Name = p.UID
	for _, f := range subnet.Families() {
		if r.chance(85) {
			p.Addresses[f] = r.address(f)
		}
	}
	var ports []NamedPort
	for range r.IntN(3) {
		ports = append(ports, NamedPort{pick(r, "http", "dns"), pick(r, TCP, TCP, UDP, SCTP), pick[uint16](r, 80, 81, 82)})
	}
	p.Ports = MakePorts(ports)
	return p
}

func (r random) group(namespace string) Group {
	g := Group{Pods: r.selector()}
	if g.Namespaces = r.selector(); namespace != "" && r.chance(50) {
		g.Namespace, g.Namespaces = namespace, Selector{}
	}
	return g
}

func (r random) match(namespace string) (m Match) {
	m.AnyPeer, m.AnyPort = r.chance(20), r.chance(30)
	for range pick(r, 0, 1, 1, 2, 3) {
		p := Peer{Group: r.group(namespace)}
		if r.chance(40) {
			f := pick(r, subnet.IPv4, subnet.IPv6)
			p = Peer{Block: r.block(f)}
			for range r.IntN(4) {
				p.Except = append(p.Except, r.block(f))
			}
		}
		m.Peers = append(m.Peers, p)
	}
	for range pick(r, 0, 1, 1, 2, 3) {
		p := Port{Protocol: pick(r, TCP, TCP, UDP, SCTP), First: pick[uint16](r, 79, 80, 81)}
		switch r.IntN(4) {
		case 0:
			p.First, p.Name = 0, pick(r, "http", "dns")
			if namespace == "" && r.chance(50) {
				p.Protocol = 0
			}
		case 1:
			p.Last = p.First + uint16(r.IntN(3))
		case 2:
			p.Last = p.First
		case 3:
			p.First, p.Last = 0, 0xffff
		}
		m.Ports = append(m.Ports, p)
	}
	if m.AnyPeer {
		m.Peers = nil
	}
	if m.AnyPort {
		m.Ports = nil
	}
	return m
}

func (r random) policy() Policy {
	p := Policy{Namespace: r.namespaceName(), Name: fmt.Sprint("p", r.IntN(4)), Isolates: [2]bool{r.chance(70), r.chance(60)}}
	p.Subject = Group{Namespace: p.Namespace, Pods: r.selector()}
	for _, d := range Directions() {
		for range r.IntN(4) {
			p.Rules[d] = append(p.Rules[d], r.match(p.Namespace))
		}
	}
	return p
}

func (r random) clusterPolicy() ClusterPolicy {
	p := ClusterPolicy{
		Name: fmt.Sprint("c", r.IntN(4)), Tier: pick(r, Admin, Baseline), Priority: r.Int32N(3), Subject: r.group(""), NoSubject: r.chance(5),
	}
	for _, d := range Directions() {
		for range r.IntN(4) {
			p.Rules[d] = append(p.Rules[d], ClusterRule{Action: pick(r, Accept, Deny, Pass), Match: r.match("")})
		}
	}
	return p
}

// step changes one object of a world, and returns how to change the compiler in the same way.
func (r random) step(w *world) func(*Compiler) {
	remove := r.chance(25)
	switch r.IntN(10) {
	case 0:
		n := r.namespace()
		if remove {
			delete(w.Namespaces, n.Name)
			return func(c *Compiler) { c.DeleteNamespace(n.Name) }
		}
		w.Namespaces[n.Name] = n
		return func(c *Compiler) { c.SetNamespace(n) }
	case 1, 2, 3, 4, 5:
		p := r.pod()
		if old := w.Pods[p.UID]; old != nil && r.chance(40) { // a smaller change
			q := *old
			q.Labels, q.Deleting, q.Ended = p.Labels, p.Deleting, p.Ended
			if r.chance(50) {
				q.Labels, q.Addresses, q.Ports = old.Labels, p.Addresses, p.Ports
			}
			p = q
		}
		if remove {
			delete(w.Pods, p.UID)
			return func(c *Compiler) { c.DeletePod(p.UID) }
		}
		w.Pods[p.UID] = &p
		return func(c *Compiler) { c.SetPod(p) }
	case 6, 7, 8:
		p := r.policy()
		if remove {
			delete(w.Policies, p.Key())
			return func(c *Compiler) { c.DeletePolicy(p.Namespace, p.Name) }
		}
		w.Policies[p.Key()] = &p
		return func(c *Compiler) { c.SetPolicy(p) }
	}
	p := r.clusterPolicy()
	if remove {
		delete(w.ClusterWide, p.Name)
		return func(c *Compiler) { c.DeleteClusterPolicy(p.Name) }
	}
	w.ClusterWide[p.Name] = &p
	return func(c *Compiler) { c.SetClusterPolicy(p) }
}

// packet returns a packet between two addresses of one family, mostly pods'.
func (r random) packet() (p Packet) {
	f := pick(r, subnet.IPv4, subnet.IPv4, subnet.IPv6)
	p.Source, p.Destination = r.address(f), r.address(f)
	if r.chance(5) {
		p.Destination = p.Source
	}
	p.Protocol = pick(r, TCP, TCP, TCP, UDP, SCTP, 1)
	if p.Protocol == 1 && f == subnet.IPv6 {
		p.Protocol, p.ICMPType = ICMPv6, pick[uint8](r, 128, 129, 130, 135, 137, 138, 143)
	}
	if p.Protocol.HasPorts() {
		p.Port = pick[uint16](r, 0, 78, 79, 80, 81, 82, 83, 84, 0xffff)
	}
	if r.chance(10) {
		p.State = pick(r, Established, Invalid)
	}
	if r.chance(3) {
		p.FromNode, p.ToNode = r.chance(50), r.chance(50)
	}
	return p
}

// worldOf returns a random cluster.
func (r random) world(t *testing.T, steps int) *world {
	w := newWorld(t)
	for range steps {
		r.step(w)
	}
	return w
}

// difference says about which packet a table and the evaluator differ; it is empty if they differ about none.
func difference(t *testing.T, r random, s Source, table Table, packets int) string {
	x := interpreter{t, table}
	for range packets {
		p := r.packet()
		v := Judge(s, thisNode, p)
		for _, d := range Directions() {
			if got := x.allowed(p, d); got != v[d].Allowed {
				return fmt.Sprintf("%+v, %s: the table says %v, the evaluator %+v", p, d, got, v[d])
			}
		}
	}
	return ""
}

// TestModel drives a compiler through random histories. After each step, the changes add up to the same table as a
// compiler makes that gets all objects at once; and the table does with packets what the evaluator says.
func TestModel(t *testing.T) {
	r := newRandom(t)
	packets, elements := 0, 0
	for range 15 {
		w, c, table := newWorld(t), NewCompiler(thisNode), NewTable()
		for range 100 {
			r.step(w)(c)
			if r.chance(30) {
				continue // changes accumulate
			}
			changes := c.Changes()
			apply(t, table, changes)
			consistent(t, table)
			equalTables(t, "the whole table", c.Table(), table)
			equalTables(t, "the table from scratch", w.compiled(thisNode).Table(), table)
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
		w.empty(c)
		apply(t, table, c.Changes())
		if n := c.remembered(); n != 0 || len(table.Chains) != 0 || len(table.Sets) != len(fixedSets()) {
			t.Fatalf("%d things left in the empty compiler, and %+v", n, table)
		}
	}
	t.Logf("%d packets, tables of %d elements in the mean", packets, elements*40/packets)
}

// equalTables compares tables, and names the first difference of each kind.
func equalTables(t *testing.T, name string, want, got Table) {
	t.Helper()
	equalMaps(t, name+", sets", want.Sets, got.Sets)
	equalMaps(t, name+", chains", want.Chains, got.Chains)
	equalMaps(t, name+", elements", want.Elements, got.Elements)
}

func equalMaps[V any](t *testing.T, name string, want, got map[string]V) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(want))
	for key := range got {
		keys = append(keys, key)
	}
	for _, key := range keys {
		w, g := want[key], got[key]
		if !reflect.DeepEqual(w, g) {
			t.Errorf("%s, %s: the changes add up to %+v, want %+v", name, key, g, w)
			return
		}
	}
}

// empty removes all objects.
func (w *world) empty(c *Compiler) {
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

// remembered counts what a compiler has, apart from what it always has.
func (c *Compiler) remembered() int {
	return len(c.spaces) + len(c.pods) + len(c.owners) + len(c.rivals) + len(c.scopes) + len(c.wide) + len(c.local) +
		len(c.sets) - len(fixedSets()) + len(c.chains) + len(c.pending.sets) - len(fixedSets()) + len(c.pending.chains) +
		len(c.pending.elements) + len(c.pending.touched)
}

// mutations are faults of a compiler: each changes a table in one place, and reports whether it found one.
func mutations() map[string]func(random, Table) bool {
	// rule changes a random rule for which a condition holds.
	rule := func(holds func(Rule) bool, change func(*Rule)) func(random, Table) bool {
		return func(r random, t Table) bool {
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
	element := func(of SetType, change func(random, *Element)) func(random, Table) bool {
		return func(r random, t Table) bool {
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
	other := func(r random, e *Element) { e.Addr = r.address(subnet.FamilyOf(e.Addr)) }
	never := func(ru *Rule) { ru.Protocol = 255 }
	return map[string]func(random, Table) bool{
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
		"a block has what it excepts": element(Ranges, func(_ random, e *Element) {
			e.Last = subnet.LastAddr(netip.PrefixFrom(e.Last, e.Last.BitLen()-3).Masked())
		}),
		"a named port is missing":         element(Endpoints, nil),
		"a named port has another number": element(Endpoints, func(_ random, e *Element) { e.Port ^= 1 }),
		"a named port has another type":   element(Endpoints, func(_ random, e *Element) { e.Protocol ^= TCP ^ UDP }),
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
			r := random{rand.New(rand.NewPCG(1, 2))}
			for planted := 0; planted < 60; {
				w := r.world(t, 60)
				c := w.compiled(thisNode)
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
