package uplink

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// Options are what the operator asked for.
type Options struct {
	Families     []subnet.Family // those in use; at least one
	Ifaces       []string        // names or addresses of interfaces, the first that fits is taken
	IfaceRegexes []string        // expressions (RE2, not anchored) for names or addresses, tried after Ifaces
	CanReach     netip.Addr      // an address that the interface has to lead to; invalid: not asked for
	PublicIP     [2]netip.Addr   // what peers send to, by subnet.Family; invalid: the interface's own address
	Current      [2]netip.Addr   // the addresses in use, which others that are as good do not replace; invalid: none
	Overlay      []netip.Prefix  // the overlay's networks: no address inside is taken for one of the underlay's
}

// Choice is what carries the overlay.
type Choice struct {
	Name         string
	Index        int
	MTU          int               // bytes
	HardwareAddr string            // as in Link
	Local        [2]netip.Addr     // the address on the interface, by subnet.Family; invalid for a family not in use
	PublicIP     [2]netip.Addr     // what peers send to: Local, unless the operator named another, behind NAT for instance
	OnLink       [2][]netip.Prefix // what the interface reaches without a gateway; sorted
	Gateways     []netip.Addr      // of all default routes
	Why          string            // for a log: "it has the default route", "--iface=eth1"
	Rejected     []Rejection       // what came before in order, and did not fit
	Others       []Rejection       // what else could carry the overlay
}

// Rejection says why an interface was not taken.
type Rejection struct{ Name, Why string }

// String returns "eth1 is down".
func (r Rejection) String() string { return r.Name + " " + r.Why }

// Equal reports whether two choices are the same for the overlay; how they were arrived at makes no difference.
func (c Choice) Equal(d Choice) bool {
	return c.Name == d.Name && c.Index == d.Index && c.MTU == d.MTU && c.HardwareAddr == d.HardwareAddr &&
		c.Local == d.Local && c.PublicIP == d.PublicIP &&
		slices.Equal(c.OnLink[0], d.OnLink[0]) && slices.Equal(c.OnLink[1], d.OnLink[1])
}

// candidate is an interface to be considered.
type candidate struct {
	link      Link
	why       string
	preferred [2]netip.Addr // take this of its addresses, if it can be used
	named     bool          // the operator named this interface or its address, and no pattern or route led to it
}

// Choose returns the interface and the addresses that carry the overlay, in the order that the package's comment gives.
// An error says what was asked for, what there is, and what to do about it. It may pass: an interface can still come up,
// or be given an address.
func Choose(o Options, s Snapshot) (Choice, error) {
	if err := o.validate(); err != nil {
		return Choice{}, err
	}
	candidates, rejected, err := o.candidates(s)
	if err != nil {
		return Choice{}, fmt.Errorf("choose the uplink: %w (interfaces here: %s)", err, s.inventory())
	}
	for _, c := range candidates {
		choice, why := o.take(c, s)
		if why == "" {
			choice.Rejected, choice.Gateways = rejected, s.gateways(o.Families)
			choice.Others = o.others(c, candidates, rejected, s)
			return choice, nil
		}
		if r := (Rejection{c.link.Name, why}); !slices.Contains(rejected, r) {
			rejected = append(rejected, r)
		}
	}
	reasons := make([]string, len(rejected))
	for i, r := range rejected {
		reasons[i] = r.String()
	}
	return Choice{}, fmt.Errorf("choose the uplink by %s: %s; bring it up with an address of each family in use (%s), or name another "+
		"with --iface (interfaces here: %s)", o.asked(), strings.Join(reasons, ", "), o.families(), s.inventory())
}

