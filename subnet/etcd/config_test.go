package etcd

import (
	"errors"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// TestConfig: the config is written only in place of the one that was read, under a prefix in whatever form.
func TestConfig(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	s := open(t, Options{Endpoints: []string{etcd.Endpoint()}, Prefix: "/" + testPrefix + "//"})
	none, err := s.ReadConfig(t.Context())
	if err != nil || none.Data != nil || none.Revision != 0 || none.Key != testPrefix+"/config" {
		t.Fatalf("%+v, %v; want none at %s/config", none, err, testPrefix)
	}
	if err := s.WriteConfig(t.Context(), none, []byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteConfig(t.Context(), none, []byte(`{"a":2}`)); !errors.Is(err, ErrConfigChanged) {
		t.Errorf("written over one that was not read: %v", err)
	}
	first, err := s.ReadConfig(t.Context())
	if err != nil || string(first.Data) != `{"a":1}` || first.Revision == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if err := s.WriteConfig(t.Context(), first, []byte(`{"a":3}`)); err != nil {
		t.Error(err)
	}
	must[*clientv3.PutResponse](t)(admin(t, etcd.Endpoint()).Put(t.Context(), testPrefix+"/subnets/10.5.1.0-24",
		`{"PublicIP":"172.31.0.1","BackendType":"vxlan"}`))
	if all, err := s.Records(t.Context()); err != nil || len(all) != 1 || all[0].Name != "10.5.1.0-24" {
		t.Errorf("%+v, %v", all, err)
	}
	silent := open(t, Options{Endpoints: []string{nobody}, Prefix: testPrefix})
	if _, err := silent.ReadConfig(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing listens at") {
		t.Errorf("of an etcd that is not there: %v", err)
	}
}
