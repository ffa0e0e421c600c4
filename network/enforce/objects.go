package enforce

import (
	"net/netip"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// objects passes objects on to the compiler. Pods of this node get the addresses that they were attached with.
type objects struct {
	*policy.Compiler
	engine *Engine
}

// SetPod implements [policy.Objects].
func (o objects) SetPod(p policy.Pod) {
	if o.engine.isLocal(p) {
		o.engine.local[p.UID] = p
		p = o.engine.effective(p)
	} else {
		delete(o.engine.local, p.UID)
	}
	o.Compiler.SetPod(p)
}

// DeletePod implements [policy.Objects].
func (o objects) DeletePod(uid string) {
	delete(o.engine.local, uid)
	o.Compiler.DeletePod(uid)
}

func (e *Engine) isLocal(p policy.Pod) bool { return p.Node != "" && p.Node == e.options.Node }

// effective returns a pod of this node with the addresses that it was attached with.
func (e *Engine) effective(p policy.Pod) policy.Pod {
	a := e.attachmentOf(p)
	if a == nil || !p.Counts() {
		return p
	}
	for _, f := range subnet.Families() {
		given, shown := a.Addresses[f], p.Addresses[f]
		if !given.IsValid() || shown.IsValid() && shown != given && shown != a.before[f] {
			continue
		}
		p.Addresses[f] = given
		// The pod that had the address before can still be in the API, and be younger than this one.
		p.Since = max(p.Since, a.since)
	}
	return p
}

// attachmentOf returns the last attachment of a pod of this node, or nil.
func (e *Engine) attachmentOf(p policy.Pod) (last *attached) {
	for _, a := range e.attached {
		if e.isOf(a, p) && (last == nil || a.order > last.order) {
			last = a
		}
	}
	return last
}

// isOf reports whether an attachment is a pod's. The kubelet gives a static pod an UID of its own, and the API server
// another one to its mirror. And a runtime need not know UIDs at all. So a name counts too, if no pod has the UID; but
// not that of a pod that is being deleted, since the next one may have its name.
func (e *Engine) isOf(a *attached, p policy.Pod) bool {
	if a.UID == p.UID {
		return true
	}
	if a.Namespace != p.Namespace || a.Name != p.Name || p.Deleting {
		return false
	}
	_, known := e.local[a.UID]
	return !known
}

// podOf returns the pod of this node that an attachment is of.
func (e *Engine) podOf(a *attached) (p policy.Pod, ok bool) {
	if p, ok = e.local[a.UID]; ok {
		return p, true
	}
	for _, p := range e.local {
		if e.isOf(a, p) {
			return p, true
		}
	}
	return p, false
}

// refresh sets the pod of an attachment again.
func (e *Engine) refresh(a *attached) {
	if p, ok := e.podOf(a); ok {
		e.compiler.SetPod(e.effective(p))
	}
	e.notePeers()
}

// addressesOf returns the addresses that are valid.
func addressesOf(list [2]netip.Addr) (all []netip.Addr) {
	for _, a := range list {
		if a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}
