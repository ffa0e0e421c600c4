package main

import (
	"errors"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/mesh/exchange"
)

// meshFlags say whether other nodes can ask this one for a summary of its state.
type meshFlags struct{ exchange.Options }

func (f *meshFlags) register(s *pflag.FlagSet) {
	s.StringVar(&f.Address, "mesh-addr", "", "address and port that serve a summary of this node's state to the other "+
		"nodes, for selvaged mesh; the port is the same on all nodes; empty for none")
	s.StringVar(&f.Files.CA, "mesh-cafile", "", "file with the CA certificate that signed the nodes' certificates, "+
		"for --mesh-addr")
	s.StringVar(&f.Files.Cert, "mesh-certfile", "", "file with this node's certificate, as a server and as a client")
	s.StringVar(&f.Files.Key, "mesh-keyfile", "", "file with the private key of this node's certificate")
	s.StringVar(&f.ServerName, "mesh-server-name", "", "DNS name that all nodes' certificates have, instead of the "+
		"node's public IPs")
}

// listen opens the port and reads the files. Without --mesh-addr it does nothing.
func (f *meshFlags) listen(log logrus.FieldLogger) (*exchange.Server, error) {
	if f.Address == "" {
		if f.Files != (exchange.Files{}) || f.ServerName != "" {
			return nil, errors.New("--mesh-cafile, --mesh-certfile, --mesh-keyfile and --mesh-server-name need " +
				"--mesh-addr")
		}
		return nil, nil
	}
	f.Log = log
	return exchange.Listen(f.Options)
}
