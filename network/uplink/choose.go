package uplink

import (
	"cmp"
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
	Ifaces       []string        // names or addresses of interfaces, in order of precedence
	IfaceRegexes []string        // expressions (RE2, not anchored) for names or addresses, tried after Ifaces
	CanReach     netip.Addr      // an address that the interface must lead to; invalid: not set
	PublicIP     [2]netip.Addr   // address that peers send to, by subnet.Family; invalid: the interface's own
	// PublicIPName says where PublicIP is from, such as "annotation node-public-ip"; empty: --public-ip, --public-ipv6.
	PublicIPName [2]string
	// Announced is what peers send to instead of the node's own address or PublicIP. Unlike PublicIP, it has no part in
	// the choice. Invalid: nothing else.
	Announced [2]netip.Addr
	Current   [2]netip.Addr  // the addresses in use, kept unless another one is better; invalid: none
	Overlay   []netip.Prefix // the overlay's networks: an address inside is not an underlay address
	// Beside reports whether an address inside Overlay is not one of the overlay's: no subnet with it is leased, or may
	// be. nil: all addresses are the overlay's.
	Beside func(netip.Addr) bool
}

// Choice is the interface and the addresses that carry the overlay.
type Choice struct {
	Name         string
	Index        int
	MTU          int               // bytes
	HardwareAddr string            // as in Link
	Local        [2]netip.Addr     // the address on the interface, by subnet.Family; invalid for a family not in use
	PublicIP     [2]netip.Addr     // address that peers send to: Local, unless the operator named another, as with NAT
	OnLink       [2][]netip.Prefix // prefixes that the interface reaches without a gateway; sorted
	Gateways     []netip.Addr      // of all default routes
	Why          string            // for a log: "it has the default route", "--iface=eth1"
	Rejected     []Rejection       // unusable interfaces of higher precedence
	Others       []Rejection       // usable interfaces that were not chosen
}

// Rejection is an interface that was not chosen, and why.
type Rejection struct{ Name, Why string }

// String returns "eth1 is down".
func (r Rejection) String() string { return r.Name + " " + r.Why }

// Equal reports whether two choices are the same for the overlay. The reasons are not compared.
func (c Choice) Equal(d Choice) bool {
	return c.Name == d.Name && c.Index == d.Index && c.MTU == d.MTU && c.HardwareAddr == d.HardwareAddr &&
		c.Local == d.Local && c.PublicIP == d.PublicIP &&
		slices.Equal(c.OnLink[0], d.OnLink[0]) && slices.Equal(c.OnLink[1], d.OnLink[1])
}

// candidate is an interface that the options select.
type candidate struct {
	link      Link
	why       string
	preferred [2]netip.Addr // of its addresses, if usable
	named     bool          // selected by its name or address, not by a pattern or route
	asked     bool          // selected by a flag, and not for having a default route
}

// Choose returns the interface and the addresses that carry the overlay, by the precedence in the package comment. An
// error says what was asked for, which interfaces exist, and what to do. It can be temporary: an interface may come up
// or get an address.
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
	return Choice{}, fmt.Errorf("choose the uplink by %s: %s; "+
		"bring it up with an address of each family in use (%s), or name another with --iface (interfaces here: %s)",
		o.criterion(), strings.Join(reasons, ", "), o.families(), s.inventory())
}

