package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/network/mesh/exchange"
	"github.com/selvage-net/selvage/subnet/kube"
)

// meshFlags say whether other nodes can ask this one for a summary of its state.
type meshFlags struct {
	exchange.Options
	accounts []string
}

func (f *meshFlags) register(s *pflag.FlagSet) {
	s.StringVar(&f.Address, "mesh-addr", "", "address and port that serve a summary of this node's state to the other "+
		"nodes, for selvaged mesh; the port is the same on all nodes; empty for none")
	s.StringVar(&f.Files.CA, "mesh-cafile", "", "file with the CA certificate that signed the nodes' certificates, "+
		"for --mesh-addr")
	s.StringVar(&f.Files.Cert, "mesh-certfile", "", "file with this node's certificate, as a server and as a client")
	s.StringVar(&f.Files.Key, "mesh-keyfile", "", "file with the private key of this node's certificate")
	s.StringVar(&f.ServerName, "mesh-server-name", "", "DNS name that all nodes' certificates have, instead of the "+
		"node's public IPs")
	s.StringVar(&f.Tokens.File, "mesh-token-file", "", "file with the token of a ServiceAccount for the audience "+
		exchange.Audience+", in place of certificates, with --kube-subnet-mgr")
	s.StringSliceVar(&f.accounts, "mesh-token-accounts", nil, "ServiceAccounts whose tokens are accepted, as "+
		"namespace/name, with --mesh-token-file")
	s.BoolVar(&f.Detail, "mesh-detail", true, "also tell those who ask about this node alone its latest repairs and "+
		"denied packets, with names of pods, and what selvaged doctor finds")
}

// listenMesh opens the port and reads the files. Without --mesh-addr it does nothing.
func (f *flags) listenMesh(log logrus.FieldLogger, store command.Store) (*exchange.Server, error) {
	m := &f.mesh
	certificates := m.Files != (exchange.Files{}) || m.ServerName != ""
	tokens := m.Tokens.File != "" || len(m.accounts) > 0
	switch {
	case m.Address == "" && (certificates || tokens):
		return nil, errors.New("--mesh-cafile, --mesh-certfile, --mesh-keyfile, --mesh-server-name, " +
			"--mesh-token-file and --mesh-token-accounts need --mesh-addr")
	case m.Address == "":
		return nil, nil
	case certificates && tokens:
		return nil, errors.New("--mesh-token-file and --mesh-token-accounts take the place of --mesh-cafile, " +
			"--mesh-certfile, --mesh-keyfile and --mesh-server-name: set either")
	case tokens && (m.Tokens.File == "" || len(m.accounts) == 0):
		return nil, errors.New("--mesh-token-file and --mesh-token-accounts need each other")
	case tokens:
		s, ok := store.(*kube.Store)
		if !ok {
			return nil, errors.New("--mesh-token-file needs --kube-subnet-mgr: the API server reviews the tokens, " +
				"and the Nodes have the keys of the nodes' servers. With leases in etcd, use certificates")
		}
		for _, text := range m.accounts {
			a, err := exchange.ParseAccount(text)
			if err != nil {
				return nil, fmt.Errorf("--mesh-token-accounts: %w", err)
			}
			m.Tokens.Accounts = append(m.Tokens.Accounts, a)
		}
		m.Tokens.KeyFile = filepath.Join(f.node.StateDir, exchange.KeyFile)
		m.Tokens.Review = s.Reviewer(exchange.Audience)
	}
	m.Log = log
	if f.socket != "" {
		m.Examine = command.Examiner(f.socket, f.node.SubnetFile)
	}
	return exchange.Listen(m.Options)
}
