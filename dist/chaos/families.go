package chaos

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// What the families differ in, by [subnet.Family].

// deviceOf is the name of the VXLAN device that carries a family's overlay.
func deviceOf(f subnet.Family) string { return [...]string{"flannel.1", "flannel-v6.1"}[f] }

// device is the name of the device that carries a family's overlay.
func (b Backend) device(f subnet.Family) string {
	if b == WireGuard {
		return wireGuardOf(f)
	}
	return deviceOf(f)
}

// familyOn is the family whose overlay a device of that name carries.
func familyOn(device string) (f subnet.Family, is bool) {
	for _, f := range subnet.Families() {
		if deviceOf(f) == device || wireGuardOf(f) == device {
			return f, true
		}
	}
	return 0, false
}

// ourDevice reports whether a device has a name that is selvage's.
func ourDevice(name string) bool {
	_, is := familyOn(name)
	return is
}

// overheadOf is how many bytes VXLAN takes of a packet over a family.
func overheadOf(f subnet.Family) int { return [...]int{50, 70}[f] }

// netlinkFamily is AF_INET or AF_INET6.
func netlinkFamily(f subnet.Family) uint8 { return [...]uint8{unix.AF_INET, unix.AF_INET6}[f] }

// familyOfMessage is the inverse of netlinkFamily; of what is neither, it is IPv4.
func familyOfMessage(af uint8) subnet.Family {
	if af == unix.AF_INET6 {
		return subnet.IPv6
	}
	return subnet.IPv4
}

// metricOf is the metric, as it is read back, of a route that is added with none.
func metricOf(f subnet.Family) uint32 { return [...]uint32{0, 1024}[f] }

// iptablesOf is the family's iptables.
func iptablesOf(f subnet.Family) string { return [...]string{"iptables", "ip6tables"}[f] }

// settings is the directory of a family's kernel settings.
func settings(f subnet.Family) string {
	return [...]string{"/proc/sys/net/ipv4/", "/proc/sys/net/ipv6/"}[f]
}

// forwardingOf is the setting that lets what comes by an interface be forwarded.
func forwardingOf(f subnet.Family, link string) string {
	return settings(f) + "conf/" + link + "/forwarding"
}

// ipForward is the setting that lets anything be forwarded. To write it writes that of each interface as well.
func ipForward(f subnet.Family) string {
	return [...]string{settings(subnet.IPv4) + "ip_forward", forwardingOf(subnet.IPv6, "all")}[f]
}

// noLinkLocal is 1 (IN6_ADDR_GEN_MODE_NONE) if the kernel gives a device no IPv6 link-local address.
func noLinkLocal(link string) string {
	return settings(subnet.IPv6) + "conf/" + link + "/addr_gen_mode"
}

// disableIPv6 is 1 if an interface has no IPv6, and so no address of it.
func disableIPv6(link string) string { return settings(subnet.IPv6) + "conf/" + link + "/disable_ipv6" }

// both are the families of a fault that can be done in either.
func both() []subnet.Family { return []subnet.Family{subnet.IPv4, subnet.IPv6} }

// names writes families as they are printed: "IPv4", "IPv6", "IPv4 IPv6".
func names(families []subnet.Family) string {
	var all []string
	for _, f := range families {
		all = append(all, f.String())
	}
	return strings.Join(all, " ")
}

// Turns returns the families that a fault is to be done in, one time after the other: in all at once, then in each alone. A
// fault that is of no family is done to the node as a whole, and one of a family that the overlay does not have not at all.
func (s *Suite) Turns(f Fault) (turns [][]subnet.Family) {
	if f.Families == nil {
		return [][]subnet.Family{s.families}
	}
	var possible []subnet.Family
	for _, family := range s.families {
		if slices.Contains(f.Families, family) {
			possible = append(possible, family)
		}
	}
	if len(possible) > 0 {
		turns = append(turns, possible)
	}
	if len(possible) > 1 && !f.Shared {
		for _, family := range possible {
			turns = append(turns, []subnet.Family{family})
		}
	}
	return turns
}

// eachFamily calls fn with each family that the fault is done in, one after the other. What of the fault is in one is counted
// from then on.
func (t *target) eachFamily(fn func(subnet.Family) error) error {
	for _, f := range t.families {
		if t.since[f].Before(t.start) {
			t.since[f] = time.Now()
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

// inEachFamily makes a step of a fault of what is to be done in each of its families.
func inEachFamily(fn func(*target, subnet.Family) error) step {
	return func(_ context.Context, t *target) error {
		return t.eachFamily(func(f subnet.Family) error { return fn(t, f) })
	}
}
