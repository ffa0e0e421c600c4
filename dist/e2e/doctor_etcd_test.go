package e2e

import (
	"os"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
)

// TestDoctorEtcd: members that are down, users that are not let in, and a node that waits for its network config.
func TestDoctorEtcd(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1, EtcdMembers: 3, Config: "-", IPTables: "none"})
	ctx := testctx.New(t)
	p := admit(t, l, l.Nodes()[0])
	client, last := l.Etcd().Client(), l.Etcd().Endpoints()[2]
	check := func(_ any, err error) { t.Helper(); p.must(err) }
	const prefix = "/coreos.com/network"
	etcdctl := "etcdctl --endpoints=" + strings.Join(l.Etcd().Endpoints(), ",")
	restart := func() { t.Helper(); p.must(p.Restart(ctx)) }
	iptables := func(mode os.FileMode) { t.Helper(); p.in(func() error { return os.Chmod("/run/no-program", mode) }) }
	const credentials = "correct SELVAGED_ETCD_USERNAME and SELVAGED_ETCD_PASSWORD, and systemctl restart selvaged, which interrupts no traffic"

	p.treat([]ailment{
		{"no network config", func() {}, func() {},
			one("daemon", failure, "config: no network config in the store",
				etcdctl+` put /coreos.com/network/config '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}', with a network of your own`)},
		{"an iptables that cannot be run", func() {
			iptables(0o755) // the empty file that stands in its place
			p.must(l.Etcd().PutConfig(ctx, lab.NetworkConfig(nil, "", lab.NFTablesOff)))
		}, func() { iptables(0o644); p.must(p.WaitReady(ctx)) },
			one("filter", failure, "selvaged's packet filter rules are not set, so the subnet file is not written either",
				"journalctl -u selvaged | grep 'packet filter' shows why; it needs nftables in the kernel, or the program iptables")},
		{"iptables is wanted, and not there", func() {},
			func() {
				p.must(l.Etcd().PutConfig(ctx, lab.NetworkConfig(nil, "", lab.NFTablesOn)))
				restart()
				p.must(p.WaitReady(ctx))
			},
			one("filter", warns, "EnableNFTables is false, but iptables is not installed, so nftables is used",
				"install the package iptables, or use an image with it; or unset EnableNFTables, or set it to true")},
		{"a member is down", func() {
			p.must(l.Etcd().Member(2, func(s *etcdserver.Server) error { s.Kill(); return nil }))
		}, func() { p.must(l.Etcd().Start(ctx)) },
			one("etcd", warns, last+": nothing listens at "+last, "etcdctl --endpoints="+last+" endpoint health; on that host systemctl status etcd")},
		{"no user", func() {
			check(client.UserAdd(ctx, "root", "secret"))
			check(client.RoleAdd(ctx, "root"))
			check(client.UserGrantRole(ctx, "root", "root"))
			check(client.UserAdd(ctx, "selvage", "secret"))
			check(client.RoleAdd(ctx, "selvage"))
			check(client.UserGrantRole(ctx, "selvage", "selvage"))
			check(client.RoleGrantPermission(ctx, "selvage", prefix+"/config", "", clientv3.PermissionType(clientv3.PermRead)))
			check(client.AuthEnable(ctx))
		}, func() {}, one("etcd", failure, "etcd requires authentication", credentials)},
		{"a wrong password", func() {
			t.Setenv("SELVAGED_ETCD_USERNAME", "selvage")
			t.Setenv("SELVAGED_ETCD_PASSWORD", "wrong")
			restart()
		}, func() {}, one("etcd", failure, `etcd rejected the password of user "selvage"`, credentials)},
		{"too few rights", func() { t.Setenv("SELVAGED_ETCD_PASSWORD", "secret"); restart() }, func() {},
			one("etcd", failure, `it lacks read on the prefix /coreos.com/network/subnets/`,
				etcdctl+" role grant-permission ROLE --prefix=true readwrite /coreos.com/network/subnets/")},
	})
}
