package pods

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet/attachment"
)

// record is what the plugin stores of the n-th pod.
func record(n int, delegate, config, result string) attachment.Record {
	return attachment.Record{
		Key:   attachment.Key{Network: "cbr0", Container: fmt.Sprintf("c%d", n), Interface: "eth0"},
		Added: time.Unix(int64(n), 0), NetNS: fmt.Sprintf("/run/netns/c%d", n), Delegate: delegate,
		Config: json.RawMessage(config), Result: json.RawMessage(result),
	}
}

// attached is the result of the bridge plugin.
func attached(n int, bridge string, ips string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","interfaces":[{"name":%q,"mac":"0e:00:00:00:00:01"},`+
		`{"name":"veth%d","mac":"0e:00:00:00:01:%02d"},{"name":"eth0","mac":"0e:00:00:00:02:%02d","sandbox":"/run/netns/c%d"}],`+
		`"ips":[%s],"routes":[{"dst":"10.5.0.0/16"},{"dst":"0.0.0.0/0","gw":"10.5.1.1"}]}`, bridge, n, n, n, n, ips)
}

const (
	ip4 = `{"interface":2,"address":"10.5.1.7/24","gateway":"10.5.1.1"}`
	ip6 = `{"interface":2,"address":"fd00:5:0:1::7/64","gateway":"fd00:5:0:1::1"}`
)

func thisNode(missing ...string) Node {
	return Node{
		Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/56")},
		Own:      [2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("fd00:5:0:1::/64")},
		Families: [2]bool{true, true},
		HasLink:  func(name string) bool { return !slices.Contains(missing, name) },

		LinkLocal: func(device string, _ netip.Addr) bool { return device == "own-ll" },
	}
}

func parse(t *testing.T, records ...attachment.Record) (pods []Pod) {
	t.Helper()
	for _, r := range records {
		p, err := Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p)
	}
	return pods
}

// TestFormer: a pod from before the node had its present subnets keeps the address that it has.
func TestFormer(t *testing.T) {
	const moved, foreign = `{"interface":2,"address":"10.5.9.7/24","gateway":"10.5.9.1"}`,
		`{"interface":2,"address":"192.168.9.7/24","gateway":"192.168.9.1"}`
	none := thisNode()
	none.Own = [2]netip.Prefix{}
	for _, tt := range []struct {
		node Node
		ips  string
		want string
	}{
		{thisNode(), ip4 + "," + ip6, "[]"}, {thisNode(), moved + "," + ip6, "[10.5.9.0/24]"},
		{thisNode(), foreign, "[]"}, {none, moved, "[]"},
	} {
		p := parse(t, record(1, "bridge", `{"isGateway":true}`, attached(1, "cni0", tt.ips)))
		if got := fmt.Sprint(tt.node.Former(p[0])); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.ips, got, tt.want)
		}
	}
}

