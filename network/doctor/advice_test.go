package doctor

import (
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

// TestAddressed: commands are for the etcd that the daemon uses.
func TestAddressed(t *testing.T) {
	secure := &status.EtcdAccess{
		Endpoints: []string{"https://a:2379", "https://b:2379"}, Prefix: "/ours", CAFile: "/etc/my certs/ca.pem", CertFile: "/c.pem", KeyFile: "/k.pem",
		Username: "selvage", PasswordFile: "/password",
	}
	const tls = " --cacert='/etc/my certs/ca.pem' --cert=/c.pem --key=/k.pem"
	for _, tt := range []struct {
		name         string
		access       *status.EtcdAccess
		advice, want string
	}{
		{"without a daemon", nil, "etcdctl del ETCD_PREFIX/subnets/x", "etcdctl del /coreos.com/network/subnets/x"},
		{"as usual", &status.EtcdAccess{Endpoints: []string{"http://127.0.0.1:2379"}, Prefix: "/coreos.com/network"},
			"etcdctl get ETCD_PREFIX/config, or selvaged release 10.5.1.0/24", "etcdctl get /coreos.com/network/config, or selvaged release 10.5.1.0/24"},
		{"elsewhere", &status.EtcdAccess{Endpoints: []string{"http://192.0.2.1:2379"}, Prefix: "/coreos.com/network"},
			"etcdctl get x; selvaged release 10.5.1.0/24",
			"etcdctl --endpoints=http://192.0.2.1:2379 get x; selvaged release --etcd-endpoints=http://192.0.2.1:2379 10.5.1.0/24"},
		{"secure", secure, "etcdctl get ETCD_PREFIX/config", "etcdctl --endpoints=https://a:2379,https://b:2379" + tls + " --user=selvage get /ours/config"},
		{"one member", secure, "etcdctl --endpoints=https://b:2379 endpoint health", "etcdctl" + tls + " --user=selvage --endpoints=https://b:2379 endpoint health"},
		{"rights", secure, "etcdctl role grant-permission ROLE read /ours/config",
			"etcdctl --endpoints=https://a:2379,https://b:2379" + tls + " role grant-permission ROLE read /ours/config"},
		{"release", secure, "selvaged release 10.5.1.0/24", "selvaged release --etcd-endpoints=https://a:2379,https://b:2379 --etcd-prefix=/ours " +
			"--etcd-cafile='/etc/my certs/ca.pem' --etcd-certfile=/c.pem --etcd-keyfile=/k.pem --etcd-username=selvage --etcd-password-file=/password 10.5.1.0/24"},
		{"nothing of etcd's", secure, "ip link set eth0 up", "ip link set eth0 up"},
	} {
		f := Facts{}
		if tt.access != nil {
			f.Status = &status.Status{Etcd: status.Etcd{Access: tt.access}}
		}
		if got := f.addressed(tt.advice); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
