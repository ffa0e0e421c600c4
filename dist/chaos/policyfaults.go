package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// policyEdit is a change to the tables of network policies, as one transaction: else the daemon is quicker than the
// next step.
type policyEdit struct {
	*nftables.Conn
	t       *target
	have    policyTables
	table   *rawTable       // that the fault is about
	as      *nftables.Table // the same as the library has it
	problem error           // why the fault cannot be done
}

// policyFaults are those of what enforces network policies.
func policyFaults() []Fault {
	// Which packets a fault lets through, or holds up: those that are denied, or those that are allowed.
	opens := func(f Fault) Fault { f.Opens = true; return f }
	loses := func(f Fault) Fault { f.Loses = true; return f }
	fault := func(name string, do step) Fault {
		return Fault{Name: "policies: " + name, Class: Policies, NFTables: true, Inject: do}
	}
	edit := func(name string, do func(*policyEdit)) Fault { return fault(name, editing(policyTable, do)) }
	source := func(name string, do func(*policyEdit)) Fault {
		return fault("sources: "+name, editing(sourceTable, do))
	}
	daemon := func(name string, do func(context.Context, *target) error) Fault {
		f := fault("daemon "+name, func(ctx context.Context, t *target) error {
			err := do(ctx, t)
			t.counts() // what was there before a start is to be there after it
			return err
		})
		f.Running, f.Unbroken, f.NoLoss = true, true, true
		return f
	}
	return []Fault{
		opens(edit("table flushed", (*policyEdit).flushChains)),
		opens(edit("table deleted", func(e *policyEdit) { e.DelTable(e.as) })),
		opens(edit("table deleted, another of the name in its place", func(e *policyEdit) {
			e.DelTable(e.as)
			e.AddTable(e.as)
			e.AddRule(&nftables.Rule{Table: e.as, Chain: hooked(e.Conn, e.as, "theirs"), Exprs: stranger()})
		})),
		opens(fault("table put to sleep (dormant)", func(_ context.Context, t *target) error {
			return t.putToSleep(policyTable)
		})),
		opens(edit("base chains removed", (*policyEdit).removeBases)),
		opens(edit("pods' chains flushed", func(e *policyEdit) {
			e.eachChain(false, func(c rawChain) { e.FlushChain(e.chain(c)) })
		})),
		opens(edit("pods' chains removed", (*policyEdit).removeChains)),
		opens(edit("drops removed", (*policyEdit).removeDrops)),
		opens(edit("a foreign accept in front", func(e *policyEdit) { e.inFront(expr.VerdictAccept) })),
		loses(edit("a foreign drop in front", func(e *policyEdit) { e.inFront(expr.VerdictDrop) })),
		loses(edit("base chains' policy is drop", (*policyEdit).dropByPolicy)),
		loses(edit("peers removed from their sets", (*policyEdit).removePeers)),
		opens(edit("a pod put among the peers", (*policyEdit).addPeers)),
		opens(edit("verdict maps flushed", func(e *policyEdit) { e.flushSets((*rawSet).isMap) })),
		opens(edit("pods removed from the verdict maps", (*policyEdit).removePods)),
		loses(edit("a pod put into a verdict map", (*policyEdit).addPod)),
		opens(edit("all sets flushed", func(e *policyEdit) { e.flushSets(func(*rawSet) bool { return true }) })),
		loses(fault("closed: another's table of that name", closeClient)),
		opens(source("table flushed", (*policyEdit).flushChains)),
		opens(source("table deleted", func(e *policyEdit) { e.DelTable(e.as) })),
		opens(source("ports removed", func(e *policyEdit) {
			e.flushSets(func(s *rawSet) bool { return s.name == portsSet })
		})),
		loses(source("addresses removed", func(e *policyEdit) {
			e.flushSets(func(s *rawSet) bool { return s.name != portsSet })
		})),
		opens(source("a foreign accept in front", func(e *policyEdit) { e.inFront(expr.VerdictAccept) })),
		loses(source("a foreign drop in front", func(e *policyEdit) { e.inFront(expr.VerdictDrop) })),
		{Name: "policies: bridge-nf-call off", Class: Policies, Families: both(), Opens: true,
			Inject: inEachFamily(func(t *target, f subnet.Family) error { return t.write(bridgedOf(f), "0") })},
		daemon("killed, started again", func(ctx context.Context, t *target) error { return t.restartKilled(ctx) }),
		daemon("stopped, started again", func(ctx context.Context, t *target) error {
			return errors.Join(t.Stop(ctx), t.Start(), t.WaitReady(ctx))
		}),
	}
}

