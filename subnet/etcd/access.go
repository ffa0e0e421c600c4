package etcd

import "github.com/selvage-net/selvage/subnet"

// Access implements [subnet.AccessReporter].
func (s *Store) Access() subnet.Access {
	o := s.opts
	return subnet.Access{
		Kind: subnet.StoreEtcd, Endpoints: o.Endpoints, Prefix: o.Prefix,
		Config: o.Prefix + "/config",
		CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile,
		Username: o.Username, PasswordFile: o.PasswordFile,
	}
}
