package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// clinic is the config of the lab in which nodes are harmed: what is above 10.5.199.0 is free for leases of nobody.
func clinic(backend string) string {
	return `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","EnableIPv6":true,"IPv6Network":"fd00:5::/56","EnableNFTables":true,"Backend":` + backend + `}`
}

// ownSubnet is what a node's lease is on.
func ownSubnet(t *testing.T, n *lab.Node) netip.Prefix {
	t.Helper()
	f, err := n.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	return f.Subnets[subnet.IPv4].Masked()
}

// dropper adds a table that drops what is forwarded from the overlay.
func dropper(network netip.Prefix) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "strict", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "forward", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	mask := net.CIDRMask(network.Bits(), 32)
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: network.Addr().AsSlice()},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return conn.Flush()
}

func undropper() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(&nftables.Table{Name: "strict", Family: nftables.TableFamilyIPv4})
	return conn.Flush()
}

// elsewhere has packets for a prefix looked up in another table, which drops them, or no more.
func elsewhere(p netip.Prefix, on bool) error {
	const table = 100
	rule := netlink.NewRule()
	rule.Dst, rule.Table, rule.Priority = ipNet(p), table, 1000
	route := &netlink.Route{Dst: ipNet(p), Table: table, Type: unix.RTN_BLACKHOLE}
	if !on {
		return errors.Join(netlink.RuleDel(rule), netlink.RouteDel(route))
	}
	return errors.Join(netlink.RouteAdd(route), netlink.RuleAdd(rule))
}

