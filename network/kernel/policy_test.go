package kernel_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
)

// TestFlow: policy rules decide about flows, and what rejects one is named.
func TestFlow(t *testing.T) {
	parse := func(s string) netip.Addr { a, _ := netip.ParseAddr(s); return a }
	pods := network.Flow{To: parse("10.5.2.9"), From: parse("10.5.1.9"), In: "pods"}
	tunnel := network.Flow{To: parse("192.0.2.2"), From: parse("192.0.2.1"), UDP: 8472}
	six := network.Flow{To: parse("2001:db8::2"), From: parse("2001:db8::1"), UDP: 8472}
	rule := func(change func(*netlink.Rule)) func() error {
		return func() error {
			r := netlink.NewRule()
			r.Priority, r.Family, r.Table = 100, unix.AF_INET, 100
			change(r)
			return netlink.RuleAdd(r)
		}
	}
	route := func(r netlink.Route) func() error {
		return func() error { return netlink.RouteAdd(&r) }
	}
	setting := func(path, value string) func() error {
		return func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0o644) }
	}
	all := func(steps ...func() error) func() error {
		return func() (err error) {
			for _, f := range steps {
				err = errors.Join(err, f())
			}
			return err
		}
	}
	for _, x := range []struct {
		name string
		do   func() error
		flow network.Flow
		link string // that the kernel sends it by
		err  error
		text string // of the rejection
	}{
		{"pods", all(), pods, "eth0", nil, ""},
		{"tunnel", all(), tunnel, "eth0", nil, ""},
		{"IPv6", all(), six, "eth0", nil, ""},
		{"a rule for pods does not concern the tunnel", rule(func(r *netlink.Rule) { r.Dst, r.Type = dst("10.5.0.0/16"), nl.FR_ACT_BLACKHOLE }), tunnel, "eth0", nil, ""},
		{"blackhole rule", rule(func(r *netlink.Rule) { r.Dst, r.Type = dst("10.5.0.0/16"), nl.FR_ACT_BLACKHOLE }), pods, "", unix.EINVAL,
			"ip rule 100: from all to 10.5.0.0/16 blackhole"},
		{"unreachable rule", rule(func(r *netlink.Rule) { r.Src, r.Type = dst("10.5.1.0/24"), nl.FR_ACT_UNREACHABLE }), pods, "", unix.ENETUNREACH,
			"ip rule 100: from 10.5.1.0/24 unreachable"},
		{"prohibit rule", rule(func(r *netlink.Rule) { r.IifName, r.Type = "pods", nl.FR_ACT_PROHIBIT }), pods, "", unix.EACCES,
			"ip rule 100: from all iif pods prohibit"},
		{"blackhole table", all(rule(func(r *netlink.Rule) { r.Dst = dst("10.5.0.0/16") }),
			route(netlink.Route{Dst: dst("0.0.0.0/0"), Table: 100, Type: unix.RTN_BLACKHOLE})), pods, "", unix.EINVAL,
			"ip rule 100: from all to 10.5.0.0/16 lookup 100, which has blackhole default"},
		{"blackhole in a table, and a better route", all(rule(func(r *netlink.Rule) { r.Dst = dst("10.5.0.0/16") }),
			route(netlink.Route{Dst: dst("10.5.0.0/16"), Table: 100, Type: unix.RTN_BLACKHOLE}),
			route(netlink.Route{Dst: dst("10.5.2.0/24"), Table: 100, Gw: net.IPv4(192, 0, 2, 2)})), pods, "eth0", nil, ""},
		{"VXLAN by a table of its own", all(rule(func(r *netlink.Rule) { r.IPProto, r.Dport = unix.IPPROTO_UDP, netlink.NewRulePortRange(8472, 8472) }),
			route(netlink.Route{Dst: dst("192.0.2.0/24"), Table: 100, Type: unix.RTN_PROHIBIT})), tunnel, "", unix.EACCES,
			"ip rule 100: from all ipproto udp dport 8472 lookup 100, which has prohibit 192.0.2.0/24"},
		{"by a mark that it does not have", rule(func(r *netlink.Rule) { r.Mark, r.Type = 7, nl.FR_ACT_BLACKHOLE }), pods, "eth0", nil, ""},
		{"another interface", all(rule(func(r *netlink.Rule) { r.Dst = dst("192.0.2.2/32") }),
			route(netlink.Route{Dst: dst("0.0.0.0/0"), Table: 100, Gw: net.IPv4(10, 5, 1, 2)})), tunnel, "pods", nil, ""},
		{"IPv6 rule", rule(func(r *netlink.Rule) {
			r.Family, r.Dst, r.Type = unix.AF_INET6, dst("2001:db8::/64"), nl.FR_ACT_BLACKHOLE
		}), six, "", unix.EINVAL,
			"ip rule 100: from all to 2001:db8::/64 blackhole"},
		{"no forwarding", setting("net/ipv4/conf/pods/forwarding", "0"), pods, "", unix.EHOSTUNREACH, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			inNamespace(t, func(*sandbox.Net) error {
				l, err := kernel.OpenLookup()
				if err != nil {
					return err
				}
				defer l.Close()
				if err := errors.Join(setting("net/ipv4/ip_forward", "1")(), flowLinks(), x.do()); err != nil {
					return err
				}
				hop, err := l.Flow(x.flow)
				if hop.Link != x.link || !errors.Is(err, x.err) {
					return fmt.Errorf("%+v, %v; want %q, %v", hop, err, x.link, x.err)
				}
				if x.err == nil {
					return nil
				}
				rejection, err := l.Rejecting(x.flow)
				if rejection.Text != x.text {
					return fmt.Errorf("%q, %v; want %q", rejection.Text, err, x.text)
				}
				return err
			})
		})
	}
}

// flowLinks makes an uplink, a bridge for pods, and a route to another node's pods.
func flowLinks() error {
	for name, addresses := range map[string][]string{"eth0": {"192.0.2.1/24", "2001:db8::1/64"}, "pods": {"10.5.1.1/24"}} {
		link := netlink.NewVeth(netlink.LinkAttrs{Name: name})
		link.PeerName = name + "-far"
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		far, err := netlink.LinkByName(link.PeerName)
		if err == nil {
			err = errors.Join(netlink.LinkSetUp(far), netlink.LinkSetUp(link))
		}
		if err != nil {
			return err
		}
		for _, text := range addresses {
			a, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, a); err != nil {
				return err
			}
		}
	}
	return netlink.RouteAdd(&netlink.Route{Dst: dst("10.5.2.0/24"), Gw: net.IPv4(192, 0, 2, 2)})
}
