package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/subnet"
)

// TestDoctorDaemon is about the daemon itself, and about what nobody repairs while it does not run.
func TestDoctorDaemon(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Families: families[:], Config: clinic(`{"Type":"vxlan"}`)})
	ctx := testctx.New(t)
	p := admit(t, l, l.Nodes()[0])
	podOnEach(ctx, t, l)
	setting := func(path, value string) { p.write("/proc/sys/"+path, value) }
	const file = "/run/flannel/subnet.env"
	notRunning := notRunning()[0]
	hanging := make(chan struct{})
	var holding sync.WaitGroup

	p.treat([]ailment{
		{"the daemon hangs", func() { p.must(unix.Kill(p.PID(), unix.SIGSTOP)) }, func() { p.must(unix.Kill(p.PID(), unix.SIGCONT)) },
			one("daemon", failure, "selvaged runs but does not answer", "systemctl restart selvaged, which interrupts no traffic; report it, with journalctl -u selvaged -n 50")},
		{"no daemon, and no subnet file", func() { p.stop(); p.remove(file) }, p.start, []symptom{notRunning,
			{"subnet-file", failure, "subnet file " + file + " is missing: no pod can be started", "systemctl start selvaged, which writes it"}}},
		{"no daemon, and much in disorder", func() {
			p.stop()
			setting("net/ipv4/ip_forward", "0")
			setting("net/ipv6/conf/eth0/accept_ra", "1")
			setting("net/ipv6/conf/cni0/forwarding", "0")
			p.link("eth0", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1400) })
			p.link("flannel-v6.1", netlink.LinkSetDown)
			p.run("iptables-nft", "-w", "-t", "nat", "-N", "KUBE-SERVICES")
			p.in(func() error {
				if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0); !errors.Is(err, os.ErrNotExist) {
					return err
				}
				return nil
			})
		}, func() {
			p.link("eth0", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1500) })
			p.run("iptables-nft", "-w", "-t", "nat", "-X", "KUBE-SERVICES")
			setting("net/ipv6/conf/cni0/forwarding", "1")
			p.start()
		}, []symptom{notRunning,
			{"forwarding", failure, "net.ipv4.ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1" + findForward},
			{"forwarding", failure, "net.ipv6.conf.cni0.forwarding is 0", "sysctl -w net.ipv6.conf.cni0.forwarding=1" + findForward},
			{"router-advertisement", failure, "net.ipv6.conf.eth0.accept_ra is 1", "sysctl -w net.ipv6.conf.eth0.accept_ra=2"},
			{"device", failure, "device flannel.1 has MTU 1450 and sends packets of up to 1500 bytes on eth0, which has MTU 1400",
				"ip link set eth0 mtu 1500; or systemctl restart selvaged, which adapts the device to the uplink's MTU"},
			{"device", failure, "device flannel-v6.1 is down", "systemctl restart selvaged, which brings it up"},
			{"bridge-nf", warns, "kube-proxy uses iptables", "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1"},
		}},
		{"no daemon, and no device", func() { p.stop(); p.unlink("flannel.1"); p.unlink("flannel-v6.1") }, p.start, []symptom{notRunning,
			{"device", warns, "selvage's VXLAN device does not exist; with the backend host-gw there is none", "systemctl start selvaged creates it"}}},
		{"somebody else's device has the VNI", func() {
			p.stop()
			p.unlink("flannel.1")
			p.in(func() error {
				return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "other"}, VxlanId: 1, Port: 8472, SrcAddr: net.IPv4(172, 31, 0, 11)})
			})
			p.must(p.Start())
		}, func() { p.unlink("other"); p.start() },
			one("device", failure, "device other, which is not selvage's, has VNI 1 and port 8472, so that flannel.1 cannot be created", "ip link delete other, or give it another VNI or port")},
		{"somebody else's device has the name", func() {
			p.stop()
			p.unlink("flannel.1")
			p.in(func() error {
				return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, VxlanId: 9, Port: 8472, SrcAddr: net.IPv4(172, 31, 0, 11)})
			})
			p.must(p.Start())
		}, func() { p.unlink("flannel.1"); p.start() },
			one("device", failure, "device flannel.1 is not selvage's, and has the name that selvage's needs", "ip link delete flannel.1, or rename it")},
		{"the uplink is down", func() { p.link("eth0", netlink.LinkSetDown) }, func() {}, []symptom{
			{"device", failure, "uplink eth0 is down", "ip link set eth0 up"},
			{"daemon", failure, "uplink: ", "ip -brief address shows the interfaces; bring the uplink up, or select another with --iface"},
		}},
	})
	p.link("eth0", netlink.LinkSetUp)
	p.in(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(p.Addr(subnet.IPv6), 64)), Flags: unix.IFA_F_NODAD}),
			netlink.RouteReplace(&netlink.Route{Gw: net.IPv4(172, 31, 0, 1)}))
	})
	p.healthy()

	p.treat([]ailment{
		{"forwarding is kept off", func() {
			holding.Go(func() {
				_ = p.Do(func() error {
					for {
						select {
						case <-hanging:
							return nil
						case <-time.After(5 * time.Millisecond):
							_ = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0)
						}
					}
				})
			})
		}, func() { close(hanging); holding.Wait() },
			one("daemon", failure, "another process keeps changing sysctl net/ipv4/ip_forward",
				"find the process that changes it: a network manager, a configuration tool, another overlay's agent; dist/host has settings that keep those away")},
		{"forwarding is off, and cannot be set", func() {
			p.stop()
			setting("net/ipv4/ip_forward", "0")
			p.in(func() error {
				const path = "/proc/sys/net/ipv4/ip_forward"
				return errors.Join(unix.Mount(path, path, "", unix.MS_BIND, ""), unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			})
			p.must(p.Start())
		}, func() {}, []symptom{
			{"forwarding", failure, "net.ipv4.ip_forward is 0: this node forwards no IPv4 packets, from its pods or to them", "sysctl -w net.ipv4.ip_forward=1" + findForward},
			{"entries", failure, "out of sync: 1 sysctl: sysctl net/ipv4/ip_forward", "let selvaged write to /proc/sys: mount it read-write, or set the values with sysctl yourself"},
		}},
	})
}

