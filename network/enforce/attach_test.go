package enforce

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// attachmentAt returns the attachment of the pod at a port.
func attachmentAt(i int) Attachment {
	p := podAt(i, "")
	return Attachment{UID: p.UID, Namespace: p.Namespace, Name: p.Name, ContainerID: "container of " + p.Name,
		Interface: portName(i), Addresses: p.Addresses}
}

// without returns a pod without addresses, as the API has it first.
func without(p policy.Pod) policy.Pod {
	p.Addresses = [2]netip.Addr{}
	return p
}

// denied sets a policy that denies everything to all pods of the namespace red.
func denied(t *testing.T) func(policy.Objects) {
	return func(to policy.Objects) {
		to.SetNamespace(policy.Namespace{Name: "red"})
		to.SetPolicy(decode(t, "deny", denyAll))
	}
}

// attach attaches the pod at a port, and checks the cause of the error.
func attach(t *testing.T, e *Engine, a Attachment, want error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	if want != nil {
		cancel() // it cannot succeed, however long it waits
	}
	defer cancel()
	err := e.Attach(ctx, a)
	if !errors.Is(err, want) || want != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("%s: %v, want %v", a.Name, err, want)
	}
}

// TestAttachUnknown: a pod that the API has not shown does not wait, as it may not at all if the API server is down,
// unless a policy may select it.
func TestAttachUnknown(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	waiting := func(want int) {
		t.Helper()
		apply(t, e, func(policy.Objects) {}) // so that the state is of now
		if got := e.Status().Waiting; got != want {
			t.Errorf("%d attachments wait, want %d", got, want)
		}
	}
	apply(t, e, func(to policy.Objects) {
		to.SetNamespace(policy.Namespace{Name: "red"})
		to.SetNamespace(policy.Namespace{Name: "blue"})
		p, err := policy.DecodePolicy([]byte(`{"metadata": {"namespace": "blue", "name": "deny"}, "spec": ` + denyAll + `}`))
		if err != nil {
			t.Fatal(err)
		}
		to.SetPolicy(p)
	})
	attach(t, e, attachmentAt(1), nil)
	waiting(0)
	unknown := attachmentAt(2)
	unknown.Namespace = "" // of another runtime than Kubernetes'
	attach(t, e, unknown, ErrPodUnknown)
	waiting(1)

	apply(t, e, denied(t))
	waiting(2)
	attach(t, e, attachmentAt(3), ErrPodUnknown)
	if err := e.Isolate(attachmentAt(3)); err != nil {
		t.Fatal(err)
	}
	l.passes(t, false, tcp(3, 1, 80))
	apply(t, e, func(to policy.Objects) { to.DeletePolicy("red", "deny") })
	waiting(1)
	l.passes(t, true, tcp(3, 1, 80))
}

// TestAttach: once a pod is attached, its rules are in the kernel, although the API has no address of it.
func TestAttach(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	apply(t, e, denied(t))
	var took []time.Duration
	for i := range ports - 1 {
		e.Update(func(to policy.Objects) { to.SetPod(without(podAt(i, "web"))) })
		began := time.Now()
		attach(t, e, attachmentAt(i), nil)
		took = append(took, time.Since(began))
		l.passes(t, false, tcp(i, 7, 80), tcp(7, i, 80))
	}
	slices.Sort(took)
	t.Logf("the median of the time until the rules are in the kernel: %v", took[len(took)/2])
	attach(t, e, attachmentAt(0), nil) // again
	if s := e.Status(); s.Waiting != 0 || s.Failures != nil {
		t.Errorf("%+v", s)
	}
	e.Detach(attachmentAt(3))
	await(t, e, "pod 3 without its address", func() bool { return e.applied == e.version })
	l.passes(t, true, tcp(3, 7, 80), tcp(7, 3, 80))
	l.passes(t, false, tcp(2, 7, 80))
}

// TestAttachFirst: the plugin can be faster than the API.
func TestAttachFirst(t *testing.T) {
	l := newLab(t)
	e, _ := start(t, Options{})
	done := make(chan error)
	go func() { done <- e.Attach(t.Context(), attachmentAt(0)) }()
	attach(t, e, attachmentAt(1), ErrNotSynced)
	apply(t, e, denied(t))
	attach(t, e, attachmentAt(1), ErrPodUnknown)
	l.passes(t, true, tcp(0, 7, 80))
	e.Update(func(to policy.Objects) { to.SetPod(without(podAt(0, "web"))) })
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.passes(t, false, tcp(0, 7, 80))
	l.passes(t, true, tcp(1, 7, 80))
}

