package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/subnet/etcd"
)

// EtcdFlags defines the flags for the connection to etcd.
func EtcdFlags(s *pflag.FlagSet, o *etcd.Options) {
	s.StringSliceVar(&o.Endpoints, "etcd-endpoints", []string{"http://127.0.0.1:2379"}, "URLs of the etcd members")
	s.StringVar(&o.Prefix, "etcd-prefix", "/coreos.com/network", "prefix of the keys of config and leases in etcd")
	s.StringVar(&o.CAFile, "etcd-cafile", "", "file with the CA certificate that signed etcd's certificates")
	s.StringVar(&o.CertFile, "etcd-certfile", "", "file with the client certificate for etcd")
	s.StringVar(&o.KeyFile, "etcd-keyfile", "", "file with the private key of the client certificate")
	s.StringVar(&o.Username, "etcd-username", "", "user name for etcd")
	s.StringVar(&o.Password, "etcd-password", "", "password for etcd; every user of the node can read it in ps, "+
		"so prefer --etcd-password-file or SELVAGED_ETCD_PASSWORD")
	s.StringVar(&o.PasswordFile, "etcd-password-file", "",
		"file with the password for etcd; it may change while the daemon runs")
}

// FromEnvironment sets the flags that the command line did not set, from SELVAGED_ and FLANNELD_ variables.
func FromEnvironment(s *pflag.FlagSet, lookup func(string) (string, bool)) (err error) {
	s.VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil {
			return
		}
		for _, prefix := range []string{"SELVAGED_", "FLANNELD_"} {
			name := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			value, ok := lookup(name)
			if !ok {
				continue
			}
			if e := s.Set(f.Name, value); e != nil {
				if f.Name == "etcd-password" {
					e = errors.New("cannot be used")
				}
				err = fmt.Errorf("environment variable %s: %w", name, e)
			}
			return
		}
	})
	return err
}