// TestDoctorNeighbours puts a node on one link with as many others as the kernel keeps neighbours. That they do not exist is
// of no matter.
func TestDoctorNeighbours(t *testing.T) {
	const config = `{"Network":"10.0.0.0/8","SubnetLen":28,"SubnetMax":"10.5.255.0","Backend":{"Type":"vxlan"}}`
	l := start(t, lab.Options{Nodes: 1, Config: config})
	p := admit(t, l, l.Nodes()[0])
	p.healthy()
	limit := doctor.NeighbourLimits()["arp_cache"]
	if limit == 0 {
		t.Fatal("the kernel does not say how many neighbours it keeps")
	}
	p.link("eth0", func(l netlink.Link) error {
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("172.20.0.1/14"))})
	})
	var ops []clientv3.Op
	a := netip.MustParseAddr("172.20.1.0")
	for i := range limit {
		a = a.Next()
		key := fmt.Sprintf("%s10.%d.%d.%d-28", subnetsPrefix, 6+i>>12, i>>4&0xff, i&0xf<<4)
		value := fmt.Sprintf(`{"PublicIP":%q,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:01:00:%02x:%02x:%02x"}}`, a, byte(i>>16), byte(i>>8), byte(i))
		const most = 100 // etcd takes 128 in a transaction
		if ops = append(ops, clientv3.OpPut(key, value)); len(ops) == most || i == limit-1 {
			_, err := l.Etcd().Client().Txn(t.Context()).Then(ops...).Commit()
			p.must(err)
			ops = nil
		}
	}
	p.finds(one("neighbours", failure, fmt.Sprintf("%d nodes share a link with this one, and the kernel keeps %d neighbours", limit, limit),
		fmt.Sprintf("sysctl -w net.ipv4.neigh.default.gc_thresh3=%d, and add it to /etc/sysctl.d", 2*limit))...)
}

// TestDoctorEnds: where thousands of nodes do not answer, a doctor ends when its time does, with a report, and says what it had no time
// for. The daemon that does not answer is not waited for either.
func TestDoctorEnds(t *testing.T) {
	const leases = 2000
	l := start(t, lab.Options{Nodes: 1, Config: `{"Network":"10.0.0.0/8","SubnetMax":"10.99.255.0","Backend":{"Type":"vxlan"}}`})
	ctx := testctx.New(t)
	p := admit(t, l, l.Nodes()[0])
	commit(ctx, t, l, crowd(t, leases), 100)
	waitFor(ctx, t, "all peers", func() error {
		if out, err := selvaged(ctx, t, p.Node, "status"); err != nil || !strings.Contains(out, fmt.Sprintf("peers     %d programmed\n", leases)) {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	// Long enough for the daemon to answer, on whatever machine, and too short for 2,000 nodes that do not.
	var r doctor.Report
	for timeout := time.Second; r.Peers == 0 && ctx.Err() == nil; timeout *= 2 {
		r = p.examine(ctx, "--all", "--timeout", timeout.String())
	}
	if r.Peers != leases || r.Probed == leases {
		t.Errorf("%d of %d probed", r.Probed, r.Peers)
	}
	want := symptom{"peers", warns, fmt.Sprintf("of %d paths to other nodes", leases), "use a longer --timeout, such as 2m, or a smaller --sample"}
	if err := missing(r, []symptom{want}); err != nil {
		t.Error(err)
	}
	p.must(unix.Kill(p.PID(), unix.SIGSTOP))
	if err := missing(p.examine(ctx, "--timeout", "1s"), []symptom{{"daemon", failure, "selvaged runs but does not answer",
		"systemctl restart selvaged, which interrupts no traffic; report it, with journalctl -u selvaged -n 50"}}); err != nil {
		t.Error(err)
	}
	p.must(unix.Kill(p.PID(), unix.SIGCONT))
}

// notRunning is the symptom of a daemon that is not there.
func notRunning() []symptom {
	return one("daemon", failure, "no process listens on /run/selvage/selvaged.sock",
		"systemctl start selvaged; if it exits again, see journalctl -u selvaged -n 50")
}