// TestAddresses: which address a pod has while the API and the plugin do not agree.
func TestAddresses(t *testing.T) {
	t.Cleanup(func() { clearTables(t) }) // after the engine has ended
	e, _ := start(t, Options{})
	apply(t, e, denied(t))
	set := func(p policy.Pod) { e.Update(func(to policy.Objects) { to.SetPod(p) }) }
	// owner is the pod that has the address of the one at a port.
	check := func(what string, port int, want string) {
		t.Helper()
		v := e.Verdict(policy.Packet{Source: podAddress(port, false), Destination: podAddress(7, false), Protocol: policy.TCP})
		got := ""
		if p := v[policy.Egress].Pod; p != nil {
			got = p.UID
		}
		if got != want {
			t.Errorf("%s: the address of port %d is that of %q, want %q", what, port, got, want)
		}
	}
	p, a := podAt(0, "web"), attachmentAt(0)
	set(without(p))
	e.attach(a)
	check("no address in the API", 0, p.UID)
	set(p)
	check("the same address in the API", 0, p.UID)
	moved := p
	moved.Addresses = podAt(1, "").Addresses
	set(moved)
	check("another address in the API", 0, "")
	check("another address in the API", 1, p.UID)

	// The pod gets a new container, and the API still has the address of the old one.
	second := attachmentAt(2)
	second.UID, second.ContainerID = p.UID, "second"
	e.attach(second)
	check("a second container", 2, p.UID)
	e.Detach(a)
	check("the first container is gone", 2, p.UID)
	moved.Addresses = second.Addresses
	set(moved)
	check("the API has the new address", 2, p.UID)

	// The next pod has the address, before the API knows that the last one has ended.
	young := podAt(3, "old")
	young.Since = 1000
	next := without(podAt(3, "next"))
	next.UID, next.Name, next.Since = "next", "next", 10
	set(young)
	set(next)
	of := attachmentAt(3)
	of.UID, of.Name, of.ContainerID = next.UID, next.Name, "next"
	e.attach(of)
	check("an address that was another pod's", 3, "next")
	next.Addresses = podAt(3, "").Addresses
	set(next)
	check("an address that was another pod's, in the API", 3, "next")

	// A static pod has another UID in the API; a runtime may know none.
	for i, uid := range map[int]string{4: "of the kubelet", 5: ""} {
		set(without(podAt(i, "static")))
		static := attachmentAt(i)
		static.UID = uid
		e.attach(static)
		check("a pod with the UID "+uid, i, podAt(i, "").UID)
	}
	// A pod that is being deleted has the name of the next one.
	old := without(podAt(6, "web"))
	old.Deleting = true
	set(old)
	another := attachmentAt(6)
	another.UID = "another"
	e.attach(another)
	check("another pod with the name", 6, "")
}

// TestIsolate: a pod is closed until its rules are in the kernel, also across a restart, and also while nothing is known.
func TestIsolate(t *testing.T) {
	l := newLab(t)
	e, stop := start(t, Options{})
	isolate := func(i int, cause error) {
		t.Helper()
		attach(t, e, attachmentAt(i), cause)
		if err := e.Isolate(attachmentAt(i)); err != nil {
			t.Fatal(err)
		}
		l.passes(t, false, tcp(i, 7, 80), tcp(7, i, 80))
	}
	isolate(0, ErrNotSynced)
	apply(t, e, denied(t))
	isolate(1, ErrPodUnknown)
	l.passes(t, true, tcp(6, 7, 80))
	if s := e.Status(); len(s.Closed) != 4 || s.Waiting != 2 {
		t.Errorf("%+v", s)
	}
	stop()

	e, _ = start(t, Options{})
	l.passes(t, false, tcp(0, 7, 80), tcp(1, 7, 80))
	isolate(2, ErrNotSynced)
	l.passes(t, false, tcp(0, 7, 80), tcp(1, 7, 80))
	apply(t, e, denied(t))
	l.passes(t, false, tcp(0, 7, 80), tcp(1, 7, 80), tcp(2, 7, 80))
	apply(t, e, func(to policy.Objects) { // known, and allowed
		to.DeletePolicy("red", "deny")
		to.SetPod(podAt(0, "web"))
		to.SetPod(without(podAt(2, "web")))
	})
	attach(t, e, attachmentAt(2), nil)
	l.passes(t, true, tcp(0, 7, 80), tcp(2, 7, 80), tcp(7, 2, 80))
	l.passes(t, false, tcp(1, 7, 80))
	if err := e.Isolate(attachmentAt(2)); err != nil { // too late
		t.Error(err)
	}
	l.passes(t, true, tcp(2, 7, 80))
	e.attach(attachmentAt(1))
	e.Detach(attachmentAt(1))
	await(t, e, "no closed address", func() bool { return len(e.state.Closed) == 0 })
	if got := tables(t); len(got) != 0 {
		t.Errorf("tables %q, want none", got)
	}
}

// TestBridgeSetting: no pod is attached before packets between the ports of a bridge are judged.
func TestBridgeSetting(t *testing.T) {
	l := newLab(t)
	l.must(write(map[string]string{"bridge/bridge-nf-call-ip6tables": "0"}))
	changed := make(chan struct{}, 1)
	e, _ := start(t, Options{Changed: func() { notify(changed) }})
	apply(t, e, denied(t))
	apply(t, e, func(to policy.Objects) { to.SetPod(podAt(0, "web")) })
	done := make(chan error, 1)
	go func() { done <- e.Attach(t.Context(), attachmentAt(0)) }()
	await(t, e, "an attachment", func() bool { return len(e.attached) > 0 })
	e.mu.Lock()
	waiting := !e.attached[attachmentAt(0).ContainerID].inSync
	e.mu.Unlock()
	if !waiting || !e.Enforcing() {
		t.Error("the pod is attached before its packets are judged")
	}
	<-changed // the node's loop sets it then
	l.must(write(map[string]string{"bridge/bridge-nf-call-ip6tables": "1"}))
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.passes(t, false, tcp(0, 7, 80), probe{Packet: policy.Packet{Source: podAddress(0, true),
		Destination: podAddress(7, true), Protocol: policy.UDP, Port: uint16(subnet.IPv6)}})
}
