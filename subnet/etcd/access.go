package etcd

// Access says where etcd is and how it is spoken to, for commands that people are told to give. It has no password.
func (s *Store) Access() Options {
	o := s.opts
	return Options{
		Endpoints: o.Endpoints, Prefix: o.Prefix, CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile,
		Username: o.Username, PasswordFile: o.PasswordFile,
	}
}
