package chaosstore

import (
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/subnet"
)

// subnets are those of a node, by family; one that the overlay does not have is invalid.
type subnets [2]netip.Prefix

// subnetsOf returns those of a lease.
func subnetsOf(l subnet.Lease) (s subnets) {
	for f, e := range l.Endpoints {
		s[f] = e.Subnet
	}
	return s
}

// key is that of the lease.
func (s subnets) key() string { return subnet.FormatKey(s[:]...) }

// String returns "10.5.7.0/24 fd00:5:0:7::/64".
func (s subnets) String() string {
	var all []string
	for _, p := range s {
		if p.IsValid() {
			all = append(all, p.String())
		}
	}
	return strings.Join(all, " ")
}

// overlap reports whether any of s overlaps one of t.
func (s subnets) overlap(t subnets) bool {
	for f := range s {
		if s[f].Overlaps(t[f]) {
			return true
		}
	}
	return false
}

// contain reports whether an address is in one of them.
func (s subnets) contain(a netip.Addr) bool { return s[0].Contains(a) || s[1].Contains(a) }

// masked returns them without the bits of a host.
func (s subnets) masked() subnets { return subnets{s[0].Masked(), s[1].Masked()} }

// overlayAddresses returns the addresses of the node's overlay devices.
func (h *host) overlayAddresses() (all []netip.Addr, err error) {
	err = h.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Type() != "vxlan" {
				continue
			}
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				ip, _ := netip.AddrFromSlice(a.IP)
				all = append(all, ip.Unmap())
			}
		}
		return nil
	})
	return all, err
}