func TestDesired(t *testing.T) {
	const plain = `{"isGateway":true,"hairpinMode":true,"mtu":1450}`
	const moved = `{"interface":2,"address":"10.5.9.7/24","gateway":"10.5.9.1"}`
	const elsewhere = `{"interface":2,"address":"192.168.7.7/24","gateway":"192.168.7.1"}`
	for _, tt := range []struct {
		name    string
		records []attachment.Record
		node    Node
		want    []string
	}{
		{"a pod on a bridge", []attachment.Record{record(1, "bridge", plain, attached(1, "cni0", ip4))}, thisNode(), []string{
			"ip link add cni0 mtu 1450 type bridge", "ip link set cni0 up nomaster",
			"ip link set veth1 up master cni0 mtu 1450",
			"bridge link set dev veth1 hairpin on isolated off learning on flood on state forwarding",
			"ip address add 10.5.1.1/24 dev cni0", "ip route replace 10.5.1.0/24 dev cni0 proto 2",
			"sysctl -w net.ipv4.conf.cni0.forwarding=1",
		}},
		{"dual stack, another bridge, no hairpin", []attachment.Record{
			record(1, "bridge", `{"bridge":"pods","isDefaultGateway":true,"portIsolation":true}`, attached(1, "pods", ip4+","+ip6)),
		}, thisNode(), []string{
			"ip link add pods type bridge", "ip link set pods up nomaster",
			"ip link set veth1 up master pods",
			"bridge link set dev veth1 hairpin off isolated on learning on flood on state forwarding",
			"ip address add 10.5.1.1/24 dev pods", "ip address add fd00:5:0:1::1/64 dev pods",
			"ip address add fe80::c00:ff:fe00:1/64 dev pods",
			"ip route replace 10.5.1.0/24 dev pods proto 2", "ip route replace fd00:5:0:1::/64 metric 256 dev pods proto 2",
			"sysctl -w net.ipv4.conf.pods.forwarding=1", "sysctl -w net.ipv6.conf.pods.disable_ipv6=0",
			"sysctl -w net.ipv6.conf.pods.forwarding=1",
		}},
		{"a bridge with a link-local address of its own", []attachment.Record{
			record(1, "bridge", `{"bridge":"own-ll","isDefaultGateway":true}`, attached(1, "own-ll", ip6)),
		}, thisNode(), []string{
			"ip link add own-ll type bridge", "ip link set own-ll up nomaster",
			"ip link set veth1 up master own-ll",
			"bridge link set dev veth1 hairpin off isolated off learning on flood on state forwarding",
			"ip address add fd00:5:0:1::1/64 dev own-ll", "ip route replace fd00:5:0:1::/64 metric 256 dev own-ll proto 2",
			"sysctl -w net.ipv6.conf.own-ll.disable_ipv6=0", "sysctl -w net.ipv6.conf.own-ll.forwarding=1",
		}},
		{"no gateway, and the smaller MTU of two", []attachment.Record{
			record(1, "bridge", `{"mtu":1400}`, attached(1, "cni0", ip4)), record(2, "bridge", `{"mtu":1450}`, attached(2, "cni0", ip4)),
		}, thisNode("veth2"), []string{
			"ip link add cni0 mtu 1400 type bridge", "ip link set cni0 up nomaster",
			"ip link set veth1 up master cni0 mtu 1400",
			"bridge link set dev veth1 hairpin off isolated off learning on flood on state forwarding",
		}},
		{"another pod in a VLAN, for which the bridge filters", []attachment.Record{
			record(1, "bridge", `{}`, attached(1, "cni0", ip4)), record(2, "bridge", `{"vlan":7}`, attached(2, "cni0", ip4)),
		}, thisNode("veth2"), []string{
			"ip link add cni0 type bridge vlan_filtering 1", "ip link set cni0 up nomaster",
			"ip link set veth1 up master cni0", "bridge link set dev veth1 hairpin off isolated off learning on flood on state forwarding",
		}},
		{"a pod in none of no VLANs, for which the bridge filters all the same", []attachment.Record{
			record(1, "bridge", `{"vlanTrunk":[]}`, attached(1, "cni0", ip4)),
		}, thisNode(), []string{
			"ip link add cni0 type bridge vlan_filtering 1", "ip link set cni0 up nomaster",
			"ip link set veth1 up master cni0", "bridge link set dev veth1 hairpin off isolated off learning on flood on state forwarding",
		}},
		{"no list of VLANs", []attachment.Record{record(1, "bridge", `{"vlanTrunk":null}`, attached(1, "cni0", ip4))}, thisNode(), []string{
			"ip link add cni0 type bridge", "ip link set cni0 up nomaster",
			"ip link set veth1 up master cni0", "bridge link set dev veth1 hairpin off isolated off learning on flood on state forwarding",
		}},
		{"the pod ended without a DEL", []attachment.Record{record(1, "bridge", plain, attached(1, "cni0", ip4))}, thisNode("veth1"), nil},
		{"an address of another node's subnet", []attachment.Record{record(1, "bridge", plain, attached(1, "cni0", moved))}, thisNode(), []string{
			"ip link add cni0 mtu 1450 type bridge", "ip link set cni0 up nomaster",
			"ip link set veth1 up master cni0 mtu 1450",
			"bridge link set dev veth1 hairpin on isolated off learning on flood on state forwarding",
		}},
		{"the newer of two gateways", []attachment.Record{
			record(1, "bridge", plain, attached(1, "cni0", ip4)), record(2, "bridge", plain, attached(2, "cni0", elsewhere)),
		}, thisNode(), []string{
			"ip link add cni0 mtu 1450 type bridge", "ip link set cni0 up nomaster",
			"ip link set veth1 up master cni0 mtu 1450",
			"bridge link set dev veth1 hairpin on isolated off learning on flood on state forwarding",
			"ip link set veth2 up master cni0 mtu 1450",
			"bridge link set dev veth2 hairpin on isolated off learning on flood on state forwarding",
			"ip address add 192.168.7.1/24 dev cni0", "ip route replace 192.168.7.0/24 dev cni0 proto 2",
			"sysctl -w net.ipv4.conf.cni0.forwarding=1",
		}},
		{"VLANs", []attachment.Record{record(1, "bridge", `{"vlan":7}`, attached(1, "cni0", ip4))}, thisNode(), nil},
		{"an unknown plugin", []attachment.Record{record(1, "macvlan", `{}`, attached(1, "cni0", ip4))}, thisNode(), nil},
		{"a result without interfaces", []attachment.Record{record(1, "bridge", plain, `{"cniVersion":"0.2.0","ip4":{"ip":"10.5.1.7/24"}}`)}, thisNode(), nil},
	} {
		s := Desired(parse(t, tt.records...), tt.node)
		if got := s.Commands(); !slices.Equal(got, tt.want) {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

// TestPointToPoint: each pod of ptp has the gateway's address and a route of its own on the node.
func TestPointToPoint(t *testing.T) {
	result := `{"cniVersion":"1.0.0","interfaces":[{"name":"veth1","mac":"0e:00:00:00:01:01"},` +
		`{"name":"eth0","mac":"0e:00:00:00:02:01","sandbox":"/run/netns/c1"}],"ips":[` + ip4 + `]}`
	got := Desired(parse(t, record(1, "ptp", `{"mtu":1450}`, result)), thisNode()).Commands()
	want := []string{
		"ip link set veth1 up nomaster mtu 1450", "ip address add 10.5.1.1/32 dev veth1",
		"ip route replace 10.5.1.7/32 dev veth1 proto 3", "sysctl -w net.ipv4.conf.veth1.forwarding=1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestParse(t *testing.T) {
	p := parse(t, record(1, "bridge", `{"isDefaultGateway":true}`, attached(1, "cni0", ip4)))[0]
	if p.Bridge != "cni0" || p.Port != "veth1" || p.MAC.String() != "0e:00:00:00:02:01" || !p.Managed {
		t.Errorf("%+v", p)
	}
	if got := p.DefaultGateways(); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.5.1.1")}) {
		t.Errorf("default gateways %v", got)
	}
	devices := Devices([]Pod{p})
	if b := devices["cni0"]; len(devices) != 2 || b.MAC != (network.MAC{0x0e, 0, 0, 0, 0, 1}) {
		t.Errorf("devices %+v", devices)
	}
	for _, bad := range []attachment.Record{
		record(1, "bridge", `{"mtu":"large"}`, attached(1, "cni0", ip4)), record(1, "bridge", `{}`, `[]`),
		record(1, "bridge", `{}`, `{"ips":[{"address":"nonsense"}]}`),
	} {
		if p, err := Parse(bad); err == nil || !strings.Contains(err.Error(), "cbr0:c1:eth0") {
			t.Errorf("%s: %+v, %v, want an error that names the record", bad.Config, p, err)
		}
	}
}
