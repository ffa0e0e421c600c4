package main

import (
	"os"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/subnet"
)

// This file has what the daemon's command line says of the lease store.

// registerStore defines the flags of the lease store.
func (f *flags) registerStore(s *pflag.FlagSet) {
	command.StoreFlags(s, &f.store)
	s.BoolVar(&f.store.Kube.NetworkCondition, "set-node-network-unavailable", true,
		"once the network is up, set the condition NetworkUnavailable of the Node to False, for --kube-subnet-mgr")
	s.DurationVar(&f.store.Etcd.LeaseTTL, "subnet-lease-ttl", command.DefaultLeaseTTL,
		"how long the subnet stays reserved after this node is gone, in etcd")
	s.IntVar(&f.renewMargin, "subnet-lease-renew-margin", 60,
		"in minutes; accepted for compatibility with flannel, has no effect: the lease is always kept alive")
}

// finishStore checks the flags of the lease store, and completes the node's options from them.
func (f *flags) finishStore() error {
	if err := f.store.Complete(f.lookup); err != nil {
		return err
	}
	f.node.StorePrefix, f.node.LeaseTTL = f.store.Prefix(), f.store.Etcd.LeaseTTL
	if f.store.Kubernetes {
		// A lease does not expire. After the store has lost data, a missing Node is retained for this time.
		f.node.LeaseTTL = command.DefaultLeaseTTL
		f.store.Kube.API.UserAgent = "selvaged/" + version
		if f.node.NodeName == "" {
			f.node.NodeName = f.store.Kube.Node
		}
	}
	if f.node.NodeName == "" {
		f.node.NodeName, _ = os.Hostname() // for display only
	}
	return nil
}

// storeName is the name of the lease store for people.
func (f *flags) storeName() string {
	if f.store.Kubernetes {
		return "Kubernetes"
	}
	return "etcd"
}

// openStore opens the lease store.
func (f *flags) openStore(log logrus.FieldLogger) (command.Store, error) {
	store, err := f.store.Open(log)
	if err != nil {
		return nil, err
	}
	f.node.Store = store
	if a, ok := store.(subnet.AccessReporter); ok {
		f.node.StoreEndpoints = a.Access().Endpoints
	}
	return store, nil
}

// storeFields are what the first line of the log says of the node and its lease store.
func (f *flags) storeFields() logrus.Fields {
	return logrus.Fields{
		"version": version, "node": f.node.NodeName,
		subnet.KindOf(f.node.Store).Words().Label: strings.Join(f.node.StoreEndpoints, ","),
	}
}
