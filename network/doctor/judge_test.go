package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/filter/engines"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	prefix = netip.MustParsePrefix
	addr   = netip.MustParseAddr
)

// healthy returns the facts of a healthy dual-stack node.
func healthy() Facts {
	config, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`))
	if err != nil {
		panic(err) // a constant
	}
	file := subnetfile.File{MTU: 1430, IPMasq: true}
	file.Networks = [2][]netip.Prefix{{prefix("10.5.0.0/16")}, {prefix("fd00:5::/56")}}
	file.Subnets = [2]netip.Prefix{prefix("10.5.1.1/24"), prefix("fd00:5:0:1::1/64")}
	return Facts{
		Now: now,
		Status: &status.Status{
			Version: "v1.2.3", Node: "node1", State: status.Ready, Problems: []status.Problem{},
			Lease:  &status.Lease{Key: "10.5.1.0-24&fd00:5:0:1::-64", Subnets: []netip.Prefix{prefix("10.5.1.0/24"), prefix("fd00:5:0:1::/64")}},
			Uplink: &status.Uplink{Name: "eth0", MTU: 1500, OnLink: []netip.Prefix{prefix("192.0.2.0/24")}},
			Backend: &status.Backend{Type: "vxlan", PodMTU: 1430, Devices: []status.Device{
				{Name: "flannel.1", Kind: "vxlan", Protocol: "VXLAN", VNI: 1, Port: 8472, MTU: 1450, Overhead: 50, Local: addr("192.0.2.1"), Present: true},
				{Name: "flannel-v6.1", Kind: "vxlan", Protocol: "VXLAN", VNI: 1, Port: 8472, MTU: 1430, Overhead: 70, Local: addr("2001:db8::1"), Present: true},
			}},
			Filter:  status.Filter{InForce: true, VTEPFilter: true},
			Entries: map[string]status.Count{"route": {Wanted: 2, Present: 2}},
		},
		Peers: []status.Peer{peer("node2", 2)},
		Store: &status.StoreReport{Endpoints: []status.StoreEndpoint{{URL: "http://192.0.2.9:2379", Version: "3.6.1", Latency: time.Millisecond}}},

		Config: &config,
		Kernel: Kernel{Release: "6.12.1-generic"},
		Sysctls: map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/rp_filter": "0",
			"net/ipv4/conf/eth0/forwarding": "1", "net/ipv6/conf/eth0/forwarding": "1", "net/ipv6/conf/eth0/accept_ra": "2",
		},
		Links: []Link{
			{Name: "eth0", MTU: 1500, Up: true, Addresses: []netip.Prefix{prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}},
			{Name: "flannel.1", Kind: "vxlan", Alias: "selvage", MTU: 1450, Up: true, VNI: 1, Port: 8472, Local: addr("192.0.2.1")},
			{Name: "flannel-v6.1", Kind: "vxlan", Alias: "selvage", MTU: 1430, Up: true, VNI: 1, Port: 8472, Local: addr("2001:db8::1")},
			{Name: "cni0", Kind: "bridge", MTU: 1430, Up: true, Ports: 1, Addresses: []netip.Prefix{prefix("10.5.1.1/24"), prefix("fe80::1/64"), prefix("fd00:5:0:1::1/64")}},
		},
		Thresholds: map[string]int{"arp_cache": 1024, "ndisc_cache": 1024},
		File:       SubnetFile{Path: "/run/flannel/subnet.env", Content: file},
		CNI: CNI{
			Dir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin"}, Plugins: map[string]error{"selvage": nil, "bridge": nil, "host-local": nil},
			Lists: []CNIList{{File: "/etc/cni/net.d/10-selvage.conflist", Ours: true, Bridge: "cni0", Types: []string{"selvage", "bridge", "host-local"}}},
		},
		Pods:  []Pod{healthyPod()},
		Paths: []probe.Path{path("node2", 2)},
	}
}

// fast adds a fast path that is in use.
func fast(f *Facts, mode string) {
	f.Sysctls[beLiberal], f.Invalid = "1", InvalidPackets("entries  clashres found new invalid ignore\n"+
		"0000000d  00000000 00000000 00000000 00000002 00000000\n0000000d  00000000 00000000 00000000 00000010 00000000\n")
	f.Status.FastPath = &status.FastPath{Mode: mode, InUse: true, Pinned: true, Ports: 3, Peers: 2, Since: now.Add(-time.Minute),
		Packets: map[string]uint64{"sent": 5, "received": 4, "received_decapsulated": 3}}
}

func healthyPod() Pod {
	return Pod{Name: "c1 (eth0)", Bridge: "cni0", Port: "veth1", Prefixes: []netip.Prefix{prefix("10.5.1.2/24")}, Entered: true, Link: true, Up: true}
}

func ahead(d time.Duration) *time.Duration { return &d }

func peer(name string, n int) status.Peer {
	return status.Peer{
		Key: fmt.Sprintf("10.5.%d.0-24", n), Node: name, State: status.Programmed, Paths: []status.PeerPath{{Device: "flannel.1"}},
		Subnets: []netip.Prefix{prefix(fmt.Sprintf("10.5.%d.0/24", n))}, PublicIP: []netip.Addr{addr(fmt.Sprintf("192.0.2.%d", n))},
	}
}

func target(name string, n int) probe.Target {
	return probe.Target{
		Key: fmt.Sprintf("10.5.%d.0-24", n), Node: name, Subnet: prefix(fmt.Sprintf("10.5.%d.0/24", n)), Underlay: addr(fmt.Sprintf("192.0.2.%d", n)),
		Link: "flannel.1", Tunnel: true, Overhead: 50, Overlay: addr(fmt.Sprintf("10.5.%d.0", n)), FullSize: 1430,
	}
}

// yes and no return an echo that was answered, and one that was not.
func yes(size int) probe.Echo {
	return probe.Echo{Sent: true, Answered: true, Size: size, RTT: time.Millisecond}
}
func no(size int) probe.Echo { return probe.Echo{Sent: true, Size: size} }

// path returns a path that works.
func path(name string, n int) probe.Path {
	return probe.Path{Target: target(name, n), Probed: true, Overlay: yes(28), OverlayFull: yes(1430), Underlay: yes(28), UnderlayFull: yes(1480)}
}

// broken returns a path on which VXLAN packets leave, and no answer arrives through the overlay.
func broken() probe.Path {
	p := path("node2", 2)
	p.Overlay, p.OverlayFull = no(28), no(1430)
	p.Overlay.Egress = []string{"flannel.1", "eth0"}
	p.Detail = &probe.Detail{OneHop: no(28), OneHopFull: no(1430), Outbound: no(28)}
	return p
}

// wireGuard has the node reach the other one by WireGuard, which does not answer. Of what is sent there, only the packets
// before encryption are captured.
func wireGuard(f *Facts) {
	f.Status.Backend.Devices = []status.Device{{Name: "flannel-wg", Kind: "wireguard", Protocol: "WireGuard", Port: 51820, Present: true}}
	f.Links = append(f.Links, Link{Name: "flannel-wg", Kind: "wireguard", Up: true})
	f.Status.Uplink.Local = []netip.Addr{addr("192.0.2.1")}
	f.Peers[0].Sessions = []status.Session{{Device: "flannel-wg", Endpoint: netip.MustParseAddrPort("192.0.2.2:51820")}}
	p := broken()
	p.Link, p.Overlay.Egress = "flannel-wg", []string{"flannel-wg"}
	f.Paths = []probe.Path{p}
}

// enforcing makes the node enforce network policies.
func enforcing(f *Facts) {
	f.Status.Enforcement = &status.Enforcement{Synced: true, Enforcing: true, Pods: 7}
	f.Sysctls["net/bridge/bridge-nf-call-iptables"], f.Sysctls["net/bridge/bridge-nf-call-ip6tables"] = "1", "1"
}

// calico is another engine.
func calico() []engines.Engine {
	return []engines.Engine{{Name: engines.Calico, Places: []engines.Place{{Family: "ip", Table: "calico"}}}}
}

func TestHealthy(t *testing.T) {
	seen := map[string]bool{}
	for _, x := range judge(healthy(), Options{}.selects) {
		seen[x.Check] = true
		if x.Level != Pass || x.Advice != "" || x.Evidence == "" {
			t.Errorf("%+v", x)
		}
	}
	for _, c := range checks() {
		// There is no kube-proxy, etcd has the leases, and the backend is vxlan.
		if !seen[c.name] && c.name != "bridge-nf" && c.name != "apiserver" && c.name != "wireguard" {
			t.Errorf("%s has no finding", c.name)
		}
	}
	if all := judge(Facts{DaemonErr: status.ErrNotRunning, File: SubnetFile{Err: fs.ErrNotExist}, CNI: CNI{DirErr: fs.ErrNotExist, Dir: "/etc/cni/net.d"}}, Options{}.selects); len(all) < 3 || all[0].Level != Failure {
		t.Errorf("without a daemon and files: %+v", all)
	}
}

// TestJudge covers findings that a lab cannot cause, and the pure part of those that it can.
func TestJudge(t *testing.T) {
	at := func(p probe.Path, change func(*probe.Path)) func(*Facts) {
		return func(f *Facts) { change(&p); f.Paths = []probe.Path{p} }
	}
	for _, tt := range []struct {
		name   string
		change func(*Facts)
		level  Level
		text   string // of a finding
		advice string // a part of it
	}{
		{"old kernel", func(f *Facts) { f.Kernel.Release = "4.11.12" }, Failure, "Linux 4.11.12 is too old for an overlay of IPv4", "boot Linux 4.12 or later"},
		{"old kernel for IPv6", func(f *Facts) { f.Kernel.Release = "4.15.0-20-generic" }, Failure, "too old for an overlay of IPv6", "boot Linux 4.16 or later"},
		{"old enough for IPv4", func(f *Facts) { f.Kernel.Release = "4.12.0"; f.Config = nil; f.File.Content.Networks[1] = nil }, Pass, "Linux 4.12.0 has all required features", ""},
		{"no nexthop objects", func(f *Facts) { f.Kernel.Nexthops = errors.New("no") }, Pass, "without nexthop objects", ""},
		{"no nf_tables", func(f *Facts) { f.Kernel.NFTables = errors.New("no such module") }, Warning, "VXLAN packets are accepted from any host: no such module", "modprobe nf_tables"},
		{"before 5.0 permanent neighbours count", func(f *Facts) { f.Kernel.Release = "4.19.1"; f.Thresholds["arp_cache"] = 2 }, Failure, "2 nodes share a link", "gc_thresh3=4"},

		{"a daemon that waits without a reason", func(f *Facts) { f.Status.State, f.Status.Started = status.Starting, now.Add(-time.Minute) }, Failure, "selvaged is not ready, for 1m0s", "journalctl"},
		{"no free subnet", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "lease", Text: "no subnet is free", Since: now, Code: status.NoLease}}
		}, Failure, "lease: no subnet is free", "free subnets: selvaged release SUBNET"},
		{"an old etcd", func(f *Facts) { f.Store.Endpoints[0].Version = "3.3.27" }, Failure, "is etcd 3.3.27", "upgrade etcd to 3.4"},
		{"a learner", func(f *Facts) { f.Store.Endpoints[0].Learner = true }, Warning, "is a learner", "etcdctl member promote"},
		{"a slow etcd", func(f *Facts) { f.Store.Endpoints[0].Latency = 700 * time.Millisecond }, Warning, "takes 700ms to answer", "check its disk"},
		{"a clock that is fast", func(f *Facts) { f.Store.Endpoints[0].ClockAhead = ahead(time.Hour) }, Warning, "the clock of http://192.0.2.9:2379 is 1h0m0s ahead of this node's", "timedatectl"},
		{"a clock that is slow", func(f *Facts) { f.Store.Endpoints[0].ClockAhead = ahead(-time.Minute) }, Warning, "is 1m0s behind this node's", "timedatectl"},
		{"a clock in sync", func(f *Facts) { f.Store.Endpoints[0].ClockAhead = ahead(time.Second) }, Pass, "their clocks agree with this node's", ""},
		{"an etcd without TLS", func(f *Facts) {
			f.Store.Endpoints[0].Error, f.Store.Endpoints[0].Code = "it does not speak TLS", "not-tls"
		},
			Failure, "does not speak TLS", "use http:// in --etcd-endpoints"},
		{"an etcd with TLS", func(f *Facts) {
			f.Store.Endpoints[0].Error, f.Store.Endpoints[0].Code = "it closes connections", "needs-tls"
		},
			Failure, "closes connections", "use https:// in --etcd-endpoints"},
		{"an unreachable etcd", func(f *Facts) {
			f.Store.Endpoints[0].Error, f.Store.Endpoints[0].Code = "no route to host", "unreachable"
		},
			Failure, "no route to host", "allow TCP to 192.0.2.9:2379 from here"},
		{"an unknown host name", func(f *Facts) {
			f.Store.Endpoints[0].Error, f.Store.Endpoints[0].Code = "no such host", "name-not-resolved"
		},
			Failure, "no such host", "getent hosts"},
		{"no leader", func(f *Facts) {
			f.Store.Endpoints[0].Alarms = []status.StoreAlarm{{Code: "no-leader", Text: "etcdserver: no leader"}}
		}, Failure, "reports: etcdserver: no leader", "etcdctl endpoint status"},
		{"a certificate that expires soon", func(f *Facts) { f.Store.Endpoints[0].CertificateEnds = now.Add(time.Hour) }, Warning, "the certificate of http://192.0.2.9:2379 expires at 2026-03-01T13:00:00Z", "renew it"},
		{"an expired certificate", func(f *Facts) { f.Store.CertificateEnds = now.Add(-time.Hour) }, Failure, "selvaged's own certificate for etcd expired", "correct this host's clock"},
		{"a valid certificate", func(f *Facts) { f.Store.CertificateEnds = now.AddDate(1, 0, 0) }, Pass, "etcd 3.6.1 answers", ""},
		{"an older daemon", func(f *Facts) { f.Store, f.StoreErr = nil, errors.New("404") }, Failure, "cannot report the state of etcd: 404", "restart"},
		{"a recent outage", func(f *Facts) {
			f.Status.Store.Outage = &status.Problem{Text: "it was away", Since: now.Add(-time.Minute)}
		}, Failure, "it was away, for 1m0s; now it answers", "--watch"},

		{"a setting of a VLAN", func(f *Facts) {
			f.Links[0].Name, f.Status.Uplink.Name = "eth0.7", "eth0.7"
			f.Sysctls["net/ipv4/conf/eth0.7/forwarding"] = "0"
		}, Failure, "net/ipv4/conf/eth0.7/forwarding is 0", "sysctl -w net/ipv4/conf/eth0.7/forwarding=1"},
		{"a bridge that answers no ARP", func(f *Facts) { f.Sysctls["net/ipv4/conf/cni0/arp_ignore"] = "8" }, Failure, "net.ipv4.conf.cni0.arp_ignore is 8",
			"sysctl -w net.ipv4.conf.cni0.arp_ignore=0"},
		{"an address per interface in ARP", func(f *Facts) { f.Sysctls["net/ipv4/conf/all/arp_ignore"] = "2" }, Pass, "forwarding is on", ""},
		{"no br_netfilter", func(f *Facts) { f.KubeProxy = true }, Warning, "net.bridge.bridge-nf-call-iptables is not available", "modprobe br_netfilter"},
		{"with br_netfilter", func(f *Facts) {
			f.KubeProxy = true
			f.Sysctls["net/bridge/bridge-nf-call-iptables"], f.Sysctls["net/bridge/bridge-nf-call-ip6tables"] = "1", "1"
		}, Pass, "kube-proxy's rules see packets", ""},
		{"policies in force", func(f *Facts) { enforcing(f) }, Pass, "network policies are enforced for 7 pods", ""},
		{"policies for no pod", func(f *Facts) { enforcing(f); f.Status.Enforcement.Enforcing = false; f.Sysctls = healthy().Sysctls },
			Pass, "none selects a pod of this node", ""},
		{"policies off", func(f *Facts) { f.Status.PoliciesOff = status.PolicyDisabled }, Pass, "selvage enforces no network policies", ""},
		{"another engine alone", func(f *Facts) { f.Status.PoliciesOff = status.PolicyOtherEngine; f.Engines = calico() }, Pass,
			"because there were rules of another engine when it started; there are rules of Calico: table ip calico",
			"nft delete table ip calico; then restart selvaged"},
		{"policies without nf_tables", func(f *Facts) { f.Status.PoliciesOff = status.Unsupported }, Pass, "because the kernel lacks nf_tables", ""},
		{"another engine beside ours", func(f *Facts) { enforcing(f); f.Engines = calico() }, Warning, "rules of Calico enforce network policies (table ip calico)",
			"nft delete table ip calico; else set --network-policy=off"},
		{"bridged packets that bypass policies", func(f *Facts) { enforcing(f); f.Sysctls["net/bridge/bridge-nf-call-ip6tables"] = "0" }, Failure,
			"net.bridge.bridge-nf-call-ip6tables is 0: packets between two pods on cni0 bypass network policies", "sysctl -w net.bridge.bridge-nf-call-ip6tables=1"},
		{"policies without br_netfilter", func(f *Facts) { enforcing(f); f.Sysctls = healthy().Sysctls }, Failure,
			"net.bridge.bridge-nf-call-iptables is not available", "modprobe br_netfilter"},
		{"closed pods", func(f *Facts) {
			enforcing(f)
			f.Status.Problems = []status.Problem{{Topic: "policies", Code: status.PolicyPodClosed, Text: "pods are denied", Since: now.Add(-time.Minute)}}
		}, Failure, "pods are denied, for 1m0s", "selvaged status"},
		{"policies that are not seen", func(f *Facts) {
			enforcing(f)
			f.Status.Problems = []status.Problem{{Topic: "policies", Code: status.PolicySourceLost, Text: "not seen", Since: now.Add(-time.Minute), Warning: true}}
		}, Warning, "not seen, for 1m0s", "the rights of the daemon"},
		{"denied packets that are not reported", func(f *Facts) {
			enforcing(f)
			f.Status.Problems = []status.Problem{{Topic: "policies", Code: status.PolicyDropsUnread, Text: "not reported", Since: now.Add(-time.Minute), Warning: true}}
		}, Warning, "not reported, for 1m0s", "/proc/net/netfilter/nfnetlink_log"},
		{"a fast path", func(f *Facts) { fast(f, "on") }, Pass, "in use by 3 pods' ports, for 2 subnets of other nodes: 5 packets were sent by it, 7 received; conntrack has taken 18 of all packets for invalid", ""},
		{"a fast path with a strict conntrack", func(f *Facts) { fast(f, "on"); f.Sysctls[beLiberal] = "0" }, Failure,
			"net.netfilter.nf_conntrack_tcp_be_liberal is 0", "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1"},
		{"a fast path without pins", func(f *Facts) { fast(f, "on"); f.Status.FastPath.Pinned = false }, Warning, "ends with the daemon", "mount -t bpf"},
		{"a port without the fast path", func(f *Facts) {
			fast(f, "auto")
			f.Status.FastPath.Slow = []status.SlowPort{{Port: "veth1", Code: status.FastPathQueue, Why: "there is a queue"}}
		}, Warning, "the port veth1 of a pod does not use the fast path: there is a queue", "tc qdisc show"},
		{"a fast path that falls back", func(f *Facts) {
			fast(f, "auto")
			f.Status.FastPath.InUse, f.Status.FastPath.Code = false, status.Unsupported
		},
			Pass, "the fast path is not in use", "Linux 6.6"},
		{"a fast path that is to be and is not", func(f *Facts) {
			fast(f, "on")
			f.Status.FastPath.InUse, f.Status.FastPath.Code, f.Status.FastPath.Why = false, status.NotPermitted, "missing: capability CAP_BPF"
		}, Failure, "missing: capability CAP_BPF", "CAP_PERFMON"},
		{"policies off that are still in force", func(f *Facts) {
			f.Status.PoliciesOff = status.PolicyDisabled
			f.Status.Problems = []status.Problem{{Topic: "policies", Code: status.PolicyNotRemoved, Text: "cannot remove", Since: now.Add(-time.Minute)}}
		}, Failure, "cannot remove, for 1m0s", "selvaged cleanup --rules"},
		{"rules that are not set", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "packet filter", Code: status.RulesNotSet, Text: "iptables: exit status 4", Since: now}}
		}, Warning, "iptables: exit status 4", "journalctl"},
		{"a filter's mode", func(f *Facts) {
			f.Status.Filter.Troubles = []status.FilterTrouble{{Code: status.NoIPTables, Text: "EnableNFTables is false", Advice: "install iptables"}}
		}, Warning, "EnableNFTables is false", "install iptables"},
		{"rules that cannot be read", func(f *Facts) {
			f.Status.Filter.Troubles = []status.FilterTrouble{{Code: status.FilterUnread, Text: "no permission"}}
		}, Warning, "no permission", "journalctl"},
		{"a firewall", func(f *Facts) {
			f.Drops = []blocking.Drop{{Table: "inet fw", Chain: "forward", By: []string{"rule 1"}, Commands: []string{"nft insert x", "nft insert y"}}}
			f.Status.Problems = []status.Problem{{Topic: "packet filter", Code: status.PacketsDropped, Text: "table inet fw", Since: now}}
		}, Failure, "table inet fw, chain forward: rule 1 drops", "nft insert x; nft insert y"},
		{"no VTEP filter", func(f *Facts) { f.Status.Filter.VTEPFilter = false }, Pass, "VXLAN packets are accepted from any host", ""},

		{"a device is missing", func(f *Facts) { f.Links = f.Links[:1] }, Failure, "device flannel.1 is missing", "journalctl"},
		{"a device is wrong", func(f *Facts) { f.Status.Backend.Devices[0].Present = false }, Failure, "device flannel.1 is out of sync", "journalctl"},
		{"an address that is gone", func(f *Facts) { f.Links[0].Addresses = nil }, Failure, "sends from 192.0.2.1, an address that this node does not have", "restart"},
		{"no VXLAN in the kernel", func(f *Facts) {
			f.Status.Entries["link"] = status.Count{Wanted: 1, Pending: 1}
			f.Status.Problems = []status.Problem{{Topic: "link", Kind: "link", Code: status.Unsupported, Text: "no VXLAN", Since: now}}
		}, Failure, "out of sync: 1 link: no VXLAN", "modprobe vxlan"},
		{"no capability", func(f *Facts) {
			f.Status.Entries["link"] = status.Count{Wanted: 1, Pending: 1}
			f.Status.Problems = []status.Problem{{Topic: "link", Kind: "link", Code: status.NotPermitted, Text: "not permitted", Since: now}}
		}, Failure, "out of sync: 1 link", "give selvaged CAP_NET_ADMIN"},
		{"a pending entry", func(f *Facts) { f.Status.Entries["fdb"] = status.Count{Wanted: 1, Pending: 1} }, Failure, "out of sync: 1 fdb", "--watch"},
		{"a cause and its consequences", func(f *Facts) {
			for _, kind := range []string{"link", "address", "route"} {
				f.Status.Entries[kind] = status.Count{Wanted: 2, Pending: 1}
			}
			f.Status.Problems = []status.Problem{{Topic: "link", Kind: "link", Code: status.EntryFailed, Text: "it is in the way", Since: now}}
		}, Failure, "out of sync: 1 link, 1 address, 1 route: it is in the way", "ip -details link"},
		{"a starting daemon", func(f *Facts) {
			f.Status.State, f.Status.Problems = status.Starting, []status.Problem{{Topic: "config", Code: status.ConfigMissing, Text: "there is no network config", Since: now}}
			f.Status.Entries["link"] = status.Count{Present: 1, Pending: 1}
		}, Failure, "config: there is no network config", "etcdctl put"},
		{"a config that is rejected", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "config", Code: status.ConfigRejected, Text: "no Network", Since: now}}
		}, Failure, "config: no Network", "etcdctl get /coreos.com/network/config shows it"},
		{"a file that cannot be written", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "subnet file", Code: status.FileNotWritten, Text: "no space", Since: now}}
		}, Failure, "subnet file: no space", "check that the directory"},
		{"no uplink", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "uplink", Code: status.NoUplink, Text: "no default route", Since: now}}
		}, Failure, "uplink: no default route", "--iface"},
		{"routed elsewhere, and it works", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "routing", Code: status.UnderlayRoute, Text: "by eth1", Since: now, Warning: true}}
		}, Warning, "routing: by eth1", "ip route add PREFIX via GATEWAY dev UPLINK"},
		{"a policy rule", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "routing", Code: status.PolicyRule, Text: "ip rule 100", Since: now}}
		}, Failure, "routing: ip rule 100", "remove what is not yours"},
		{"two conflicts", func(f *Facts) {
			f.Status.Problems = []status.Problem{{Topic: "conflict", Code: status.Conflict, Text: "one"}, {Topic: "conflict", Code: status.Conflict, Text: "two"}}
		}, Failure, "one; two", "find the process that changes it"},
		{"a conflicting link", func(f *Facts) { f.Status.Entries["link"] = status.Count{Wanted: 1, Pending: 1} }, Failure, "out of sync: 1 link", "ip -details link"},
		{"a conflicting route", func(f *Facts) { f.Status.Entries["route"] = status.Count{Wanted: 1, Pending: 1} }, Failure, "out of sync: 1 route", "proto kernel"},
		{"a better route over IPv6", func(f *Facts) {
			f.Peers[0].Subnets = []netip.Prefix{prefix("fd00:5:0:2::/64")}
			f.Routes = []Route{{Prefix: prefix("fd00:5:0:2::/64"), Metric: 100, Text: "fd00:5:0:2::/64 dev eth1 metric 100"}}
		}, Failure, "route fd00:5:0:2::/64 dev eth1 metric 100 takes precedence over", "ip route del fd00:5:0:2::/64 dev eth1 metric 100"},
		{"routes that do not take precedence", func(f *Facts) {
			f.Routes = []Route{{Prefix: prefix("10.5.0.0/16")}, {Prefix: prefix("10.5.2.0/24"), Metric: 9}, {Prefix: prefix("10.5.2.0/25"), Kernel: true}}
		}, Pass, "no foreign route takes precedence", ""},

		{"a bridge without an address yet", func(f *Facts) { f.Links[3].Addresses = nil }, Pass, "cni0 has this node's subnet", ""},
		{"a bridge that carries more", func(f *Facts) { f.Links[3].MTU = 9000 }, Warning, "pods that use it send packets that the overlay does not carry", "ip link set cni0 mtu 1430"},
		{"a bridge without pods", func(f *Facts) { f.Links[3].MTU, f.Links[3].Ports = 1500, 0 }, Pass, "cni0 has no pods", ""},
		{"a pod without its address", func(f *Facts) { f.Pods[0].Missing = f.Pods[0].Prefixes }, Failure, "pod c1 (eth0) has lost its address 10.5.1.2/24", "restart the pod"},
		{"a pod with the address of its gateway", func(f *Facts) { f.Pods[0].Taken = []netip.Addr{netip.MustParseAddr("10.5.1.1")} }, Failure, "pod c1 (eth0) has the address 10.5.1.1", "restart the pod"},
		{"a pod without its default route", func(f *Facts) { f.Pods[0].NoRoute = []netip.Addr{addr("10.5.1.1")} }, Failure, "has lost its default route by 10.5.1.1", "restart the pod"},
		{"a pod without its interface", func(f *Facts) { f.Pods[0].Link = false }, Failure, "has lost its interface", "restart the pod"},
		{"the own side out of sync", func(f *Facts) {
			f.Status.Pods = &status.Pods{Count: 1, Bridges: []status.PodBridge{{Name: "cni0", Differs: []status.Text{"bridge cni0"}}}}
		}, Failure, "what the pods on cni0 depend on is out of sync: bridge cni0", "journalctl"},
		{"pods without a record", func(f *Facts) {
			f.Status.Pods = &status.Pods{Unmanaged: []status.UnmanagedPods{{Count: 3, Why: "no record"}}}
		}, Pass, "3 pods are not managed: no record", ""},
		{"another bridge with the own subnet in its prefix", func(f *Facts) {
			f.Links = append(f.Links, Link{Name: "docker0", Kind: "bridge", Up: true, Addresses: []netip.Prefix{prefix("10.5.0.1/16")}})
		}, Warning, "device docker0 has 10.5.0.0/16, which overlaps this node's subnet 10.5.1.0/24", "another prefix"},
		{"the device of a network that is not the default one", func(f *Facts) {
			f.Status.Prefix, f.Status.VNI = "/second", 2
			f.Links[1].Alias, f.Links[1].Addresses = "selvage /second vni 2", []netip.Prefix{prefix("10.5.1.0/32")}
			f.Links[2].Alias = "selvage /second vni 2"
		}, Pass, "no foreign route takes precedence", ""},
		{"a foreign route into the own subnet", func(f *Facts) {
			f.Routes = []Route{{Prefix: prefix("10.5.1.0/26"), Text: "blackhole 10.5.1.0/26"}}
		}, Failure, "takes precedence over the route to this node's own pods, 10.5.1.0/24", "ip route del blackhole 10.5.1.0/26"},
		{"a pod's own route", func(f *Facts) {
			f.Links = append(f.Links, Link{Name: "veth1", Kind: "veth", Up: true})
			f.Routes = []Route{{Prefix: prefix("10.5.1.2/32"), Link: "veth1", Text: "10.5.1.2 dev veth1"}}
		}, Pass, "no foreign route takes precedence", ""},
		{"IPv6 disabled on the bridge", func(f *Facts) { f.Sysctls["net/ipv6/conf/cni0/disable_ipv6"] = "1" }, Failure, "cni0 takes no IPv6 address", "sysctl -w net.ipv6.conf.cni0.disable_ipv6=0"},
		{"the user's MTU", func(f *Facts) { f.CNI.Lists[0].MTU, f.Links[3].MTU = 1300, 1300 }, Pass, "cni0 has this node's subnet", ""},
		{"no directory for CNI", func(f *Facts) { f.CNI = CNI{Dir: "/etc/cni/net.d", DirErr: fs.ErrNotExist} }, Warning, "/etc/cni/net.d, where container runtimes look for CNI configurations, does not exist", "selvaged install-cni"},
		{"an unreadable directory", func(f *Facts) { f.CNI = CNI{Dir: "/etc/cni/net.d", DirErr: fs.ErrPermission} }, Failure, "permission denied", "ls -ld /etc/cni/net.d"},
		{"a damaged configuration first", func(f *Facts) {
			f.CNI.Lists = append([]CNIList{{File: "/etc/cni/net.d/00.conf", Err: errors.New("unexpected EOF")}}, f.CNI.Lists...)
		}, Failure, "00.conf (unreadable: unexpected EOF)", "mv /etc/cni/net.d/00.conf"},
		{"another subnet file", func(f *Facts) { f.CNI.Lists[0].SubnetFile = "/elsewhere" }, Failure, "reads the subnet file /elsewhere, and selvaged writes /run/flannel/subnet.env", "use one path for both"},
		{"a family is missing in the subnet file", func(f *Facts) { f.File.Content.Subnets[1] = netip.Prefix{} }, Failure, "has no subnet, and this node's lease is fd00:5:0:1::/64", "restart"},

		{"many bad leases", func(f *Facts) {
			for range 8 {
				f.Peers = append(f.Peers, status.Peer{Key: "x", State: status.Quarantined, Code: status.LeaseInvalid, Why: "no"})
			}
		}, Warning, "3 more leases rejected", "selvaged peers --bad"},
		{"a lease of a clone", func(f *Facts) {
			f.Peers = append(f.Peers, status.Peer{Key: "x", State: status.Quarantined, Code: status.LeaseDuplicate, Why: "the MAC is taken"})
		}, Failure, "lease x rejected: the MAC is taken", "probably a cloned machine"},
		{"a lease that overlaps", func(f *Facts) {
			f.Peers = append(f.Peers, status.Peer{Key: "x", State: status.Quarantined, Code: status.LeaseOverlaps, Why: "it overlaps"})
		}, Failure, "lease x rejected: it overlaps", "restart the daemon on that node"},
		{"a lease with our address", func(f *Facts) {
			f.Peers = append(f.Peers, status.Peer{Key: "x", State: status.Quarantined, Code: status.LeaseOwnIP, Why: "it is ours"})
		}, Failure, "lease x rejected: it is ours", "an address of its own"},
		{"pending peers", func(f *Facts) {
			f.Peers[0].State, f.Peers[0].Code, f.Peers[0].Why = status.Pending, status.EntryMissing, "route x is missing"
		}, Failure, "kernel entries are missing for node2", "selvaged explain"},
		{"a user without rights", func(f *Facts) {
			f.Store.Rights, f.Store.RightsCode = "it may not read", "forbidden"
			f.Store.Commands = [][]string{
				{"etcdctl", "role", "grant-permission", "ROLE", "read", "/x"}, {"etcdctl", "role", "grant-permission", "ROLE", "readwrite", "/y"},
			}
		}, Failure, "it may not read", "etcdctl role grant-permission ROLE read /x; etcdctl role grant-permission ROLE readwrite /y"},
		{"an unknown user", func(f *Facts) {
			f.Store.Rights, f.Store.RightsCode = "wrong password", "unauthenticated"
			f.Store.Endpoints[0].Error, f.Store.Endpoints[0].Code = "wrong password", "unauthenticated"
		}, Failure, "wrong password", "SELVAGED_ETCD_PASSWORD"},
		{"an etcd that is full", func(f *Facts) {
			f.Store.Endpoints[0].Alarms = []status.StoreAlarm{{Code: "no-space", Text: "alarm:NOSPACE"}}
		}, Failure, "alarm:NOSPACE", "etcdctl alarm disarm"},
		{"peers that are not programmed", func(f *Facts) {
			for i := range 6 {
				p := peer(fmt.Sprintf("node%d", i+3), i+3)
				p.State, p.Code, p.Why = status.Pending, status.EntryFailed, "not yet"
				f.Peers = append(f.Peers, p)
			}
		}, Failure, "kernel entries are missing for node3, node4, node5 and 3 more: not yet", "selvaged explain"},
		{"etcd lost its data", func(f *Facts) { f.Peers[0].State, f.Peers[0].Until = status.Grace, now.Add(time.Hour) }, Warning, "the leases of node2 vanished from etcd", "selvaged status there"},
		{"a node has just left", func(f *Facts) { f.Peers[0].State, f.Peers[0].Until = status.Grace, now.Add(time.Second) }, Pass, "all leases accepted", ""},
		{"no time left", func(f *Facts) { f.Paths = append(f.Paths, probe.Path{Target: target("node3", 3)}) }, Warning, "no time was left to probe 1 of 2 paths", "--timeout"},
		{"no capability to probe", func(f *Facts) { f.Paths, f.ProbeErr = nil, errors.New("operation not permitted") }, Warning, "peers could not be probed", "root"},

		{"the kernel refuses", at(broken(), func(p *probe.Path) { p.Overlay.SendError = "network is unreachable" }), Failure, "sends nothing to pods of node2 (192.0.2.2): network is unreachable", "selvaged explain ADDRESS"},
		{"a device with a smaller MTU", at(path("node2", 2), func(p *probe.Path) { p.OverlayFull = no(1430); p.OverlayFull.SendError = "message too long" }), Failure, "do not fit through flannel.1: message too long", "restart"},
		{"answers on another path", at(broken(), func(p *probe.Path) { p.Detail.Outbound.Arrivals = []probe.Arrival{{Interface: "eth1"}} }), Failure, "packets of this node reach node2 (192.0.2.2), and none come back", "UDP port 8472"},
		{"refused by the peer", at(broken(), func(p *probe.Path) {
			p.Detail.Tunnel = probe.Echo{Refused: "host prohibited", By: addr("192.0.2.2")}
		}), Failure, "VXLAN packets are refused by node2 (192.0.2.2): host prohibited", "8472"},
		{"no neighbour answers", at(broken(), func(p *probe.Path) {
			p.Underlay = no(28)
			p.Underlay.Refused, p.Underlay.By = "host unreachable", addr("192.0.2.1")
		}), Failure, "no host on the link answers for the address of node2 (192.0.2.2)", "selvaged release 10.5.2.0/24"},
		{"a router refuses", at(broken(), func(p *probe.Path) {
			p.Underlay = no(28)
			p.Underlay.Refused, p.Underlay.By = "network unreachable", addr("198.51.100.1")
		}), Failure, "no path to node2 (192.0.2.2): 198.51.100.1 reports network unreachable", "ip route get 192.0.2.2"},
		{"a VTEP filter without a peer", func(f *Facts) {
			at(broken(), func(p *probe.Path) {
				p.Overlay.Arrivals = []probe.Arrival{{Interface: "eth0", Outer: addr("192.0.2.2")}}
			})(f)
			f.Counters.Strangers = 3
		}, Failure, "the VTEP filter drops packets of node2 (192.0.2.2), which has a lease", "restart"},
		{"strict rp_filter on a direct path", func(f *Facts) {
			at(broken(), func(p *probe.Path) {
				p.Tunnel, p.Link = false, "eth0"
				p.Overlay.Arrivals = []probe.Arrival{{Interface: "eth1"}}
			})(f)
			f.Sysctls["net/ipv4/conf/all/rp_filter"] = "1"
		}, Failure, "answers of node2 (192.0.2.2) arrive on eth1", "sysctl -w net.ipv4.conf.eth1.rp_filter=2"},
		{"a direct path without answers", at(broken(), func(p *probe.Path) { p.Tunnel = false }), Failure, "packets for the pods of node2 (192.0.2.2) are lost", "selvaged doctor"},
		{"no underlay route", func(f *Facts) {
			f.Paths = []probe.Path{broken()}
			f.Underlay = map[netip.Addr]UnderlayRoute{addr("192.0.2.2"): {Err: "network is unreachable"}}
		}, Failure, "this node has no route to node2 (192.0.2.2) on the underlay: network is unreachable", "ip route add PREFIX via GATEWAY dev eth0"},
		{"another interface than the uplink", func(f *Facts) {
			f.Paths = []probe.Path{broken()}
			f.Underlay = map[netip.Addr]UnderlayRoute{addr("192.0.2.2"): {Link: "eth1", Via: addr("198.51.100.1")}}
		}, Failure, "packets to node2 (192.0.2.2) leave by eth1 via 198.51.100.1, and not by the uplink eth0", "--iface=eth1"},
		{"the node's own address", func(f *Facts) {
			f.Paths = []probe.Path{broken()}
			f.Underlay = map[netip.Addr]UnderlayRoute{addr("192.0.2.2"): {Link: "lo"}}
		}, Failure, "the public IP of node2 (192.0.2.2) is an address of this node itself", "--public-ip"},
		{"user-space WireGuard", func(f *Facts) {
			f.Status.Backend.Devices = []status.Device{{Name: "flannel-wg", Kind: "wireguard", Protocol: "WireGuard", Port: 51820, MTU: 1420, Overhead: 60, Present: true}}
			f.Links = append(f.Links, Link{Name: "flannel-wg", Kind: "tun", Alias: "selvage", MTU: 1420, Up: true})
		}, Pass, "flannel-wg in sync", ""},
		{"another program's device", func(f *Facts) {
			f.Status.Backend.Devices = []status.Device{{Name: "flannel-wg", Kind: "wireguard", Present: true}}
			f.Links = append(f.Links, Link{Name: "flannel-wg", Kind: "bridge", Up: true})
		}, Failure, "device flannel-wg is not selvage's", "ip link delete flannel-wg"},
		{"port of the path's device", func(f *Facts) {
			f.Status.Backend.Devices = []status.Device{
				{Name: "flannel-wg-v6", Kind: "wireguard", Protocol: "WireGuard", Port: 51821, Present: true},
				{Name: "flannel-wg", Kind: "wireguard", Protocol: "WireGuard", Port: 51820, Present: true},
			}
			f.Links = append(f.Links, Link{Name: "flannel-wg", Kind: "wireguard", Up: true})
			p := broken()
			p.Link = "flannel-wg"
			f.Paths = []probe.Path{p}
		}, Failure, "WireGuard packets (UDP port 51820) to node2 (192.0.2.2) are lost", "UDP port 51820"},
		{"WireGuard's packets are not captured", func(f *Facts) { wireGuard(f) },
			Failure, "WireGuard packets (UDP port 51820) to node2 (192.0.2.2) are lost, or refused there", "check wireguard"},
		{"a rule drops WireGuard's packets", func(f *Facts) {
			wireGuard(f)
			f.Discards = map[blocking.Tunnel][]blocking.Discard{
				{From: addr("192.0.2.2"), To: addr("192.0.2.1"), Port: 51820, Device: "eth0"}: {
					{Table: "inet site", Chain: "input", By: "udp dport 51820 drop", Sure: true, Command: "nft flush"}},
			}
		}, Failure, "this node's packet filter drops the WireGuard packets that arrive from node2 (192.0.2.2): ", "nft flush"},
		{"a rule that may drop WireGuard's packets", func(f *Facts) {
			wireGuard(f)
			f.Discards = map[blocking.Tunnel][]blocking.Discard{
				{From: addr("192.0.2.1"), To: addr("192.0.2.2"), Port: 51820, Device: "eth0", Leaving: true}: {
					{Table: "inet site", Chain: "output", Command: "nft flush"}},
			}
		}, Failure, "WireGuard packets (UDP port 51820) to node2 (192.0.2.2) are lost", "check wireguard"},
		{"the right underlay route", func(f *Facts) {
			f.Paths = []probe.Path{broken()}
			f.Underlay = map[netip.Addr]UnderlayRoute{addr("192.0.2.2"): {Link: "eth0"}}
		}, Failure, "VXLAN packets (UDP port 8472) to node2 (192.0.2.2) are lost", "UDP port 8472"},
		{"policy routing", func(f *Facts) {
			f.Paths = []probe.Path{broken()}
			f.Explained = map[string]status.Explanation{"10.5.2.0-24": {
				Address: addr("10.5.2.1"), Verdict: "it goes elsewhere", Steps: []status.Step{{Kind: "route", Mark: status.Foreign}},
			}}
		}, Failure, "node2 (192.0.2.2): it goes elsewhere", "selvaged explain 10.5.2.1; ip rule"},
	} {
		f := healthy()
		tt.change(&f)
		found := false
		for _, x := range judge(f, Options{}.selects) {
			found = found || x.Level == tt.level && strings.Contains(x.Evidence, tt.text) && strings.Contains(x.Advice, tt.advice) && (x.Advice == "") == (tt.advice == "")
			if tt.level == Pass && x.Level != Pass {
				t.Errorf("%s: %+v, want all to pass", tt.name, x)
			}
		}
		if !found {
			t.Errorf("%s: no %s with %q, %q in %+v", tt.name, tt.level, tt.text, tt.advice, judge(f, Options{}.selects))
		}
	}
}

// TestOnce: a problem that the daemon reports and another check finds is one finding.
func TestOnce(t *testing.T) {
	for _, code := range []status.Reason{status.NeighbourShadowed, status.RecordDamaged, status.GatewayDuplicate} {
		f := healthy()
		f.Status.Problems = []status.Problem{{Topic: "pods", Code: code, Key: "10.5.1.2 dev cni0", Text: "the problem", Since: now}}
		f.Damaged = []error{errors.New("the problem")}
		if code != status.RecordDamaged {
			f.Damaged = nil
		}
		var found []Finding
		for _, x := range judge(f, Options{}.selects) {
			if strings.Contains(x.Evidence, "the problem") {
				found = append(found, x)
			}
		}
		if len(found) != 1 || found[0].Check != "pods" {
			t.Errorf("%s: %+v, want one finding of the check pods", code, found)
		}
	}
}

// TestUncovered: a problem that the daemon reports is a finding also if the check that covers it is not selected, or
// could not be made.
func TestUncovered(t *testing.T) {
	for _, code := range []status.Reason{
		status.EntriesPending, status.CachedLeases, status.StoreDown, status.PacketsDropped, status.RulesNotSet, status.RouteShadowed,
		status.SubnetOverlaps, status.Conflict, status.ForwardingOff, status.PeerUnreachable, status.AllUnreachable, status.PacketLoss,
		status.NeighbourShadowed, status.RecordDamaged, status.EntryFailed, status.PodDetached, status.SubnetChanged,
		status.PolicyNotApplied, status.PolicyBridge, status.PolicyIPVS, status.PolicyPodClosed, status.PolicyPodWaiting, status.PolicySourceLost,
		status.PolicyNotRemoved, status.PolicyDropsUnread,
	} {
		f := healthy()
		f.Status.Problems = []status.Problem{{Topic: "x", Kind: "link", Code: code, Text: "the problem", Since: now}}
		all := judge(f, Options{Checks: []string{"daemon"}}.selects)
		if len(all) == 0 || all[0].Level != Failure || !strings.Contains(all[0].Evidence, "the problem") {
			t.Errorf("%s: %+v, want a failure of the check daemon", code, all)
		}
	}
	f := healthy()
	f.Status.Problems = []status.Problem{{Topic: "peers", Code: status.AllUnreachable, Text: "no answer", Since: now}}
	f.Paths, f.ProbeErr = nil, errors.New("operation not permitted")
	if all := judge(f, Options{}.selects); all[0].Check != "daemon" || !strings.Contains(all[0].Evidence, "no answer") {
		t.Errorf("nothing could be probed: %+v, want a failure of the check daemon", all)
	}
}

// TestPeersTogether: peers with the same diagnosis are reported together.
func TestPeersTogether(t *testing.T) {
	f := healthy()
	f.Paths = nil
	for i := range 30 {
		p := broken()
		p.Target = target(fmt.Sprintf("node%02d", i), i+2)
		f.Paths = append(f.Paths, p)
	}
	all := checkPeers(f)
	if len(all) != 1 || !strings.Contains(all[0].Evidence, "node00 (192.0.2.2), node01 (192.0.2.3), node02 (192.0.2.4) and 27 more") {
		t.Errorf("%+v", all)
	}
	for i := range f.Paths { // peers that are down, each with a subnet of its own
		f.Paths[i].Underlay = no(28)
	}
	f.Skipped = map[string]bool{f.Paths[29].Key: true, "other": true}
	all = checkPeers(f)
	if len(all) != 2 || !strings.HasPrefix(all[0].Evidence, "2 more nodes do not answer") || !strings.Contains(all[1].Evidence, "and 26 more") ||
		!strings.HasSuffix(all[1].Advice, "selvaged release SUBNET") {
		t.Errorf("%+v", all)
	}
}
