package chaosstore

import (
	"crypto/tls"
	"errors"
	"path/filepath"

	"github.com/selvage-net/selvage/dist/lab/certs"
)

// certificates are the files that etcd and the daemons are started with. They are replaced by other files under the same
// names.
type certificates struct{ dir string }

func (c certificates) file(name string) string { return filepath.Join(c.dir, name) }

// renew makes an authority, and signs a certificate for all members, one for the daemons (the user selvage) and one for
// the suite itself (root). It replaces all files.
func (c certificates) renew(members []string) error {
	ca, err := certs.New(c.dir, "ca")
	if err != nil {
		return err
	}
	return errors.Join(ca.Sign(c.file("server"), certs.For(members...)), ca.Sign(c.file("selvage")), ca.Sign(c.file("root")))
}

// root is what the suite itself presents to etcd.
func (c certificates) root() (*tls.Config, error) {
	return certs.Client(c.file("ca.pem"), c.file("root"))
}