// editing makes a step of a change to a table.
func editing(table string, do func(*policyEdit)) step {
	return func(_ context.Context, t *target) error {
		have, err := t.readPolicies()
		if err != nil {
			return err
		}
		if have[table] == nil {
			return fmt.Errorf("%s: there is no table %s", t.Name(), table)
		}
		return t.onNFT(func(c *nftables.Conn) error {
			e := &policyEdit{Conn: c, t: t, have: have, table: have[table]}
			e.as = &nftables.Table{Name: table, Family: nftables.TableFamily(e.table.family)}
			if do(e); e.problem != nil {
				return e.problem
			}
			t.counts()
			return c.Flush()
		})
	}
}

// closeClient makes a table like that of pods whose rules are not in force yet, as when a ruleset is loaded that was
// saved while the client was one.
func closeClient(_ context.Context, t *target) error {
	return t.onNFT(func(c *nftables.Conn) error {
		as := c.AddTable(&nftables.Table{Name: closedTable, Family: nftables.TableFamilyINet})
		chain := hooked(c, as, "egress")
		for _, f := range t.suite.families {
			key := []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr}[f]
			name := "closed-" + strings.ToLower(f.String())
			set := &nftables.Set{Table: as, ID: uint32(f) + 1, Name: name, KeyType: key}
			held := []nftables.SetElement{{Key: []byte(keyOf(t.policed.client, f))}}
			if err := c.AddSet(set, held); err != nil {
				return err
			}
			family, source := [...]byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}[f], [...]uint32{12, 8}[f]
			c.AddRule(&nftables.Rule{Table: as, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{family}},
				&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: key.Bytes,
					DestRegister: unix.NFT_REG_1},
				&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set.Name, SetID: set.ID},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
		t.counts()
		return c.Flush()
	})
}

func (e *policyEdit) fail(format string, args ...any) {
	e.problem = errors.Join(e.problem, fmt.Errorf(e.t.Name()+": "+format, args...))
}

func (e *policyEdit) chain(c rawChain) *nftables.Chain {
	return &nftables.Chain{Table: e.as, Name: c.name}
}

// eachChain calls fn with the base chains, or with all others.
func (e *policyEdit) eachChain(base bool, fn func(rawChain)) {
	found := false
	for _, c := range e.table.chains {
		if (c.base != nil) == base {
			found = true
			fn(c)
		}
	}
	if !found {
		e.fail("the table %s has no chain with a hook: %t", e.table.name, base)
	}
}

func (e *policyEdit) flushChains() {
	for _, c := range e.table.chains {
		e.FlushChain(e.chain(c))
	}
}

func (e *policyEdit) removeBases() {
	e.eachChain(true, func(c rawChain) {
		e.FlushChain(e.chain(c))
		e.DelChain(e.chain(c))
	})
}

// removeChains removes the chains of pods and policies, with what leads to them.
func (e *policyEdit) removeChains() {
	e.flushSets((*rawSet).isMap)
	e.eachChain(false, func(c rawChain) { e.FlushChain(e.chain(c)) })
	e.eachChain(false, func(c rawChain) { e.DelChain(e.chain(c)) })
}

func (e *policyEdit) removeDrops() {
	found := false
	for _, c := range e.table.chains {
		for _, r := range c.list {
			if r.drops && !cut(r.comment) {
				found = true
				if err := e.DelRule(&nftables.Rule{Table: e.as, Chain: e.chain(c), Handle: r.handle}); err != nil {
					e.fail("%v", err)
				}
			}
		}
	}
	if !found {
		e.fail("the table %s has no rule that drops", e.table.name)
	}
}