func (o Options) validate() error {
	if len(o.Families) == 0 {
		return errors.New("choose the uplink: no family is in use: enable IPv4 or IPv6 in the network config")
	}
	for _, f := range subnet.Families() {
		if a := o.PublicIP[f]; a.IsValid() {
			if err := o.CheckPublicIP(f, a, o.publicIPName(f)); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckPublicIP returns why other nodes cannot use an address for this one, or nil. Overlay and Beside have to be set.
// name is where the address is from.
func (o Options) CheckPublicIP(f subnet.Family, a netip.Addr, name string) error {
	linkLocal := a.Is4() && a.IsLinkLocalUnicast()
	if subnet.FamilyOf(a) != f || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() && !linkLocal {
		return fmt.Errorf("%s=%s: want an %s address that other nodes can send to", name, a, f)
	}
	if network := o.inOverlay(a); network.IsValid() {
		return fmt.Errorf("%s=%s is inside the overlay's network %s: "+
			"want the address by which other nodes reach this one without the overlay", name, a, network)
	}
	return nil
}

// inOverlay returns the overlay's network that an address belongs to, or the zero value.
func (o Options) inOverlay(a netip.Addr) netip.Prefix {
	i := slices.IndexFunc(o.Overlay, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 || o.Beside != nil && o.Beside(a) {
		return netip.Prefix{}
	}
	return o.Overlay[i]
}

// candidates returns the interfaces that the options select, best first. It is an error if there is none.
func (o Options) candidates(s Snapshot) (found []candidate, rejected []Rejection, err error) {
	switch {
	case len(o.Ifaces) > 0 || len(o.IfaceRegexes) > 0:
		found, rejected = o.byName(s)
		matching, err := o.byRegex(s)
		if err != nil {
			return nil, nil, err
		}
		if found = append(found, matching...); len(found) == 0 {
			return nil, nil, fmt.Errorf("no interface matches %s; "+
				"name an existing one, or none to use that of the default route", o.criterion())
		}
		return found, rejected, nil
	case o.CanReach.IsValid():
		c, err := o.byReach(s)
		return []candidate{c}, nil, err
	}
	if found = append(o.byPublicIP(s), o.byDefaultRoute(s)...); len(found) == 0 {
		return nil, nil, fmt.Errorf("no default route for %s: name the interface with --iface", o.families())
	}
	return found, nil, nil
}

func (o Options) byName(s Snapshot) (found []candidate, rejected []Rejection) {
	for _, name := range o.Ifaces {
		c := candidate{why: "--iface=" + name, named: true, asked: true}
		var ok bool
		if ip, err := netip.ParseAddr(name); err == nil {
			c.link, ok = s.withAddr(ip)
			c.preferred[subnet.FamilyOf(ip)] = ip
		} else {
			c.link, ok = s.named(name)
		}
		if ok {
			found = append(found, c)
		} else {
			rejected = append(rejected, Rejection{name, "does not exist"})
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
			c := candidate{link: l, why: "--iface-regex=" + pattern, asked: true}
			matches := re.MatchString(l.Name) || slices.ContainsFunc(l.AltNames, re.MatchString)
			for _, a := range l.Addrs {
				ip := a.Prefix.Addr()
				p := &c.preferred[subnet.FamilyOf(ip)]
				if !p.IsValid() && re.MatchString(ip.String()) && o.problem(a, false, false) == "" {
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
	c := candidate{asked: true, why: fmt.Sprintf("it leads to --iface-can-reach=%s", o.CanReach)}
	// A route lookup for an address of this node returns lo.
	if l, ok := s.withAddr(o.CanReach); ok {
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
		return c, fmt.Errorf("--iface-can-reach=%s: %s; add a route to it, or name the interface with --iface",
			o.CanReach, problem)
	}
	c.link = l
	c.preferred[subnet.FamilyOf(o.CanReach)] = s.Reach.Source
	return c, nil
}

func (o Options) byPublicIP(s Snapshot) (found []candidate) {
	for _, f := range o.Families {
		if l, ok := s.withAddr(o.PublicIP[f]); ok && !l.Loopback {
			why := fmt.Sprintf("it has %s=%s", o.publicIPName(f), o.PublicIP[f])
			found = append(found, candidate{link: l, asked: true, why: why})
		}
	}
	return found
}

// byDefaultRoute returns the interfaces of the default routes of all families in use: that of the first family is
// unusable if it lacks an address of the second.
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

// take returns the choice of a candidate, or why it is unusable.
func (o Options) take(c candidate, s Snapshot) (choice Choice, why string) {
	l := c.link
	if !l.Up {
		return choice, "is down"
	}
	choice = Choice{Name: l.Name, Index: l.Index, MTU: l.MTU, HardwareAddr: l.HardwareAddr, Why: c.why}
	if l.Loopback {
		// Hosts that run a routing protocol may have their address on lo, and none on their uplinks. The MTU of lo,
		// 65536, is then not that of the path.
		if choice.MTU = s.leastMTU(o.Families); choice.MTU == 0 {
			return choice, "is the loopback interface, and without a default route its MTU is unknown"
		}
	}
	for _, f := range o.Families {
		preferred, named := c.preferred[f], c.named
		if public := o.PublicIP[f]; l.has(public) && !(named && preferred.IsValid()) {
			preferred, named = public, true // the source that peers see should be the address that they send to
		}
		local, why := o.pick(l, f, preferred, named, c.asked)
		if why != "" {
			return choice, why
		}
		choice.Local[f], choice.PublicIP[f], choice.OnLink[f] = local, local, l.onLink(f, local)
		if o.PublicIP[f].IsValid() {
			choice.PublicIP[f] = o.PublicIP[f]
		}
		if o.Announced[f].IsValid() {
			choice.PublicIP[f] = o.Announced[f]
		}
	}
	return choice, ""
}

// gateways returns the gateways of default routes, without duplicates.
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

// leastMTU returns the smallest MTU of the interfaces of default routes in bytes, 0 if there is none.
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

// criterion names what selects the interface, such as "--iface=eth7".
func (o Options) criterion() string {
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

// publicIPName says where PublicIP is from.
func (o Options) publicIPName(f subnet.Family) string {
	return cmp.Or(o.PublicIPName[f], [...]string{subnet.IPv4: "--public-ip", subnet.IPv6: "--public-ipv6"}[f])
}
