package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/grpclog"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/etcd"
	"github.com/selvage-net/selvage/subnet/kube"
)

// StoreOptions say which lease store is used, and how it is reached.
type StoreOptions struct {
	Kubernetes bool // leases are Nodes in the Kubernetes API, and not keys in etcd
	Etcd       etcd.Options
	Kube       kube.Options
	annotation string // --kube-annotation-prefix
}

// DefaultLeaseTTL is how long a lease in etcd runs without a keep-alive.
const DefaultLeaseTTL = 24 * time.Hour

// StoreFlags defines the flags that say which store is used, and how it is reached.
func StoreFlags(s *pflag.FlagSet, o *StoreOptions) {
	EtcdFlags(s, &o.Etcd)
	s.BoolVar(&o.Kubernetes, "kube-subnet-mgr", false,
		"store the leases in the Kubernetes API, as annotations of the Nodes, and not in etcd")
	s.StringVar(&o.Kube.API.Kubeconfig, "kubeconfig-file", "",
		"file with the API server and credentials for it; without it and --kube-api-url, the pod's service account")
	s.StringVar(&o.Kube.API.URL, "kube-api-url", "", "URL of the API server, instead of the one in --kubeconfig-file")
	s.StringVar(&o.annotation, "kube-annotation-prefix", strings.TrimSuffix(kube.DefaultPrefix, "/"),
		"prefix of the Nodes' annotations")
	s.StringVar(&o.Kube.NetConfPath, "net-config-path", kube.DefaultNetConfPath,
		"file with the network config, for --kube-subnet-mgr")
}

// Prefix returns the prefix of the network's scope, see network.NewScope.
func (o *StoreOptions) Prefix() string {
	if o.Kubernetes {
		return network.KubernetesPrefix(o.Kube.Prefix)
	}
	return o.Etcd.Prefix
}

// Complete checks the flags of the store in use, and reads what of its options is in the environment. It is called once
// the flags are set, before anything else.
func (o *StoreOptions) Complete(lookup func(string) (string, bool)) (err error) {
	if !o.Kubernetes {
		return nil
	}
	if o.Kube.Prefix, err = kube.ParsePrefix(o.annotation); err != nil {
		return fmt.Errorf("--kube-annotation-prefix: %w", err)
	}
	o.Kube.Node, o.Kube.Pod, err = kube.IdentityOf(lookup)
	return err
}

// Store is a lease store that can be closed.
type Store interface {
	subnet.Store
	io.Closer
}

// Open returns the store. It sends no request yet.
func (o *StoreOptions) Open(log logrus.FieldLogger) (Store, error) {
	if o.Kubernetes {
		o.Kube.Log = log
		return kube.New(o.Kube)
	}
	return o.openEtcd(log)
}

func (o *StoreOptions) openEtcd(log logrus.FieldLogger) (*etcd.Store, error) {
	// gRPC would print errors to stderr; the store logs them.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	o.Etcd.Log = log
	return etcd.New(o.Etcd)
}

// quiet returns the log of a command's store, whose errors the command reports by itself.
func quiet() logrus.FieldLogger {
	log := logrus.New()
	log.SetLevel(logrus.ErrorLevel)
	log.SetOutput(io.Discard)
	return log
}

// unused returns those of the flags that were set and concern the other store, with two dashes.
func (o *StoreOptions) unused(s *pflag.FlagSet) (names []string) {
	s.VisitAll(func(f *pflag.Flag) {
		etcdOnly := strings.HasPrefix(f.Name, "etcd-") || strings.HasPrefix(f.Name, "subnet-lease-")
		kubeOnly := f.Name == "kubeconfig-file" || f.Name == "net-config-path" || f.Name == "kube-api-url" ||
			f.Name == "kube-annotation-prefix" || f.Name == "set-node-network-unavailable"
		if f.Changed && (o.Kubernetes && etcdOnly || !o.Kubernetes && kubeOnly) {
			names = append(names, "--"+f.Name)
		}
	})
	return names
}

// Ignored returns the flags and environment variables that were set and have no effect on the store in use.
func (o *StoreOptions) Ignored(s *pflag.FlagSet, lookup func(string) (string, bool)) []string {
	names := o.unused(s)
	for _, name := range []string{"EVENT_QUEUE_DEPTH", "CONT_WHEN_CACHE_NOT_READY"} { // flannel's
		if value, _ := lookup(name); value != "" && o.Kubernetes {
			names = append(names, name)
		}
	}
	return names
}

// fromEnvironment sets a command's flags from the environment, and completes the options. The name of this node's Node
// matters to no command; without one in the environment it is the host's.
func (o *StoreOptions) fromEnvironment(s *pflag.FlagSet) error {
	if err := FromEnvironment(s, os.LookupEnv); err != nil {
		return err
	}
	return o.Complete(func(name string) (string, bool) {
		value, ok := os.LookupEnv(name)
		if name == "NODE_NAME" && value == "" {
			value, err := os.Hostname()
			return strings.ToLower(value), err == nil
		}
		return value, ok
	})
}

// snapshotTimeout is how long a command waits for all leases.
const snapshotTimeout = 30 * time.Second

// errSnapshot ends a watch that has given all leases.
var errSnapshot = errors.New("all leases are known")

// snapshot returns all records that are well formed, and the names of the malformed ones.
func snapshot(ctx context.Context, s subnet.Store) (found []subnet.Record, malformed []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	err = s.Watch(ctx, func(e subnet.Event) error {
		if e.Own {
			return nil // it comes again with all others
		}
		for _, r := range e.Put {
			if r.Bad != nil {
				malformed = append(malformed, r.Name)
			} else {
				found = append(found, r)
			}
		}
		if e.Type == subnet.Synced {
			return errSnapshot
		}
		return nil
	})
	if errors.Is(err, errSnapshot) {
		return found, malformed, nil
	}
	if x, ok := s.(subnet.HealthReporter); ok && err == nil {
		err = x.Outage().Problem.Err
	}
	return nil, nil, fmt.Errorf("list the leases: %w", cmp.Or(err, ctx.Err()))
}
