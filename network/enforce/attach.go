package enforce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/subnet"
)

// Attachment is the interface of a pod of this node, as the CNI plugin made it.
type Attachment struct {
	UID         string // of the pod, as the kubelet has it; empty: not known
	Namespace   string
	Name        string
	ContainerID string        // identifies the attachment: a pod that is restarted gets another one
	Interface   string        // the pod's end on the node; empty: not known
	Addresses   [2]netip.Addr // by [subnet.Family]; invalid: none
}

// attached is an attachment in the engine.
type attached struct {
	Attachment
	order  uint64        // of the attachments
	since  int64         // when it was attached, in seconds since 1970; 0: by an earlier run
	before [2]netip.Addr // the pod's addresses in the API at that time
	inSync bool          // a pass has applied the rules of its pod since, or no policy may select it
}

// The errors of [Engine.Attach] wrap one of these, and that of the context.
var (
	// ErrNotSynced means that the lists of all objects are not complete.
	ErrNotSynced = errors.New("the policies are not known yet")
	// ErrPodUnknown means that the API has not shown the pod yet.
	ErrPodUnknown = errors.New("the API server has not reported the pod yet")
	// ErrNotApplied means that the kernel does not have the rules yet.
	ErrNotApplied = errors.New("the kernel does not have the rules yet")
)

// Attach reports that a pod got its interface and addresses. It returns when the rules for the pod are in the kernel,
// or when ctx ends. Then the attachment counts all the same, and is in force as soon as its pod is known. A pod that
// no policy may select, whatever its labels are, does not have to be known.
func (e *Engine) Attach(ctx context.Context, a Attachment) error {
	e.attach(a)
	for {
		e.mu.Lock()
		x, passed, cause := e.attached[a.ContainerID], e.passed, ErrNotApplied
		switch {
		case x == nil || x.Attachment != a: // detached meanwhile, or attached again
			e.mu.Unlock()
			return fmt.Errorf("pod %s/%s: the container was detached", a.Namespace, a.Name)
		case x.inSync:
			e.mu.Unlock()
			return nil
		case !e.synced:
			cause = ErrNotSynced
		default:
			if _, ok := e.podOf(x); !ok {
				cause = ErrPodUnknown
			}
		}
		e.mu.Unlock()
		select {
		case <-passed:
		case <-ctx.Done():
			return fmt.Errorf("pod %s/%s: %w: %w", a.Namespace, a.Name, cause, ctx.Err())
		}
	}
}

// attach adds an attachment.
func (e *Engine) attach(a Attachment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.attached[a.ContainerID]; x != nil && x.Attachment == a {
		return
	}
	x := &attached{Attachment: a, since: time.Now().Unix()}
	e.add(x)
	if p, ok := e.podOf(x); ok {
		x.before = p.Addresses
	}
	e.refresh(x)
	e.change()
}

// add adds an attachment. What has its addresses or its interface is gone.
func (e *Engine) add(x *attached) {
	for id, old := range e.attached {
		sameInterface := x.Interface != "" && old.Interface == x.Interface
		if id == x.ContainerID || sameInterface || shares(x.Addresses, old.Addresses) {
			e.remove(old)
		}
	}
	e.attachments++
	x.order = e.attachments
	e.attached[x.ContainerID] = x
	e.sourcesChanged = true
}

// shares reports whether two attachments have an address in common.
func shares(a, b [2]netip.Addr) bool {
	for _, f := range subnet.Families() {
		if a[f].IsValid() && a[f] == b[f] {
			return true
		}
	}
	return false
}

// remove removes an attachment.
func (e *Engine) remove(x *attached) {
	delete(e.attached, x.ContainerID)
	e.sourcesChanged = true
	for _, a := range addressesOf(x.Addresses) {
		delete(e.closed, a)
	}
	e.refresh(x)
}

// Detach reports that a pod has lost its interface, and its addresses are free. Only the container counts: its pod can
// have another one by now.
func (e *Engine) Detach(a Attachment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.attached[a.ContainerID]; x != nil {
		e.remove(x)
		e.change()
	}
}

// SetAttachments says which attachments there are, by the CNI plugin's records. Those of which [Engine.Attach] was
// called stay, whether or not they have a record yet. Until its first call, the table of sources that an earlier run
// left stays as it is.
func (e *Engine) SetAttachments(list []Attachment) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sourcesChanged, e.recorded = e.sourcesChanged || !e.recorded, true
	recorded := map[string]bool{}
	for _, a := range list {
		recorded[a.ContainerID] = true
		if e.attached[a.ContainerID] == nil {
			x := &attached{Attachment: a}
			e.add(x)
			e.refresh(x)
		}
	}
	for id, x := range e.attached {
		if x.since == 0 && !recorded[id] {
			e.remove(x)
		}
	}
	e.change()
}

// Isolate denies all connections of a pod until its rules are in the kernel. [Engine.Attach] was called before and has
// returned an error. It returns when the pod is closed, or an error of the kernel.
func (e *Engine) Isolate(a Attachment) error {
	e.mu.Lock()
	x := e.attached[a.ContainerID]
	if x == nil || x.inSync {
		e.mu.Unlock()
		return nil
	}
	for _, address := range addressesOf(a.Addresses) {
		e.closed[address] = true
	}
	e.closings++
	for number := e.closings; ; {
		applied, err, passed := e.closingsApplied, e.closingErr, e.passed
		e.mu.Unlock()
		if applied >= number {
			return err
		}
		notify(e.wake)
		select {
		case <-passed:
		case <-e.ended:
			return errors.New("the daemon ends")
		}
		e.mu.Lock()
	}
}

// bindings returns the ports of pods, and their addresses.
func (e *Engine) bindings() (list []ruleset.Binding) {
	for _, x := range e.attached {
		if x.Interface != "" {
			list = append(list, ruleset.Binding{Interface: x.Interface, Addresses: x.Addresses})
		}
	}
	return list
}
