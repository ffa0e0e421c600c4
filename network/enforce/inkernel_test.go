package enforce

import (
	"testing"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/nft/nfttest"
	"github.com/selvage-net/selvage/network/policy"
)

// TestInKernel: what nf_tables has about a pod is read from the kernel, not from what was written there.
func TestInKernel(t *testing.T) {
	l := newLab(t)
	e, stop := start(t, Options{LogGroup: 7, Reject: true})
	check := func(what string, pod int, d policy.Direction, want func(InKernel) bool) {
		t.Helper()
		for _, six := range []bool{false, true} {
			k, err := e.InKernel(d, podAddress(pod, six))
			if err != nil || k.Table != Table || !want(k) {
				t.Errorf("%s: %s of pod %d: %+v, %v", what, d, pod, k, err)
			}
		}
	}
	apply(t, e, func(to policy.Objects) { to.SetPod(podAt(0, "web")) })
	check("no policy", 0, policy.Ingress, func(k InKernel) bool { return k.InForce && k.Chain == "" })

	apply(t, e, webAndClient(t))
	l.passes(t, false, tcp(2, 0, 80))
	check("isolated", 0, policy.Ingress, func(k InKernel) bool { return k.InForce && k.Chain != "" && k.Denied > 0 })
	check("judged", 0, policy.Ingress, func(k InKernel) bool { return k.Bypassed == "" })
	setting := map[string]string{"bridge/bridge-nf-call-iptables": "0", "bridge/bridge-nf-call-ip6tables": "0"}
	l.must(write(setting))
	check("packets on the bridge are not judged", 0, policy.Ingress, func(k InKernel) bool { return k.Bypassed != "" })
	check("no policy decides", 0, policy.Egress, func(k InKernel) bool { return k.Bypassed == "" })
	for name := range setting {
		setting[name] = "1"
	}
	l.must(write(setting))
	check("not isolated", 0, policy.Egress, func(k InKernel) bool { return k.InForce && k.Chain == "" })

	e.attach(attachmentAt(5))
	if err := e.Isolate(attachmentAt(5)); err != nil {
		t.Fatal(err)
	}
	check("closed", 5, policy.Egress, func(k InKernel) bool { return k.Closed })

	stop() // so that nothing is repaired
	var peers string
	for name, s := range e.compiler.Table().Sets {
		if s.Comment == "pods(app=client) in red" && s.Family == 0 {
			peers = name
		}
	}
	f := nfttest.New(t, here{})
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	for _, fault := range []struct {
		name string
		make func()
	}{
		{"an element of a set of peers removed", func() { f.FlushSet(&nftables.Set{Table: table, Name: peers}) }},
		{"the policy's chain flushed", func() {
			f.FlushChain(&nftables.Chain{Table: table, Name: "ingress/red/web"})
		}},
		{"the base chain flushed", func() { f.FlushChain(&nftables.Chain{Table: table, Name: "ingress"}) }},
		{"the table removed", func() { f.DelTable(table) }},
	} {
		fault.make()
		f.Commit()
		check(fault.name, 0, policy.Ingress, func(k InKernel) bool { return !k.InForce })
		e, stop = start(t, Options{LogGroup: 7, Reject: true})
		apply(t, e, webAndClient(t))
		check("repaired: "+fault.name, 0, policy.Ingress, func(k InKernel) bool { return k.InForce && k.Chain != "" })
		stop()
	}
	e.Update(func(to policy.Objects) { to.DeletePolicy("red", "web") })
	check("a change that is not applied", 0, policy.Ingress, func(k InKernel) bool { return !k.InForce })
}
