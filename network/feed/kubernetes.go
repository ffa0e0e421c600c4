package feed

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/outage"
)

const (
	// lingerFor is for how long the pods of other nodes are followed after they are needed no more, so that a pod that
	// restarts does not cost a list.
	lingerFor = 5 * time.Minute
	// absentFor is how often ClusterNetworkPolicies are looked for that the API server does not have.
	absentFor = time.Minute
	// chunk is how many objects of a list are handed over at a time.
	chunk = 500
)

// The resources that are followed, beside namespaces and pods.
var (
	networkPolicies = apiserver.Resource{Group: "networking.k8s.io", Version: "v1", Name: "networkpolicies"}
	clusterPolicies = apiserver.Resource{
		Group: "policy.networking.k8s.io", Version: "v1beta1", Name: "clusternetworkpolicies",
	}
)

// Rights are what the API server has to allow for [Kubernetes].
func Rights() (list []apiserver.Right) {
	for _, r := range []apiserver.Resource{apiserver.Namespaces, apiserver.Pods, networkPolicies, clusterPolicies} {
		for _, verb := range []string{"get", "list", "watch"} {
			list = append(list, apiserver.Right{Verb: verb, Resource: r})
		}
	}
	return list
}

// KubernetesOptions are the options of [Kubernetes].
type KubernetesOptions struct {
	Client *apiserver.Client
	Node   string // the name of this node, as in the pods' spec.nodeName
	Sink   Sink
	// ListSpread is over how long the lists of all nodes are spread after a fault that affects them all; see
	// [apiserver.FollowOptions].
	ListSpread time.Duration
	Report     *Report // gets what there is to report; may be nil
	Log        logrus.FieldLogger

	// For tests, which cannot wait for what a node can.
	linger, absent time.Duration
}

// Kubernetes follows the objects in the API until ctx ends, and hands them over. What was handed over stays.
func Kubernetes(ctx context.Context, o KubernetesOptions) error {
	k := newKubernetes(o)
	var all sync.WaitGroup
	errs := make([]error, 4)
	all.Go(func() {
		errs[0] = follow(ctx, k, Namespaces, o.Client.Labelled(apiserver.Namespaces), k.namespaceHandler(),
			apiserver.FollowOptions{})
	})
	all.Go(func() {
		errs[1] = follow(ctx, k, NetworkPolicies, o.Client.Raw(networkPolicies), k.policyHandler(),
			apiserver.FollowOptions{})
	})
	all.Go(func() {
		errs[2] = follow(ctx, k, ClusterNetworkPolicies, o.Client.Raw(clusterPolicies), k.clusterPolicyHandler(),
			apiserver.FollowOptions{Absent: k.o.absent})
	})
	all.Go(func() {
		errs[3] = follow(ctx, k, Pods, o.Client.Pods(), k.ownHandler(),
			apiserver.FollowOptions{Fields: "spec.nodeName=" + o.Node})
	})
	all.Go(func() { k.peers(ctx) })
	all.Wait()
	return errors.Join(errs...)
}

// kubernetes is one call of Kubernetes.
type kubernetes struct {
	o      KubernetesOptions
	outage *outage.Outage // of all sources

	mu         sync.Mutex // held while the sink is called
	complete   map[Source]bool
	namespaces map[string]bool       // those that are known
	own        map[string]policy.Pod // of this node, by UID; also those that wait for their namespace
}

func newKubernetes(o KubernetesOptions) *kubernetes {
	if o.Report == nil {
		o.Report = &Report{}
	}
	if o.linger == 0 {
		o.linger = lingerFor
	}
	if o.absent == 0 {
		o.absent = absentFor
	}
	return &kubernetes{
		o: o, complete: map[Source]bool{}, namespaces: map[string]bool{}, own: map[string]policy.Pod{},
		outage: &outage.Outage{Log: o.Log,
			Lost: "cannot follow network policies and pods in the Kubernetes API; those that are known stay in force",
			Back: "network policies and pods are followed again"},
	}
}

// change is a change of an object. It is called with the mutex held.
type change func(policy.Objects)

// update hands changes over.
func (k *kubernetes) update(changes []change) {
	if len(changes) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.o.Sink.Update(func(o policy.Objects) {
		for _, c := range changes {
			c(o)
		}
	})
}

// settle tells the sink whether all is known that it needs. The mutex is held.
func (k *kubernetes) settle() {
	synced := k.complete[Peers] || !k.o.Sink.NeedsPeers()
	for _, s := range []Source{Namespaces, NetworkPolicies, ClusterNetworkPolicies, Pods} {
		synced = synced && k.complete[s]
	}
	k.o.Sink.SetSynced(synced)
}

// peers follows the pods of other nodes while they are needed.
func (k *kubernetes) peers(ctx context.Context) {
	var stop func() // of what follows them; nil: nothing does
	var idle <-chan time.Time
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for {
		needs := k.o.Sink.NeedsPeers()
		switch {
		case needs && stop == nil:
			stop = k.followPeers(ctx)
		case needs:
			idle = nil
		case stop != nil && idle == nil:
			idle = time.After(k.o.linger)
		}
		select {
		case <-ctx.Done():
			return
		case <-k.o.Sink.PeersChanged():
			k.mu.Lock()
			k.settle()
			k.mu.Unlock()
		case <-idle:
			stop()
			stop, idle = nil, nil
		}
	}
}

// followPeers begins to follow the pods of other nodes. stop ends that, and withdraws them unless ctx has ended.
func (k *kubernetes) followPeers(ctx context.Context) (stop func()) {
	following, cancel := context.WithCancel(ctx)
	o := apiserver.FollowOptions{
		Fields:   "spec.nodeName!=" + k.o.Node + ",spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
		Withdraw: true,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = follow(following, k, Peers, k.o.Client.Pods(), k.peerHandler(ctx, following), o) // nil at the end of ctx
	}()
	return func() {
		k.mu.Lock()
		k.complete[Peers] = false
		cancel()
		k.mu.Unlock()
		<-ended
		k.o.Report.forget(Peers)
	}
}
