package uplink

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// pick returns a link's best address of family f: preferred if the link has it and it is usable, else the first of the
// best rank, see [Addr.rank]. An invalid preferred means no preference. If no address is usable, why gives the reasons.
//
// An IPv4 link-local address is used if the operator asked for the interface, and it has no other.
//
// With named, preferred is an address that the operator named. It is used even if it is temporary: the operator may
// know that it stays. Among equally good addresses, current takes precedence: the kernel lists the newest IPv6 address
// first, and an added address is no reason to change.
func (o Options) pick(
	l Link, f subnet.Family, preferred netip.Addr, named, asked bool,
) (best netip.Addr, why string) {
	var problems []string
	rank := unusable
	for _, a := range l.Addrs {
		ip := a.Prefix.Addr()
		if subnet.FamilyOf(ip) != f {
			continue
		}
		if p := o.problem(a, named && ip == preferred, asked); p != "" {
			problems = append(problems, fmt.Sprintf("%s %s", ip, p))
			continue
		}
		if r := a.rank(preferred); r < rank || r == rank && ip == o.Current[f] {
			best, rank = ip, r
		}
	}
	switch {
	case best.IsValid():
		return best, ""
	case len(problems) > 0:
		return best, fmt.Sprintf("has no usable %s address: %s", f, strings.Join(problems, ", "))
	default:
		return best, fmt.Sprintf("has no %s address", f)
	}
}

// unusable is a rank below all others.
const unusable = 6

// rank orders addresses: 0 is the best one.
func (a Addr) rank(preferred netip.Addr) int {
	switch ip := a.Prefix.Addr(); {
	case ip == preferred:
		return 0
	case ip.IsLinkLocalUnicast():
		return 5
	case a.Flags&Deprecated != 0:
		return 4
	case a.Flags&Secondary != 0:
		return 3
	case a.service():
		return 2
	default:
		return 1
	}
}

// service reports whether an address looks like that of a service, such as a VIP of keepalived or of kube-vip: it has
// no subnet, so the kernel sends from another one to all on-link hosts (inet_select_addr in net/ipv4/devinet.c), and it
// moves between nodes. A node of some clouds has such an address and no other.
func (a Addr) service() bool {
	host := netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen())
	return a.Prefix == host && a.OnLink == host && a.Flags&Dynamic == 0
}

// problem returns why an address cannot carry the overlay, "" if it can.
func (o Options) problem(a Addr, named, asked bool) string {
	ip := a.Prefix.Addr()
	linkLocal := ip.IsLinkLocalUnicast()
	switch {
	case ip.IsLoopback():
		return "is a loopback address"
	case linkLocal && !(ip.Is4() && asked):
		return "is link-local"
	case a.Flags&DADFailed != 0:
		return "is a duplicate: another host has it"
	case a.Flags&Tentative != 0:
		return "is tentative: duplicate address detection is running"
	case a.Flags&Temporary != 0 && !named:
		return "is temporary"
	case a.Flags&NotGlobal != 0 && !named && !linkLocal:
		return "is not of global scope"
	}
	if network := o.inOverlay(ip); network.IsValid() {
		return fmt.Sprintf("is inside the overlay's network %s", network)
	}
	return ""
}
