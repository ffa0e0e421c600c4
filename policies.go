package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/feed"
	"github.com/selvage-net/selvage/network/filter/engines"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// Values of --network-policy.
const (
	policyOff  = "off"
	policyOn   = "on"
	policyAuto = "auto"
)

// policyLogGroup is the group of nf_tables' log to which denied packets are logged. Group 0 is the kernel's own log.
const policyLogGroup = 7

// policyFlags are the flags that concern network policies.
type policyFlags struct {
	mode   string
	dir    string
	reject bool
	keep   bool
}

func (p *policyFlags) register(s *pflag.FlagSet) {
	s.StringVar(&p.mode, "network-policy", policyOff,
		"enforce network policies: on, off, or auto (on unless another engine's rules are there, or nf_tables is not)")
	s.StringVar(&p.dir, "policy-dir", "",
		"take policies, namespaces and pods from the YAML files of this directory, instead of from Kubernetes")
	s.BoolVar(&p.reject, "policy-reject", false,
		"answer denied packets with an error, instead of dropping them silently")
	s.BoolVar(&p.keep, "policy-keep-connections", false,
		"let connections go on that a changed policy denies, instead of cutting them")
}

func (p *policyFlags) check(kubernetes bool) error {
	switch p.mode {
	case policyOff, policyOn, policyAuto:
	default:
		return fmt.Errorf("--network-policy: %q, want %s, %s or %s", p.mode, policyOn, policyOff, policyAuto)
	}
	if p.mode == policyOn && !kubernetes && p.dir == "" {
		return errors.New("--network-policy=on: want --kube-subnet-mgr or --policy-dir, from which policies are taken")
	}
	return nil
}

// openPolicies prepares the enforcement of network policies, if they are to be enforced. Otherwise the options say why
// not, and the node removes what an earlier run enforced.
func (f *flags) openPolicies(log logrus.FieldLogger) (err error) {
	if f.node.PoliciesOff = f.policiesOff(log); f.node.PoliciesOff != "" {
		return nil
	}
	policies, err := node.NewPolicies(enforce.Options{
		Node: f.policyNode(), Scope: node.PolicyScope(f.node.StorePrefix), Reject: f.policy.reject,
		KeepConnections: f.policy.keep, LogGroup: policyLogGroup, Resync: f.node.Resync, Log: log,
	})
	if errors.Is(err, enforce.ErrUnsupported) && f.policy.mode == policyAuto {
		log.WithError(err).Warn("network policies are not enforced")
		f.node.PoliciesOff = status.Unsupported
		return nil
	}
	if err != nil {
		return fmt.Errorf("--network-policy=%s: %w", policyOn, err)
	}
	f.node.Policies = policies
	policies.Feed, err = f.policyFeed(log)
	return err
}

// policiesOff says why no network policies are to be enforced; empty: they are.
func (f *flags) policiesOff(log logrus.FieldLogger) status.Reason {
	p := f.policy
	if p.mode == policyOff || p.mode == policyAuto && !f.store.Kubernetes && p.dir == "" {
		return status.PolicyDisabled
	}
	if p.mode == policyOn {
		return ""
	}
	found, err := engines.Read()
	if err != nil { // two engines deny what either denies; without any, everything passes
		log.WithError(err).Warn("cannot look for other engines of network policies; enforcing them")
	}
	for _, e := range found {
		log.WithFields(logrus.Fields{"engine": e.Name, "rules": e.Places[0].String()}).
			Warn("network policies are not enforced, because another engine's rules are there; --network-policy=on " +
				"enforces them beside it")
	}
	if len(found) > 0 {
		return status.PolicyOtherEngine
	}
	return ""
}

// policyNode returns the name of this node in the pods' spec.nodeName.
func (f *flags) policyNode() string {
	if f.store.Kubernetes {
		return f.store.Kube.Node // --node-name can differ: it is for display
	}
	return f.node.NodeName
}

// policyFeed returns what feeds the engine.
func (f *flags) policyFeed(log logrus.FieldLogger) (func(context.Context) error, error) {
	p := f.node.Policies
	if dir := f.policy.dir; dir != "" {
		return func(ctx context.Context) error {
			return feed.Directory(ctx, feed.DirectoryOptions{Dir: dir, Sink: p.Engine, Report: p.Report, Log: log})
		}, nil
	}
	client, err := apiserver.New(f.store.Kube.API)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		defer client.Close()
		return feed.Kubernetes(ctx, feed.KubernetesOptions{
			Client: client, Node: f.policyNode(), Sink: p.Engine, Report: p.Report, Log: log,
		})
	}, nil
}

// addPolicies has the API answer what is asked about policies, and take the CNI plugin's reports.
func (f *flags) addPolicies(o *api.Options) {
	if f.node.Policies != nil {
		o.Attacher = node.Attacher{Engine: f.node.Policies.Engine}
		o.Policies = f.node.Policies.Answers(f.policyNode())
	}
}

// awaitPolicies has new pods wait for their policies at the socket that the API is served on; empty: there is none.
func (f *flags) awaitPolicies(socket string, log logrus.FieldLogger) (err error) {
	switch {
	case f.node.Policies == nil:
	case socket == "":
		log.Warn("there is no socket, so new pods do not wait until their network policies are in force")
	default:
		f.node.Policies.Socket, err = filepath.Abs(socket)
	}
	return err
}
