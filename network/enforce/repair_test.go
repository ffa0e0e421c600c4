package enforce

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/nft/nfttest"
	"github.com/selvage-net/selvage/network/policy"
)

// here is the namespace of the test.
type here struct{}

// Do implements [nfttest.Namespace].
func (here) Do(f func() error) error { return f() }

// TestRepair: what another process does to the tables is undone at once.
func TestRepair(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	e.SetAttachments([]Attachment{{ContainerID: "c2", Interface: portName(2), Addresses: podAt(2, "").Addresses}})
	apply(t, e, webAndClient(t))
	f := nfttest.New(t, here{})
	policies := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	sources := &nftables.Table{Name: SourcesTable, Family: nftables.TableFamilyBridge}
	set := func(table *nftables.Table, name string) *nftables.Set {
		t.Helper()
		s, err := f.GetSetByName(table, name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	dispatch := policy.DispatchName(policy.Ingress, 0)
	client := []nftables.SetElement{{Key: podAddress(1, false).AsSlice()}}
	other := []nftables.SetElement{{Key: podAddress(2, false).AsSlice()}}
	var clients string // the set of clients
	for name, s := range e.compiler.Table().Sets {
		if s.Comment == "pods(app=client) in red" && s.Family == 0 {
			clients = name
		}
	}
	for _, fault := range []struct {
		name string
		make func()
	}{
		{"table removed", func() { f.DelTable(policies) }},
		{"sources removed", func() { f.DelTable(sources) }},
		{"ruleset flushed", func() { f.FlushRuleset() }},
		{"base chain flushed", func() { f.FlushChain(&nftables.Chain{Table: policies, Name: "ingress"}) }},
		{"policy's chain flushed", func() { f.FlushChain(&nftables.Chain{Table: policies, Name: "ingress/red/web"}) }},
		{"rule added", func() {
			f.InsertRule(&nftables.Rule{Table: policies, Chain: &nftables.Chain{Table: policies, Name: "ingress"},
				Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
		}},
		{"element added", func() { _ = f.SetAddElements(set(policies, clients), other) }},
		{"element removed", func() { _ = f.SetDeleteElements(set(policies, clients), client) }},
		{"map flushed", func() { f.FlushSet(&nftables.Set{Table: policies, Name: dispatch}) }},
		{"port flushed", func() { f.FlushSet(&nftables.Set{Table: sources, Name: "ports"}) }},
		{"table dormant", func() { f.Sleep(policies) }},
	} {
		began := time.Now()
		fault.make()
		f.Commit()
		await(t, e, "repair of: "+fault.name, func() bool { return inSync(t, e) })
		t.Logf("%s: repaired after %v", fault.name, time.Since(began))
		l.passes(t, true, tcp(1, 0, 80))
		borrowed := tcp(1, 0, 80)
		borrowed.from = endName(2)
		l.passes(t, false, tcp(1, 0, 81), tcp(2, 0, 80), borrowed)
	}
	if e.Status().Repairs == 0 {
		t.Error("no repair is counted")
	}
}

// inSync reports whether the tables of policies and sources are in sync, by a look at all of them.
func inSync(t *testing.T, e *Engine) bool {
	t.Helper()
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, want := range map[string]nft.Content{Table: e.pass.rules.Content(), SourcesTable: e.pass.bound} {
		_, ok, err := c.TableIn(families()[name], name).Check(want)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return false
		}
	}
	return true
}

// TestRestart: while engines start and end, and learn everything again, no connection passes that is denied, and each
// that is allowed does.
func TestRestart(t *testing.T) {
	l := newLab(t)
	set := webAndClient(t)
	e, stop := start(t, Options{})
	apply(t, e, set)
	var ended atomic.Bool
	done := make(chan int)
	go func() {
		sent := 0
		for ; !ended.Load(); sent++ {
			got := l.send([]probe{tcp(1, 0, 80), tcp(1, 0, 81), tcp(2, 0, 80)})
			if !got[0] || got[1] || got[2] {
				t.Errorf("of one allowed and two denied packets arrived: %t", got)
				break
			}
		}
		done <- sent
	}()
	for range 10 {
		stop()
		e, stop = start(t, Options{})
		e.SetAttachments([]Attachment{{ContainerID: "c7", Interface: portName(7), Addresses: [2]netip.Addr{podAddress(7, false)}}})
		for _, p := range []policy.Pod{podAt(1, "client"), podAt(0, "web")} {
			e.Update(func(to policy.Objects) { to.SetPod(p) })
		}
		apply(t, e, set)
		if e.Status().Repairs != 0 {
			t.Errorf("what the first one left was not in sync: %+v", e.Status())
		}
	}
	ended.Store(true)
	if sent := <-done; sent == 0 {
		t.Error("nothing was sent")
	}
}
