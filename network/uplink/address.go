package uplink

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// pick returns the link's best address of family f: preferred if the link has it and it is usable, else the first
// primary address, else the first secondary one, else the first deprecated one. An invalid preferred means no
// preference. If no address is usable, why gives the reasons.
//
// With named, preferred is an address that the operator named. It is used even if it is temporary: the operator may
// know that it stays. Among equally good addresses, current takes precedence: the kernel lists the newest IPv6 address
// first, and an added address is no reason to change.
func (l Link) pick(
	f subnet.Family, preferred, current netip.Addr, named bool, overlay []netip.Prefix,
) (best netip.Addr, why string) {
	var problems []string
	rank := 4
	for _, a := range l.Addrs {
		ip := a.Prefix.Addr()
		if subnet.FamilyOf(ip) != f {
			continue
		}
		if p := a.problem(overlay, named && ip == preferred); p != "" {
			problems = append(problems, fmt.Sprintf("%s %s", ip, p))
			continue
		}
		if r := a.rank(preferred); r < rank || r == rank && ip == current {
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

func (a Addr) rank(preferred netip.Addr) int {
	switch {
	case a.Prefix.Addr() == preferred:
		return 0
	case a.Flags&Deprecated != 0:
		return 3
	case a.Flags&Secondary != 0:
		return 2
	default:
		return 1
	}
}

// problem returns why an address cannot carry the overlay, "" if it can.
func (a Addr) problem(overlay []netip.Prefix, named bool) string {
	ip := a.Prefix.Addr()
	switch {
	case ip.IsLoopback():
		return "is a loopback address"
	case ip.IsLinkLocalUnicast():
		return "is link-local"
	case a.Flags&DADFailed != 0:
		return "is a duplicate: another host has it"
	case a.Flags&Tentative != 0:
		return "is tentative: duplicate address detection is running"
	case a.Flags&Temporary != 0 && !named:
		return "is temporary"
	case a.Flags&NotGlobal != 0 && !named:
		return "is not of global scope"
	}
	for _, o := range overlay {
		if o.Contains(ip) {
			return fmt.Sprintf("is inside the overlay's network %s", o)
		}
	}
	return ""
}
