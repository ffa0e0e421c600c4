package doctor

import (
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

// TestEtcdCommands: commands are for the etcd that the daemon uses.
func TestEtcdCommands(t *testing.T) {
	secure := &status.StoreAccess{
		Endpoints: []string{"https://a:2379", "https://b:2379"}, Prefix: "/ours",
		CAFile: "/etc/my certs/ca.pem", CertFile: "/c.pem", KeyFile: "/k.pem",
		Username: "selvage", PasswordFile: "/password",
	}
	local := &status.StoreAccess{Endpoints: []string{"http://127.0.0.1:2379"}, Prefix: "/coreos.com/network"}
	remote := &status.StoreAccess{Endpoints: []string{"http://192.0.2.1:2379"}, Prefix: "/coreos.com/network"}
	const tls = " --cacert='/etc/my certs/ca.pem' --cert=/c.pem --key=/k.pem"
	release := func(c etcdCommands) string { return c.release("10.5.1.0/24") }
	get := func(c etcdCommands) string { return c.ctl("get", c.key("config")) }
	for _, tt := range []struct {
		name   string
		access *status.StoreAccess
		make   func(etcdCommands) string
		want   string
	}{
		{"without a daemon", nil, get, "etcdctl get /coreos.com/network/config"},
		{"default", local, get, "etcdctl get /coreos.com/network/config"},
		{"a key that can be anything", local, func(c etcdCommands) string { return c.key("subnets/$(x) '") },
			`'/coreos.com/network/subnets/$(x) '\'''`},
		{"default release", local, release, "selvaged release 10.5.1.0/24"},
		{"elsewhere", remote, get, "etcdctl --endpoints=http://192.0.2.1:2379 get /coreos.com/network/config"},
		{"release elsewhere", remote, release, "selvaged release --etcd-endpoints=http://192.0.2.1:2379 10.5.1.0/24"},
		{"secure", secure, get,
			"etcdctl --endpoints=https://a:2379,https://b:2379" + tls + " --user=selvage get /ours/config"},
		{"one member", secure, func(c etcdCommands) string { return c.ctlAt("https://b:2379", "endpoint", "health") },
			"etcdctl --endpoints=https://b:2379" + tls + " --user=selvage endpoint health"},
		{"rights", secure, func(c etcdCommands) string {
			return c.admin("etcdctl", "role", "grant-permission", "ROLE", "read", "/x")
		},
			"etcdctl --endpoints=https://a:2379,https://b:2379" + tls + " role grant-permission ROLE read /x"},
		{"release", secure, release,
			"selvaged release --etcd-endpoints=https://a:2379,https://b:2379 --etcd-prefix=/ours " +
				"--etcd-cafile='/etc/my certs/ca.pem' --etcd-certfile=/c.pem --etcd-keyfile=/k.pem " +
				"--etcd-username=selvage --etcd-password-file=/password 10.5.1.0/24"},
	} {
		f := Facts{}
		if tt.access != nil {
			f.Status = &status.Status{Store: status.Store{Kind: "etcd", StoreConnection: status.StoreConnection{Access: tt.access}}}
		}
		if got := tt.make(f.etcd()); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
