package enforce

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/nft/nfttest"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
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

// TestRepairClosed: a table of closed pods that another process made is removed, as when a ruleset is loaded that was
// saved earlier, and the one that is there holds the closed pods and no others.
func TestRepairClosed(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, webAndClient(t))
	f := nfttest.New(t, here{})
	closed := &nftables.Table{Name: ClosedTable, Family: nftables.TableFamilyINet}
	gone := func() bool { return !slices.Contains(tables(t), ClosedTable) }
	repairs := func() uint64 { return e.Status().Repairs }

	before := repairs()
	f.AddTable(closed)
	f.Append(f.Base(closed, "forward", nftables.ChainHookForward, nftables.ChainPolicyDrop),
		&expr.Verdict{Kind: expr.VerdictDrop})
	f.Commit()
	await(t, e, "no table of closed pods", gone)
	l.passes(t, true, tcp(1, 0, 80))

	attach(t, e, attachmentAt(3), ErrPodUnknown)
	l.must(e.Isolate(attachmentAt(3)))
	set, err := f.GetSetByName(closed, ruleset.ClosedSet(subnet.IPv4))
	l.must(err)
	element := func(i int) []nftables.SetElement {
		return []nftables.SetElement{{Key: podAddress(i, false).AsSlice()}}
	}
	conn, err := nft.Dial()
	l.must(err)
	defer conn.Close()
	held := func() string { return fmt.Sprint(conn.Elements(closed.Family, closed.Name, set.Name)) }
	want := held()
	for name, fault := range map[string]func(){
		"a pod added":   func() { l.must(f.SetAddElements(set, element(1))) },
		"a pod removed": func() { l.must(f.SetDeleteElements(set, element(3))) },
		"table flushed": func() { f.FlushTable(closed) },
		"table removed": func() { f.DelTable(closed) },
	} {
		before = repairs()
		fault()
		f.Commit()
		await(t, e, "repair of: "+name, func() bool { return e.state.Repairs > before })
		l.passes(t, true, tcp(1, 0, 80))
		l.passes(t, false, tcp(3, 7, 80), tcp(7, 3, 80))
	}
	if got := held(); got != want {
		t.Errorf("the set of closed pods holds %s, want %s", got, want)
	}
}

// TestRepairCuts: a connection that began while another process had opened the table does not outlive the repair, and
// one that is allowed does. Without the table, nothing here needs the kernel to track connections, so that an answer
// can be the first packet that it sees of one.
func TestRepairCuts(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, func(to policy.Objects) {
		webAndClient(t)(to)
		to.SetPolicy(decode(t, "web", `{"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
			"ingress": [{"ports": [{"protocol": "UDP", "port": 80}]}]}`))
	})
	f := nfttest.New(t, here{})
	policies := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	passed := func(port uint16) (n int) {
		const client = 40000
		for _, six := range []bool{false, true} {
			for _, arrived := range l.send([]probe{udp(0, 1, port, client, six), udp(1, 0, client, port, six)}) {
				if arrived {
					n++
				}
			}
		}
		return n
	}
	for name, fault := range map[string]func(){
		"table removed": func() { f.DelTable(policies) },
		"accepted in front": func() {
			for _, chain := range []string{"egress", "ingress"} {
				f.InsertRule(&nftables.Rule{Table: policies, Chain: &nftables.Chain{Table: policies, Name: chain},
					Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
			}
		},
	} {
		e.mu.Lock() // no pass begins
		repairs, cuts := e.state.Repairs, e.cutCount
		fault()
		f.Commit()
		if n, m := passed(80), passed(81); n != 4 || m != 4 {
			t.Errorf("%s: %d and %d of 4 packets passed", name, n, m)
		}
		e.mu.Unlock()
		await(t, e, "repair of: "+name, func() bool { return e.state.Repairs > repairs })
		for limit := time.Now().Add(patient); passed(81) > 0; {
			if time.Now().After(limit) {
				t.Fatalf("%s: a denied connection goes on; %+v", name, e.Status())
			}
		}
		if n := passed(80); n != 4 {
			t.Errorf("%s: %d of 4 packets of an allowed connection passed", name, n)
		}
		await(t, e, "cut connections after: "+name, func() bool { return e.cutCount > cuts })
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

// TestRestart: while engines start and end, and learn everything again, no connection passes that is denied, nor from a
// borrowed address, and each that is allowed does.
func TestRestart(t *testing.T) {
	l := newLab(t)
	set := webAndClient(t)
	e, stop := start(t, Options{})
	bind := func() {
		e.SetAttachments([]Attachment{{ContainerID: "c7", Interface: portName(7),
			Addresses: [2]netip.Addr{podAddress(7, false)}}})
		await(t, e, "ports in the kernel", func() bool { return e.applied == e.version })
	}
	apply(t, e, set)
	bind()
	borrowed := tcp(1, 0, 80)
	borrowed.from = endName(7)
	var ended atomic.Bool
	done := make(chan int)
	go func() {
		sent := 0
		for ; !ended.Load(); sent++ {
			got := l.send([]probe{tcp(1, 0, 80), tcp(1, 0, 81), tcp(2, 0, 80), borrowed})
			if !got[0] || got[1] || got[2] || got[3] {
				t.Errorf("of one allowed and three denied packets arrived: %t", got)
				break
			}
		}
		done <- sent
	}()
	for range 10 {
		stop()
		e, stop = start(t, Options{})
		for _, p := range []policy.Pod{podAt(1, "client"), podAt(0, "web")} {
			e.Update(func(to policy.Objects) { to.SetPod(p) })
		}
		apply(t, e, set)
		bind()
		if e.Status().Repairs != 0 {
			t.Errorf("what the first one left was not in sync: %+v", e.Status())
		}
	}
	ended.Store(true)
	if sent := <-done; sent == 0 {
		t.Error("nothing was sent")
	}
}
