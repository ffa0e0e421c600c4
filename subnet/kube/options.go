package kube

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// Defaults of [Options].
const (
	DefaultNetConfPath = "/etc/kube-flannel/net-conf.json"
	DefaultListSpread  = 10 * time.Second
)

// Options say where the API server is and which Node is this one.
type Options struct {
	// API says where the API server is. Annotations is not used, and Log is that of the store if it is nil.
	API apiserver.Options
	// Node is the name of this node's Node. If it is empty, Pod names the Pod that runs on it; see [IdentityOf].
	Node string
	Pod  Pod
	// Prefix is what the names of the annotations begin with, as [ParsePrefix] returns it; empty: DefaultPrefix.
	Prefix string
	// NetConfPath is the file with the network config; empty: DefaultNetConfPath.
	NetConfPath string
	// NetworkCondition has the Node's condition NetworkUnavailable set to False once its network is up, see
	// [Store.AnnounceNetwork].
	NetworkCondition bool
	// ListSpread is the time over which the nodes of a cluster spread their lists when all of them have to list the
	// Nodes again, because the API server was restarted or its etcd restored from a backup: each waits a random part of
	// it. Above 1,000 Nodes it is longer in proportion to their number. The first list of a Watch does not wait.
	// 0: DefaultListSpread; negative: at once.
	ListSpread time.Duration
	// Log gets a line when the API server becomes unavailable and one when it is back; nil: nothing is logged.
	Log logrus.FieldLogger

	// For tests, which cannot wait for what a node can.
	quiet     time.Duration // see quietInterval
	advance   time.Duration // see advanceAfter
	retryLast time.Duration // see retryLast
}

func (o Options) withDefaults() (Options, error) {
	if o.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		o.Log = silent
	}
	if o.API.Log == nil {
		o.API.Log = o.Log
	}
	if o.Node == "" && o.Pod == (Pod{}) {
		return o, errNoIdentity
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.NetConfPath == "" {
		o.NetConfPath = DefaultNetConfPath
	}
	if o.ListSpread == 0 {
		o.ListSpread = DefaultListSpread
	}
	if o.quiet == 0 {
		o.quiet = quietInterval
	}
	if o.advance == 0 {
		o.advance = advanceAfter
	}
	if o.retryLast == 0 {
		o.retryLast = retryLast
	}
	o.API.Annotations = namesOf(o.Prefix).all()
	return o, nil
}

// Pod names a Pod.
type Pod struct{ Namespace, Name string }

var errNoIdentity = errors.New("the name of this node's Node is unknown: set NODE_NAME, or POD_NAME and " +
	"POD_NAMESPACE, in the environment (the downward API has spec.nodeName, metadata.name and metadata.namespace)")

// IdentityOf reads the environment for the name of this node's Node, as flannel does: NODE_NAME, or else POD_NAME and
// POD_NAMESPACE, which name a Pod whose spec.nodeName it is. The [Store] asks the API server for that when it first
// needs it, so that a node starts without one.
func IdentityOf(lookup func(name string) (string, bool)) (node string, pod Pod, err error) {
	get := func(name string) string {
		value, _ := lookup(name)
		return value
	}
	if node = get("NODE_NAME"); node != "" {
		return node, Pod{}, nil
	}
	pod = Pod{Namespace: get("POD_NAMESPACE"), Name: get("POD_NAME")}
	switch {
	case pod == Pod{}:
		return "", pod, errNoIdentity
	case pod.Namespace == "" || pod.Name == "":
		return "", pod, fmt.Errorf("%w: only one of POD_NAME and POD_NAMESPACE is set", errNoIdentity)
	}
	return "", pod, nil
}