func (o Options) validate() error {
	if len(o.Families) == 0 {
		return errors.New("choose the uplink: no family is in use: enable IPv4 or IPv6 in the network config")
	}
	for _, f := range subnet.Families() {
		a := o.PublicIP[f]
		if !a.IsValid() {
			continue
		}
		if subnet.FamilyOf(a) != f || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() {
			return fmt.Errorf("--%s=%s: want an %s address that other nodes can send to", publicIPFlag(f), a, f)
		}
		if i := slices.IndexFunc(o.Overlay, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 {
			return fmt.Errorf("--%s=%s is inside the overlay's network %s: want the address by which other nodes reach this one without the overlay",
				publicIPFlag(f), a, o.Overlay[i])
		}
	}
	return nil
}

// candidates returns the interfaces that the options lead to, the best first. If there are none, that is an error.
func (o Options) candidates(s Snapshot) (found []candidate, rejected []Rejection, err error) {
	switch {
	case len(o.Ifaces) > 0 || len(o.IfaceRegexes) > 0:
		found, rejected = o.byName(s)
		matching, err := o.byRegex(s)
		if err != nil {
			return nil, nil, err
		}
		if found = append(found, matching...); len(found) == 0 {
			return nil, nil, fmt.Errorf("no interface is matched by %s; name one that is here, or none to take the default route's", o.asked())
		}
		return found, rejected, nil
	case o.CanReach.IsValid():
		c, err := o.byReach(s)
		return []candidate{c}, nil, err
	}
	if found = append(o.byPublicIP(s), o.byDefaultRoute(s)...); len(found) == 0 {
		return nil, nil, fmt.Errorf("no default route for %s, so nothing tells which interface it is: name one with --iface", o.families())
	}
	return found, nil, nil
}

func (o Options) byName(s Snapshot) (found []candidate, rejected []Rejection) {
	for _, name := range o.Ifaces {
		c := candidate{why: "--iface=" + name, named: true}
		var ok bool
		if ip, err := netip.ParseAddr(name); err == nil {
			c.link, ok = s.having(ip)
			c.preferred[subnet.FamilyOf(ip)] = ip
		} else {
			c.link, ok = s.named(name)
		}
		if ok {
			found = append(found, c)
		} else {
			rejected = append(rejected, Rejection{name, "is not here"})
		}
	}
	return found, rejected
}

func (o Options) byRegex(s Snapshot) (found []candidate, err error) {
	for _, pattern := range o.IfaceRegexes {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("--iface-regex=%s: %w", pattern, err)
		}
		for _, l := range s.Links {
			if l.Loopback {
				continue // a pattern such as ".*" does not mean lo
			}
			c := candidate{link: l, why: "--iface-regex=" + pattern}
			matches := re.MatchString(l.Name) || slices.ContainsFunc(l.AltNames, re.MatchString)
			for _, a := range l.Addrs {
				ip := a.Prefix.Addr()
				if p := &c.preferred[subnet.FamilyOf(ip)]; !p.IsValid() && re.MatchString(ip.String()) && a.problem(o.Overlay, false) == "" {
					matches, *p = true, ip
				}
			}
			if matches {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

func (o Options) byReach(s Snapshot) (candidate, error) {
	c := candidate{why: fmt.Sprintf("it leads to --iface-can-reach=%s", o.CanReach)}
	// The lookup for an address of our own answers lo.
	if l, ok := s.having(o.CanReach); ok {
		c.link = l
		c.preferred[subnet.FamilyOf(o.CanReach)] = o.CanReach
		return c, nil
	}
	l, ok := s.byIndex(s.Reach.Link)
	if !ok || s.Reach.Dest != o.CanReach {
		problem := s.Reach.Problem
		if problem == "" {
			problem = "no route"
		}
		return c, fmt.Errorf("--iface-can-reach=%s: %s; add a route to it, or name the interface with --iface", o.CanReach, problem)
	}
	c.link = l
	c.preferred[subnet.FamilyOf(o.CanReach)] = s.Reach.Source
	return c, nil
}

func (o Options) byPublicIP(s Snapshot) (found []candidate) {
	for _, f := range o.Families {
		if l, ok := s.having(o.PublicIP[f]); ok && !l.Loopback {
			found = append(found, candidate{link: l, why: fmt.Sprintf("it has --%s=%s", publicIPFlag(f), o.PublicIP[f])})
		}
	}
	return found
}

// byDefaultRoute returns the interfaces of the default routes of the families in use, in turn: with two families the first
// one's is of no use if it lacks an address of the second.
func (o Options) byDefaultRoute(s Snapshot) (found []candidate) {
	for _, f := range o.Families {
		for _, r := range s.defaults(f) {
			if l, ok := s.byIndex(r.Link); ok && !l.Loopback {
				c := candidate{link: l, why: fmt.Sprintf("it has the %s default route", f)}
				c.preferred[f] = r.Source
				found = append(found, c)
			}
		}
	}
	return found
}

// take makes the choice of a candidate, or says why it does not fit.
func (o Options) take(c candidate, s Snapshot) (choice Choice, why string) {
	l := c.link
	if !l.Up {
		return choice, "is down"
	}
	choice = Choice{Name: l.Name, Index: l.Index, MTU: l.MTU, HardwareAddr: l.HardwareAddr, Why: c.why}
	if l.Loopback {
		// Hosts that speak a routing protocol keep their address on lo and their uplinks without any. lo's own MTU of
		// 65536 says nothing of the way out then.
		if choice.MTU = s.leastMTU(o.Families); choice.MTU == 0 {
			return choice, "is the loopback interface, and no default route tells the MTU of the way out"
		}
	}
	for _, f := range o.Families {
		preferred, named := c.preferred[f], c.named
		if public := o.PublicIP[f]; l.has(public) && !(named && preferred.IsValid()) {
			preferred, named = public, true // peers should see packets come from where they send theirs
		}
		local, why := l.pick(f, preferred, o.Current[f], named, o.Overlay)
		if why != "" {
			return choice, why
		}
		choice.Local[f], choice.PublicIP[f], choice.OnLink[f] = local, local, l.onLink(f)
		if o.PublicIP[f].IsValid() {
			choice.PublicIP[f] = o.PublicIP[f]
		}
	}
	return choice, ""
}

// gateways returns the gateways of default routes, each once.
func (s Snapshot) gateways(families []subnet.Family) (all []netip.Addr) {
	for _, f := range families {
		for _, r := range s.defaults(f) {
			if r.Gateway.IsValid() && !slices.Contains(all, r.Gateway) {
				all = append(all, r.Gateway)
			}
		}
	}
	return all
}

// leastMTU returns the smallest MTU of the interfaces that default routes lead to, 0 if there is none.
func (s Snapshot) leastMTU(families []subnet.Family) (mtu int) {
	for _, f := range families {
		for _, r := range s.defaults(f) {
			if l, ok := s.byIndex(r.Link); ok && !l.Loopback && (mtu == 0 || l.MTU < mtu) {
				mtu = l.MTU
			}
		}
	}
	return mtu
}

// asked names what the choice goes by: "--iface=eth7".
func (o Options) asked() string {
	var flags []string
	for _, i := range o.Ifaces {
		flags = append(flags, "--iface="+i)
	}
	for _, r := range o.IfaceRegexes {
		flags = append(flags, "--iface-regex="+r)
	}
	switch {
	case len(flags) > 0:
		return strings.Join(flags, ", ")
	case o.CanReach.IsValid():
		return fmt.Sprintf("--iface-can-reach=%s", o.CanReach)
	default:
		return "the default route"
	}
}

func (o Options) families() string {
	names := make([]string, len(o.Families))
	for i, f := range o.Families {
		names[i] = f.String()
	}
	return strings.Join(names, " and ")
}

func publicIPFlag(f subnet.Family) string {
	return [...]string{subnet.IPv4: "public-ip", subnet.IPv6: "public-ipv6"}[f]
}
