package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/subnet/etcd"
)

// EtcdFlags makes the flags by which etcd is reached.
func EtcdFlags(s *pflag.FlagSet, o *etcd.Options) {
	s.StringSliceVar(&o.Endpoints, "etcd-endpoints", []string{"http://127.0.0.1:2379"}, "URLs of the etcd members")
	s.StringVar(&o.Prefix, "etcd-prefix", "/coreos.com/network", "where config and leases are kept in etcd")
	s.StringVar(&o.CAFile, "etcd-cafile", "", "file with the certificate authority of etcd's certificates")
	s.StringVar(&o.CertFile, "etcd-certfile", "", "file with the client certificate for etcd")
	s.StringVar(&o.KeyFile, "etcd-keyfile", "", "file with the key of the client certificate")
	s.StringVar(&o.Username, "etcd-username", "", "user name for etcd")
	s.StringVar(&o.Password, "etcd-password", "", "password for etcd, which anybody on the node can see in ps; better given by the file, or as SELVAGED_ETCD_PASSWORD")
	s.StringVar(&o.PasswordFile, "etcd-password-file", "", "file that holds the password for etcd; it may change while the daemon runs")
}

// FromEnvironment sets the flags that the command line did not.
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
