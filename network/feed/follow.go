package feed

import (
	"context"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// handler says what the objects of a resource change.
type handler[T any] struct {
	put    func(T) change // nil: nothing
	remove func(k apiserver.Key, uid string) change
	// stopped reports that the source is given up; nil: never. It is called with the mutex held.
	stopped func() bool
}

// follower hands the objects of a resource over.
type follower[T any] struct {
	handler[T]
	k       *kubernetes
	source  Source
	known   bool // the first list was complete
	pending []change
}

// follow follows the objects of a resource until ctx ends.
func follow[T any](
	ctx context.Context, k *kubernetes, s Source, r apiserver.Reader[T], h handler[T], o apiserver.FollowOptions,
) error {
	o.ListSpread, o.Trouble = k.o.ListSpread, trouble{k, s}
	k.o.Report.begin(s)
	return r.Follow(ctx, o, &follower[T]{handler: h, k: k, source: s})
}

// Put implements [apiserver.Follower].
func (f *follower[T]) Put(object T) { f.add(f.put(object)) }

// Delete implements [apiserver.Follower].
func (f *follower[T]) Delete(k apiserver.Key, uid string) { f.add(f.remove(k, uid)) }

func (f *follower[T]) add(c change) {
	if c == nil {
		return
	}
	if f.pending = append(f.pending, c); len(f.pending) == chunk {
		f.flush()
	}
}

func (f *follower[T]) flush() {
	f.k.update(f.pending)
	clear(f.pending)
	f.pending = f.pending[:0]
}

// Synced implements [apiserver.Follower].
func (f *follower[T]) Synced(count int) {
	f.flush()
	f.k.o.Report.count(f.source, count)
	if f.known {
		return
	}
	f.known = true
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	if f.stopped == nil || !f.stopped() {
		f.k.complete[f.source] = true
		f.k.settle()
	}
}

// namespaceHandler hands over namespaces, and the pods of this node that have waited for one.
func (k *kubernetes) namespaceHandler() handler[apiserver.Object] {
	return handler[apiserver.Object]{
		put: func(o apiserver.Object) change {
			// Without all labels it would be selected by what is to exclude it.
			bad := k.note("Namespace", &o, nil)
			labels := policy.MakeLabels(o.Labels)
			return func(to policy.Objects) {
				if bad {
					to.DeleteNamespace(o.Name)
				} else {
					to.SetNamespace(policy.Namespace{Name: o.Name, Labels: labels})
				}
				if k.namespaces[o.Name] {
					return
				}
				k.namespaces[o.Name] = true
				for _, p := range k.own {
					if p.Namespace == o.Name {
						to.SetPod(p)
					}
				}
			}
		},
		remove: func(key apiserver.Key, _ string) change {
			k.unnote("Namespace", key)
			return func(to policy.Objects) {
				delete(k.namespaces, key.Name)
				to.DeleteNamespace(key.Name)
			}
		},
	}
}

// policyHandler hands over NetworkPolicies. One that cannot be read at all leaves what was known of it.
func (k *kubernetes) policyHandler() handler[apiserver.Raw] {
	const kind = "NetworkPolicy"
	return handler[apiserver.Raw]{
		put: func(o apiserver.Raw) change {
			p, err := policy.DecodePolicy(o.JSON)
			if err != nil {
				k.note(kind, &o.Object, unreadable(err))
				return nil
			}
			o.Bad = nil // what matters was read
			k.note(kind, &o.Object, p.Problems)
			return func(to policy.Objects) { to.SetPolicy(p) }
		},
		remove: func(key apiserver.Key, _ string) change {
			k.unnote(kind, key)
			return func(to policy.Objects) { to.DeletePolicy(key.Namespace, key.Name) }
		},
	}
}

// clusterPolicyHandler hands over ClusterNetworkPolicies, in the same way.
func (k *kubernetes) clusterPolicyHandler() handler[apiserver.Raw] {
	const kind = "ClusterNetworkPolicy"
	return handler[apiserver.Raw]{
		put: func(o apiserver.Raw) change {
			p, err := policy.DecodeClusterPolicy(o.JSON)
			if err != nil {
				k.note(kind, &o.Object, unreadable(err))
				return nil
			}
			o.Bad = nil
			k.note(kind, &o.Object, p.Problems)
			return func(to policy.Objects) { to.SetClusterPolicy(p) }
		},
		remove: func(key apiserver.Key, _ string) change {
			k.unnote(kind, key)
			return func(to policy.Objects) { to.DeleteClusterPolicy(key.Name) }
		},
	}
}

func unreadable(err error) []policy.Problem {
	return []policy.Problem{{Reason: policy.ReasonMalformed, Place: "object", Text: err.Error()}}
}

// ownHandler hands over the pods of this node.
func (k *kubernetes) ownHandler() handler[apiserver.Pod] {
	return handler[apiserver.Pod]{
		put: func(o apiserver.Pod) change {
			p, ok := k.pod(&o)
			if !ok {
				return nil
			}
			return func(to policy.Objects) {
				k.own[p.UID] = p
				if k.namespaces[p.Namespace] {
					to.SetPod(p)
				}
			}
		},
		remove: func(key apiserver.Key, uid string) change {
			k.unnote("Pod", key)
			return func(to policy.Objects) {
				delete(k.own, uid)
				to.DeletePod(uid)
			}
		},
	}
}

// peerHandler hands over the pods of other nodes, for as long as following is good. At the end of ctx they stay.
func (k *kubernetes) peerHandler(ctx, following context.Context) handler[apiserver.Pod] {
	return handler[apiserver.Pod]{
		put: func(o apiserver.Pod) change {
			p, ok := k.pod(&o)
			if !ok {
				return nil
			}
			return func(to policy.Objects) { to.SetPod(p) }
		},
		remove: func(key apiserver.Key, uid string) change {
			if ctx.Err() != nil {
				return nil
			}
			k.unnote("Pod", key)
			return func(to policy.Objects) {
				if _, own := k.own[uid]; !own { // it can have been given to this node meanwhile
					to.DeletePod(uid)
				}
			}
		},
		stopped: func() bool { return following.Err() != nil },
	}
}
