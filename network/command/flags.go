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
	o.Endpoints = []string{"http://127.0.0.1:2379"}
	s.Var((*commaList)(&o.Endpoints), "etcd-endpoints", "URLs of the etcd members")
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

// commaList is the value of a flag that holds a list separated by commas. Of several such flags the last one counts, as
// with flannel.
type commaList []string

// Set implements pflag.Value.
func (l *commaList) Set(text string) error {
	*l = strings.Split(text, ",")
	return nil
}

// String implements pflag.Value.
func (l *commaList) String() string { return "[" + strings.Join(*l, ",") + "]" }

// Type implements pflag.Value.
func (l *commaList) Type() string { return "strings" }

// FromEnvironment sets the flags that the command line did not set, from SELVAGED_ and FLANNELD_ variables. An empty
// variable counts as one that is not set, as with flannel.
func FromEnvironment(s *pflag.FlagSet, lookup func(string) (string, bool)) (err error) {
	s.VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil {
			return
		}
		for _, prefix := range []string{"SELVAGED_", "FLANNELD_"} {
			name := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			value, _ := lookup(name)
			if value == "" {
				continue
			}
			if e := s.Set(f.Name, value); e != nil {
				err = fmt.Errorf("environment variable %s: %w", name, envError(f, value, e))
			}
			return
		}
	})
	return err
}

// envError says what is wrong with the value of a variable.
func envError(f *pflag.Flag, value string, err error) error {
	switch {
	case f.Name == "etcd-password":
		return errors.New("cannot be used") // and is not repeated
	case f.Value.Type() == "bool":
		return fmt.Errorf("%q, want true or false", value)
	case f.Value.Type() == "int":
		return fmt.Errorf("%q, want a whole number", value)
	}
	return err
}
