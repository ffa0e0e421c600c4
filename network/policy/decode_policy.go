package policy

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
)

// DecodePolicy reads a NetworkPolicy (networking.k8s.io/v1) from the API's JSON. The error says that the object cannot
// be identified; any other part that is not understood is one of [Policy.Problems].
func DecodePolicy(data []byte) (Policy, error) {
	namespace, name, raw, err := identity("NetworkPolicy", true, data)
	if err != nil {
		return Policy{}, err
	}
	p := Policy{Namespace: namespace, Name: name, Subject: Group{Namespace: namespace}}
	d := &decoder{}
	spec, understood := d.object("spec", raw, "podSelector", "policyTypes", Ingress.String(), Egress.String())
	var ok bool
	p.Subject.Pods, ok = d.selector("spec.podSelector", spec["podSelector"])
	understood = understood && ok
	p.Isolates, ok = d.policyTypes(spec)
	understood = understood && ok
	for _, dir := range Directions() {
		rules, _ := d.list("spec."+dir.String(), spec[dir.String()])
		for i, r := range rules {
			m := d.match(index("spec."+dir.String(), i), r, dir, namespace)
			if !understood {
				m = Match{}
			}
			p.Rules[dir] = append(p.Rules[dir], m)
		}
	}
	p.Problems = d.sorted()
	return p, nil
}

// sorted returns the problems by place, since the members of an object have no order.
func (d *decoder) sorted() []Problem {
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Place, b.Place), cmp.Compare(a.Text, b.Text))
	})
	return d.problems
}

// policyTypes reads in which directions a policy isolates. The API server fills in a missing field; a policy from a
// file gets the same defaults here. An unknown type isolates in both directions.
func (d *decoder) policyTypes(spec members) (isolates [2]bool, ok bool) {
	const place = "spec.policyTypes"
	list, ok := d.list(place, spec["policyTypes"])
	if !ok {
		return [2]bool{true, true}, false
	}
	if len(list) == 0 {
		var egress []json.RawMessage
		_ = json.Unmarshal(spec[Egress.String()], &egress) // reported with the rules
		return [2]bool{Ingress: true, Egress: len(egress) > 0}, true
	}
	for i, raw := range list {
		switch s, _ := d.text(index(place, i), raw); s {
		case "Ingress":
			isolates[Ingress] = true
		case "Egress":
			isolates[Egress] = true
		default:
			d.note(ReasonPolicyType, index(place, i), "is %s, want Ingress or Egress", excerpt(raw))
			return [2]bool{true, true}, false
		}
	}
	return isolates, true
}

// match reads a rule of a NetworkPolicy. A peer or port that is not understood is left out, and the rule matches by the
// others only.
func (d *decoder) match(place string, raw json.RawMessage, dir Direction, namespace string) (m Match) {
	peersField := [...]string{Ingress: "from", Egress: "to"}[dir]
	rule, ok := d.object(place, raw, "ports", peersField)
	peers, peersOK := d.list(place+"."+peersField, rule[peersField])
	ports, portsOK := d.list(place+".ports", rule["ports"])
	for i, raw := range peers {
		if p, ok := d.peer(index(place+"."+peersField, i), raw, namespace); ok {
			m.Peers = append(m.Peers, p)
		}
	}
	for i, raw := range ports {
		if p, ok := d.port(index(place+".ports", i), raw); ok {
			m.Ports = append(m.Ports, p)
		}
	}
	if !ok || !peersOK || !portsOK {
		return Match{}
	}
	m.AnyPeer, m.AnyPort = len(peers) == 0, len(ports) == 0
	return m
}

// peer reads a peer of a NetworkPolicy.
func (d *decoder) peer(place string, raw json.RawMessage, namespace string) (p Peer, ok bool) {
	m, ok := d.object(place, raw, "podSelector", "namespaceSelector", "ipBlock")
	pods, namespaces, block := !absent(m["podSelector"]), !absent(m["namespaceSelector"]), !absent(m["ipBlock"])
	switch {
	case !ok:
		return p, false
	case block && !pods && !namespaces:
		return d.ipBlock(place+".ipBlock", m["ipBlock"])
	case block || !pods && !namespaces:
		d.note(ReasonPeer, place, "is %s, want podSelector, namespaceSelector, both, or ipBlock", excerpt(raw))
		return p, false
	}
	p.Group.Pods, ok = d.selector(place+".podSelector", m["podSelector"])
	if !namespaces {
		p.Group.Namespace = namespace
		return p, ok
	}
	var good bool
	p.Group.Namespaces, good = d.selector(place+".namespaceSelector", m["namespaceSelector"])
	return p, ok && good
}

func (d *decoder) ipBlock(place string, raw json.RawMessage) (p Peer, ok bool) {
	m, ok := d.object(place, raw, "cidr", "except")
	if !ok {
		return p, false
	}
	if p.Block, ok = d.cidr(place+".cidr", m["cidr"]); !ok {
		return p, false
	}
	except, ok := d.list(place+".except", m["except"])
	for i, raw := range except {
		e, good := d.cidr(index(place+".except", i), raw)
		p.Except = append(p.Except, e)
		ok = ok && good
	}
	return p, ok
}

// cidr reads a prefix and masks its host bits, which old objects may have. IPv4 in IPv6 notation does not occur.
func (d *decoder) cidr(place string, raw json.RawMessage) (netip.Prefix, bool) {
	text, ok := d.text(place, raw)
	if !ok {
		return netip.Prefix{}, false
	}
	cidr, err := netip.ParsePrefix(text)
	if err != nil || cidr.Addr().Is4In6() {
		d.note(ReasonCIDR, place, "is %s, want an IP prefix", excerpt(raw))
		return netip.Prefix{}, false
	}
	return cidr.Masked(), true
}

// port reads a port of a NetworkPolicy.
func (d *decoder) port(place string, raw json.RawMessage) (p Port, ok bool) {
	m, ok := d.object(place, raw, "protocol", "port", "endPort")
	if !ok {
		return p, false
	}
	if p.Protocol, ok = d.protocol(place+".protocol", m["protocol"]); !ok {
		return p, false
	}
	number, end := m["port"], m["endPort"]
	if absent(number) {
		if p.Last = 0xffff; !absent(end) {
			d.note(ReasonPort, place+".endPort", "is %s without a port", excerpt(end))
			return p, false
		}
		return p, true
	}
	if number[0] == '"' {
		if p.Name, ok = d.text(place+".port", number); !ok || p.Name == "" || !absent(end) {
			d.note(ReasonPort, place, "is %s, want a port's name without endPort", excerpt(raw))
			return p, false
		}
		return p, true
	}
	first, ok := d.number(ReasonPort, place+".port", number, 1, 0xffff)
	if !ok {
		return p, false
	}
	last := first
	if !absent(end) {
		if last, ok = d.number(ReasonPort, place+".endPort", end, first, 0xffff); !ok {
			return p, false
		}
	}
	p.First, p.Last = uint16(first), uint16(last)
	return p, true
}

// protocol reads the name of a protocol, which is TCP if it is absent.
func (d *decoder) protocol(place string, raw json.RawMessage) (Protocol, bool) {
	name, ok := d.text(place, raw)
	if !ok {
		return 0, false
	}
	if absent(raw) {
		return TCP, true
	}
	p, ok := ParseProtocol(name)
	if !ok {
		d.note(ReasonProtocol, place, "is %s, want TCP, UDP or SCTP", excerpt(raw))
	}
	return p, ok
}
