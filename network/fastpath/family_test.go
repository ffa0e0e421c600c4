package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// labFamily is the family of pods' addresses, or of those on the underlay.
type labFamily struct {
	pods     string // network of all pods
	pod      string // of a node, with the node's number in hexadecimal and the last part
	subnet   int    // bits
	underlay string // of a node, with its number
	link     int    // bits of the underlay's prefix
	service  string
	iptables string
	icmp     int // bytes of headers in an echo request
	netlink  netlink.InetFamily
	direct   bool // of an underlay: the nodes reach each other without a tunnel
}

var (
	ipv4 = labFamily{
		pods: "10.5.0.0/16", pod: "10.5.%x.%x", subnet: 24, underlay: "192.0.2.%d", link: 24, service: "10.96.0.10",
		iptables: "iptables-restore", icmp: 28, netlink: netlink.FAMILY_V4,
	}
	ipv6 = labFamily{
		pods: "fd00:5::/48", pod: "fd00:5:0:%x::%x", subnet: 64, underlay: "2001:db8::%d", link: 64, service: "fd00:96::10",
		iptables: "ip6tables-restore", icmp: 48, netlink: netlink.FAMILY_V6,
	}
)

// without is an underlay over which nodes reach each other without a tunnel.
func without(tunnel labFamily) labFamily {
	tunnel.direct = true
	return tunnel
}

// eachFamily runs a test on labs of all families, with the fast path open on both nodes.
func eachFamily(t *testing.T, test func(*testing.T, *lab)) {
	t.Helper()
	if !loadable(t) {
		return
	}
	for _, tt := range []struct {
		name           string
		pods, underlay labFamily
	}{
		{"IPv4", ipv4, ipv4}, {"IPv6", ipv6, ipv6}, {"IPv6 over IPv4", ipv6, ipv4}, {"IPv4 over IPv6", ipv4, ipv6},
		{"IPv4 directly", ipv4, without(ipv4)}, {"IPv6 directly", ipv6, without(ipv6)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, tt.pods, tt.underlay)
			for _, n := range l.nodes {
				l.open(n, "")
			}
			test(t, l)
		})
	}
}

// podAddr is an address in the subnet of a node, by number.
func (f labFamily) podAddr(node, last int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(f.pod, node, last))
}

func (f labFamily) node(number int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(f.underlay, number))
}

// noDAD has link-local addresses that can be used at once, and is called inside of do.
func noDAD() error {
	return errors.Join(write("ipv6/conf/all/accept_dad", "0"), write("ipv6/conf/default/accept_dad", "0"))
}

func write(path, value string) error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0) }