// inFront puts a rule with a verdict before all others of each base chain.
func (e *policyEdit) inFront(kind expr.VerdictKind) {
	e.eachChain(true, func(c rawChain) {
		e.InsertRule(&nftables.Rule{Table: e.as, Chain: e.chain(c), Exprs: []expr.Any{&expr.Verdict{Kind: kind}},
			UserData: []byte("theirs")})
	})
}

func (e *policyEdit) dropByPolicy() {
	drop := nftables.ChainPolicyDrop
	e.eachChain(true, func(c rawChain) {
		x := e.chain(c)
		x.Policy = &drop
		e.AddChain(x)
	})
}

func (e *policyEdit) flushSets(which func(*rawSet) bool) {
	found := false
	for _, s := range e.table.sets {
		if which(s) && len(s.elements) > 0 && !cut(s.name) {
			found = true
			e.FlushSet(&nftables.Set{Table: e.as, Name: s.name})
		}
	}
	if !found {
		e.fail("the table %s has no such set with elements", e.table.name)
	}
}

// eachPod calls fn with each set or map of a family that has the address of a pod.
func (e *policyEdit) eachPod(pod *lab.Pod, isMap bool, fn func(*rawSet, *nftables.Set, rawElement)) {
	found := false
	for _, f := range e.t.suite.families {
		for _, s := range e.table.sets {
			i := slices.IndexFunc(s.elements, func(x rawElement) bool { return x.key == keyOf(pod, f) })
			if i < 0 || s.isMap() != isMap {
				continue
			}
			found = true
			as := &nftables.Set{Table: e.as, Name: s.name, IsMap: isMap}
			as.KeyType = []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr}[f]
			if isMap {
				as.DataType = nftables.TypeVerdict
			}
			fn(s, as, s.elements[i])
		}
	}
	if !found {
		e.fail("%s is in no set of %s that is a map: %t", pod.Name(), e.table.name, isMap)
	}
}

func (e *policyEdit) try(err error) {
	if err != nil {
		e.fail("%v", err)
	}
}

// removePeers removes the node's server and client from the sets of peers.
func (e *policyEdit) removePeers() {
	for _, pod := range []*lab.Pod{e.t.policed.server, e.t.policed.client} {
		e.eachPod(pod, false, func(_ *rawSet, set *nftables.Set, x rawElement) {
			e.try(e.SetDeleteElements(set, []nftables.SetElement{{Key: []byte(x.key)}}))
		})
	}
}

// addPeers adds all nodes' other pods to the sets of peers.
func (e *policyEdit) addPeers() {
	for _, pod := range []*lab.Pod{e.t.policed.server, e.t.policed.client} {
		e.eachPod(pod, false, func(_ *rawSet, set *nftables.Set, x rawElement) {
			f := subnet.IPv4
			if len(x.key) == 16 {
				f = subnet.IPv6
			}
			var added []nftables.SetElement
			for _, h := range e.t.suite.hosts {
				added = append(added, nftables.SetElement{Key: []byte(keyOf(h.policed.other, f))})
			}
			e.try(e.SetAddElements(set, added))
		})
	}
}

// removePods removes the node's server and client from the verdict maps.
func (e *policyEdit) removePods() {
	for _, pod := range []*lab.Pod{e.t.policed.server, e.t.policed.client} {
		e.eachPod(pod, true, func(_ *rawSet, set *nftables.Set, x rawElement) {
			e.try(e.SetDeleteElements(set, []nftables.SetElement{{Key: []byte(x.key)}}))
		})
	}
}

// addPod has the node's other pod, which no policy selects, judged like the client.
func (e *policyEdit) addPod() {
	e.eachPod(e.t.policed.client, true, func(_ *rawSet, set *nftables.Set, x rawElement) {
		f := subnet.IPv4
		if len(x.key) == 16 {
			f = subnet.IPv6
		}
		e.try(e.SetAddElements(set, []nftables.SetElement{{Key: []byte(keyOf(e.t.policed.other, f)),
			VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: x.chain}}}))
	})
}
