package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// configStore is where the network config is, and the leases that it has to fit. [etcd.Store] implements it.
type configStore interface {
	ReadConfig(context.Context) (etcd.StoredConfig, error)
	WriteConfig(ctx context.Context, before etcd.StoredConfig, data []byte) error
	Records(context.Context) ([]subnet.Record, error)
	io.Closer
}

// configFile is the network config in a file, beside leases in the Kubernetes API.
type configFile struct {
	Store
	path string
}

// ReadConfig implements configStore. The key is the file's path.
func (c configFile) ReadConfig(context.Context) (stored etcd.StoredConfig, err error) {
	stored.Key = c.path
	stored.Data, err = os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return stored, err
}

// WriteConfig implements configStore.
func (c configFile) WriteConfig(context.Context, etcd.StoredConfig, []byte) error {
	return errors.ErrUnsupported
}

// Records implements configStore.
func (c configFile) Records(ctx context.Context) ([]subnet.Record, error) {
	all, _, err := snapshot(ctx, c.Store)
	return all, err
}

// open returns the store. It sends no request yet.
func (o *config) open() (configStore, error) {
	if !o.store.Kubernetes {
		return o.store.openEtcd(quiet())
	}
	s, err := o.store.Open(quiet())
	return configFile{s, o.store.Kube.NetConfPath}, err
}

func (o *config) kind() subnet.StoreKind {
	if o.store.Kubernetes {
		return subnet.StoreKubernetes
	}
	return subnet.StoreEtcd
}

// source says where a config is from.
func (o *config) source(c etcd.StoredConfig) string {
	if o.store.Kubernetes {
		return "file " + c.Key
	}
	return fmt.Sprintf("etcd, %s, revision %d", c.Key, c.Revision)
}