// TestDoctorNode harms a node in ways that its daemon cannot cure.
func TestDoctorNode(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Families: families[:], Config: clinic(`{"Type":"vxlan"}`)})
	ctx := testctx.New(t)
	p := admit(t, l, l.Nodes()[0])
	podOnEach(ctx, t, l)
	p.healthy()

	own, theirs := ownSubnet(t, p.Node), ownSubnet(t, l.Nodes()[1])
	mac, err := macOf(l.Nodes()[1])
	p.must(err)
	const file = "/run/flannel/subnet.env"
	other := netip.MustParsePrefix("10.5.240.0/24")
	half := netip.PrefixFrom(theirs.Addr(), 25)
	// What the daemon can write it writes again at once, so what is wrong with the file is so where it cannot.
	instead := func(content string) func() {
		return func() {
			p.in(func() error {
				err := os.MkdirAll("/run/instead", 0o755)
				if content != "" {
					err = errors.Join(err, os.WriteFile("/run/instead/subnet.env", []byte(content), 0o644))
				}
				return errors.Join(err, unix.Mount("/run/instead", filepath.Dir(file), "", unix.MS_BIND, ""),
					unix.Mount("", filepath.Dir(file), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			})
		}
	}
	back := func() {
		p.in(func() error { return errors.Join(unix.Unmount(filepath.Dir(file), 0), os.RemoveAll("/run/instead")) })
	}
	at := func(s string) string {
		return fmt.Sprintf("etcdctl --endpoints=http://172.31.0.1:2379 del /coreos.com/network/subnets/%s", s)
	}
	held := netip.PrefixFrom(theirs.Addr().Next().Next(), 24)
	gateway := subnet.Gateway(own)

	p.treat([]ailment{
		{"subnet file removed", instead(""), back,
			one("subnet-file", failure, "subnet file "+file+" is missing: no pod can be started", restartToWrite)},
		{"subnet file damaged", instead("FLANNEL_SUBNET=nonsense\n"), back,
			one("subnet-file", failure, `line 1: FLANNEL_SUBNET is "nonsense"`, restartToWrite)},
		{"subnet file of another subnet", instead(fmt.Sprintf("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=%s\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
			subnet.Gateway(other))), back, []symptom{
			{"subnet-file", failure, fmt.Sprintf("has %s, and this node's lease is %s", subnet.Gateway(other), own), restartToWrite},
			{"subnet-file", failure, "has MTU 1450, and the overlay carries 1430", restartToWrite},
		}},
		// The daemon repairs the bridge of pods, so what is wrong with it is so without the daemon.
		{"bridge of another subnet", func() {
			p.stop()
			p.link("cni0", func(b netlink.Link) error {
				return errors.Join(netlink.AddrDel(b, &netlink.Addr{IPNet: ipNet(gateway)}), netlink.AddrAdd(b, &netlink.Addr{IPNet: ipNet(subnet.Gateway(other))}))
			})
		}, func() {
			p.link("cni0", func(b netlink.Link) error {
				return errors.Join(netlink.AddrAdd(b, &netlink.Addr{IPNet: ipNet(gateway)}), netlink.AddrDel(b, &netlink.Addr{IPNet: ipNet(subnet.Gateway(other))}))
			})
			p.start()
		}, append(notRunning(), symptom{"bridge", failure, fmt.Sprintf("bridge cni0 has %s, and this node's subnet needs %s", subnet.Gateway(other), gateway),
			"delete the pods of this node, then ip link delete cni0; the next pod creates it again"})},
		{"bridge with another MTU", func() {
			p.stop()
			p.link("cni0", func(b netlink.Link) error { return netlink.LinkSetMTU(b, 1300) })
		}, p.start, append(notRunning(), symptom{"bridge", warns, "bridge cni0 has MTU 1300, and the pod MTU is 1430",
			"ip link set cni0 mtu 1430; then restart the pods with another MTU"})},
		{"a foreign route into the own subnet", func() {
			p.in(func() error {
				return netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.PrefixFrom(own.Addr(), 26)), Type: unix.RTN_BLACKHOLE})
			})
		}, func() {
			p.in(func() error {
				return netlink.RouteDel(&netlink.Route{Dst: ipNet(netip.PrefixFrom(own.Addr(), 26)), Type: unix.RTN_BLACKHOLE})
			})
		}, one("routes", failure, fmt.Sprintf("route blackhole %s takes precedence over the route to this node's own pods, %s", netip.PrefixFrom(own.Addr(), 26), own),
			"ip route del blackhole "+netip.PrefixFrom(own.Addr(), 26).String())},

		{"no CNI configuration", func() { p.remove(conflist) }, func() { p.write(conflist, lab.DefaultCNI) },
			one("cni", failure, "no CNI configuration in "+cniConfs+" has a plugin of type selvage or flannel",
				"selvaged install-cni, with --cni-conf-dir="+cniConfs+" unless that is the default")},
		{"another network's CNI configuration first", func() {
			p.write(cniConfs+"/05-other.conf", `{"cniVersion":"0.3.1","name":"other","type":"macvlan","ipam":{"type":"dhcp"}}`)
		}, func() { p.remove(cniConfs + "/05-other.conf") },
			one("cni", failure, "runtimes use the first CNI configuration, "+cniConfs+"/05-other.conf (of another network), not "+conflist,
				"mv "+cniConfs+"/05-other.conf "+cniConfs+"/05-other.conf.off, if pods should use this overlay")},
		{"a plugin is missing", func() { p.remove(cniBins + "/host-local") }, func() { p.write(cniBins+"/host-local", ""); p.run("chmod", "755", cniBins+"/host-local") },
			one("cni", failure, "CNI plugin host-local, which "+conflist+" uses, is missing from "+cniBins, "install host-local into "+cniBins)},
		{"a plugin is not executable", func() { p.run("chmod", "644", cniBins+"/host-local") }, func() { p.run("chmod", "755", cniBins+"/host-local") },
			one("cni", failure, "CNI plugin "+cniBins+"/host-local, which "+conflist+" uses, is not executable", "chmod 755 "+cniBins+"/host-local")},

		{"a device has a peer's subnet", func() { p.bridge("br9", held.String()) }, func() { p.unlink("br9") },
			one("routes", failure, fmt.Sprintf("device br9 has the address %s, from node2's subnet %s", held, theirs), fmt.Sprintf("ip address del %s dev br9", held))},
		{"a more specific route", func() {
			p.bridge("br9")
			p.link("br9", func(b netlink.Link) error {
				return netlink.RouteAdd(&netlink.Route{LinkIndex: b.Attrs().Index, Dst: ipNet(half)})
			})
		}, func() { p.unlink("br9") },
			one("routes", failure, fmt.Sprintf("route %s dev br9 takes precedence over the overlay's route to node2, %s", half, theirs), fmt.Sprintf("ip route del %s dev br9", half))},

		{"a rule of policy routing", func() { p.must(p.Do(func() error { return elsewhere(theirs, true) })) }, func() { p.must(p.Do(func() error { return elsewhere(theirs, false) })) },
			one("peers", failure, "node2 (172.31.0.12): "+subnet.Gateway(theirs).Addr().String()+" belongs to node2, but a foreign route keeps packets from it",
				fmt.Sprintf("selvaged explain %s; ip rule; remove what is not yours", subnet.Gateway(theirs).Addr()))},

		{"FORWARD drops", func() { p.run("iptables-nft", "-w", "-P", "FORWARD", "DROP") }, func() { p.run("iptables-nft", "-w", "-P", "FORWARD", "ACCEPT") },
			one("filter", failure, "table ip filter, chain FORWARD: policy drop, and no rule in it accepts 10.5.0.0/16",
				"iptables -I FORWARD -s 10.5.0.0/16 -j ACCEPT; iptables -I FORWARD -d 10.5.0.0/16 -j ACCEPT; or install iptables and leave EnableNFTables unset, so that selvage adds the rule")},
		{"FORWARD drops, legacy", func() { p.run("iptables-legacy", "-w", "-P", "FORWARD", "DROP") }, func() { p.run("iptables-legacy", "-w", "-P", "FORWARD", "ACCEPT") },
			one("filter", failure, "legacy iptables, table filter, chain FORWARD: policy drop, and no rule in it accepts 10.5.0.0/16",
				"iptables-legacy -I FORWARD -s 10.5.0.0/16 -j ACCEPT; iptables-legacy -I FORWARD -d 10.5.0.0/16 -j ACCEPT")},
		{"a rule drops", func() { p.in(func() error { return dropper(netip.MustParsePrefix("10.5.0.0/16")) }) }, func() { p.in(undropper) },
			one("filter", failure, "table ip strict, chain forward: rule 1 drops 10.5.0.0/16",
				"nft insert rule ip strict forward ip saddr 10.5.0.0/16 accept; nft insert rule ip strict forward ip daddr 10.5.0.0/16 accept")},

		{"a lease that is none", func() { p.put(subnetsPrefix+"nonsense", "{}") }, func() { p.del(subnetsPrefix + "nonsense") },
			one("leases", warns, "lease nonsense rejected", "etcdctl --endpoints=http://172.31.0.1:2379 get /coreos.com/network/subnets/nonsense shows it; if no node uses it, "+at("nonsense"))},
		{"a duplicate MAC address", func() { p.lease("10.5.250.0-24", "172.31.0.250", mac) }, func() { p.del(subnetsPrefix + "10.5.250.0-24") },
			one("leases", failure, "lease 10.5.250.0-24 rejected: MAC "+mac+" (IPv4) is that of the older lease",
				"on 172.31.0.250, probably a cloned machine: stop the daemon, ip link delete its device, remove /var/lib/selvage, start the daemon; if no node uses it, "+at("10.5.250.0-24"))},
		{"this node's own public IP", func() { p.lease("10.5.251.0-24", "172.31.0.11", "0e:00:00:00:00:51") }, func() { p.del(subnetsPrefix + "10.5.251.0-24") },
			one("leases", failure, "lease 10.5.251.0-24 rejected: public IP 172.31.0.11 is our own",
				"give that node an address of its own; if this node left the lease behind when it was reinstalled, selvaged release --etcd-endpoints=http://172.31.0.1:2379 10.5.251.0/24")},
		{"a shared public IP", func() { p.lease("10.5.252.0-24", "172.31.0.12", "0e:00:00:00:00:52") }, func() { p.del(subnetsPrefix + "10.5.252.0-24") },
			one("leases", warns, "and 10.5.252.0-24 share the public IP 172.31.0.12",
				fmt.Sprintf("run \"selvaged status\" on that node to see which lease is in use, and release the other: selvaged release --etcd-endpoints=http://172.31.0.1:2379 %s, or selvaged release --etcd-endpoints=http://172.31.0.1:2379 10.5.252.0/24", theirs))},
		{"overlapping leases", func() { p.lease(fmt.Sprintf("%s-24", theirs.Addr()), "172.31.0.253", "0e:00:00:00:00:53") },
			func() { p.del(fmt.Sprintf("%s%s-24", subnetsPrefix, theirs.Addr())) },
			one("leases", failure, "overlaps the older lease", fmt.Sprintf("restart the daemon on 172.31.0.253, which claims another subnet; if no node uses it, %s", at(theirs.Addr().String()+"-24")))},

		{"etcd is down", l.Etcd().Kill, func() {
			p.must(l.Etcd().Start(ctx))
			waitFor(ctx, p.t, "etcd", func() error { _, err := l.Etcd().Client().Get(ctx, subnetsPrefix); return err })
		},
			one("etcd", failure, "nothing listens at http://172.31.0.1:2379", "etcdctl --endpoints=http://172.31.0.1:2379 endpoint health; on that host systemctl status etcd")},
		{"etcd is full", func() {
			alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
			_, err := pb.NewMaintenanceClient(l.Etcd().Client().ActiveConnection()).Alarm(ctx, alarm)
			p.must(err)
		}, func() {
			_, err := l.Etcd().Client().AlarmDisarm(ctx, &clientv3.AlarmMember{})
			p.must(err)
		}, one("etcd", failure, "NOSPACE", "compact and defragment it, then etcdctl --endpoints=http://172.31.0.1:2379 alarm disarm: until then no node gets or renews a lease")},
		{"the network config is gone", func() { p.del("/coreos.com/network/config") }, func() { p.must(l.Etcd().PutConfig(ctx, clinic(`{"Type":"vxlan"}`))) },
			one("daemon", failure, "config: the network config was deleted from the store; the current one stays in force", "etcdctl --endpoints=http://172.31.0.1:2379 get /coreos.com/network/config shows it; write a valid one with etcdctl --endpoints=http://172.31.0.1:2379 put /coreos.com/network/config")},
		{"a network config that nobody can follow", func() { p.must(l.Etcd().PutConfig(ctx, clinic(`{"Type":"vxlan","VNI":7}`))) },
			func() { p.must(l.Etcd().PutConfig(ctx, clinic(`{"Type":"vxlan"}`))) },
			one("daemon", failure, "config: the new network config cannot be applied while selvaged runs", "etcdctl --endpoints=http://172.31.0.1:2379 get /coreos.com/network/config shows it; write a valid one with etcdctl --endpoints=http://172.31.0.1:2379 put /coreos.com/network/config")},
		{"an MTU that the uplink has not", func() { p.must(l.Etcd().PutConfig(ctx, clinic(`{"Type":"vxlan","MTU":9000}`))) },
			func() { p.must(l.Etcd().PutConfig(ctx, clinic(`{"Type":"vxlan"}`))) },
			one("device", warns, "the network config's Backend.MTU is 9000; uplink eth0 has only 1500, which this node uses",
				"ip link set eth0 mtu 9000, if the network carries that; or remove MTU from Backend in the network config")},
	})
	p.healthy()
}
