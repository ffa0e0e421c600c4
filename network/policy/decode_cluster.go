package policy

import "encoding/json"

// DecodeClusterPolicy reads a ClusterNetworkPolicy (policy.networking.k8s.io/v1beta1) from the API's JSON. The error
// says that the object cannot be identified; any other part that is not understood is one of [ClusterPolicy.Problems].
func DecodeClusterPolicy(data []byte) (ClusterPolicy, error) {
	_, name, raw, err := identity("ClusterNetworkPolicy", false, data)
	if err != nil {
		return ClusterPolicy{}, err
	}
	p := ClusterPolicy{Name: name}
	d := &decoder{}
	spec, understood := d.object("spec", raw, "tier", "priority", "subject", Ingress.String(), Egress.String())
	switch tier, _ := d.text("spec.tier", spec["tier"]); tier {
	case Admin.String():
	case Baseline.String():
		p.Tier = Baseline
	default:
		d.note(ReasonTier, "spec.tier", "is %s, want Admin or Baseline", excerpt(spec["tier"]))
		understood = false
	}
	priority, ok := d.number(ReasonPriority, "spec.priority", spec["priority"], 0, 1000)
	p.Priority = int32(priority)
	understood = understood && ok
	p.Subject, p.NoSubject, ok = d.subject("spec.subject", spec["subject"])
	understood = understood && ok
	for _, dir := range Directions() {
		rules, ok := d.list("spec."+dir.String(), spec[dir.String()])
		if !ok {
			p.Rules[dir] = append(p.Rules[dir], ClusterRule{Action: Deny}.closed())
		}
		for i, raw := range rules {
			r := d.clusterRule(index("spec."+dir.String(), i), raw, dir)
			if !understood {
				r = r.restricted()
			}
			p.Rules[dir] = append(p.Rules[dir], r)
		}
	}
	p.Problems = d.sorted()
	return p, nil
}

// restricted returns a rule of a policy that was not understood: it accepts nothing, and it denies what it matches
// otherwise, because to pass could mean to be accepted by another tier.
func (r ClusterRule) restricted() ClusterRule {
	if r.Action == Accept {
		return ClusterRule{Name: r.Name, Action: Accept}
	}
	r.Action = Deny
	return r
}

// closed returns what the API demands of a rule that was not understood: one that accepts matches nothing, any other
// denies everything.
func (r ClusterRule) closed() ClusterRule {
	if r.Action == Accept {
		return ClusterRule{Name: r.Name, Action: Accept}
	}
	return ClusterRule{Name: r.Name, Action: Deny, Match: Match{AnyPeer: true, AnyPort: true}}
}

// only returns the only member that is not null; empty if there are none or several.
func (m members) only() (field string) {
	for key, raw := range m {
		if absent(raw) {
			continue
		}
		if field != "" {
			return ""
		}
		field = key
	}
	return field
}

// subject reads which pods a cluster policy selects. A kind of subject that is not known may not be about pods, so it
// selects none.
func (d *decoder) subject(place string, raw json.RawMessage) (g Group, none, ok bool) {
	m, ok := d.object(place, raw, "namespaces", "pods")
	switch field := m.only(); field {
	case "namespaces", "pods":
		var good bool
		g, good = d.group(place+"."+field, m[field], field)
		return g, false, ok && good
	}
	if ok {
		d.note(ReasonSubject, place, "is %s, want either namespaces or pods", excerpt(raw))
	}
	return g, true, false
}

// group reads a selector of namespaces, or of namespaces and pods.
func (d *decoder) group(place string, raw json.RawMessage, field string) (g Group, ok bool) {
	if field == "namespaces" {
		g.Namespaces, ok = d.selector(place, raw)
		return g, ok
	}
	m, ok := d.object(place, raw, "namespaceSelector", "podSelector")
	var good [2]bool
	g.Namespaces, good[0] = d.selector(place+".namespaceSelector", m["namespaceSelector"])
	g.Pods, good[1] = d.selector(place+".podSelector", m["podSelector"])
	return g, ok && good[0] && good[1]
}

// clusterRule reads a rule of a ClusterNetworkPolicy.
func (d *decoder) clusterRule(place string, raw json.RawMessage, dir Direction) (r ClusterRule) {
	peersField := [...]string{Ingress: "from", Egress: "to"}[dir]
	m, ok := d.object(place, raw, "name", "action", "protocols", peersField)
	r.Name, _ = d.text(place+".name", m["name"])
	switch action, _ := d.text(place+".action", m["action"]); action {
	case Accept.String():
	case Deny.String():
		r.Action = Deny
	case Pass.String():
		r.Action = Pass
	default:
		d.note(ReasonAction, place+".action", "is %s, want Accept, Deny or Pass", excerpt(m["action"]))
		r.Action, ok = Deny, false
	}
	peers, good := d.list(place+"."+peersField, m[peersField])
	if good && len(peers) == 0 {
		d.note(ReasonNoPeers, place, "has no %s", peersField)
		good = false
	}
	ok = ok && good
	for i, raw := range peers {
		list, good := d.clusterPeer(index(place+"."+peersField, i), raw, dir)
		r.Peers = append(r.Peers, list...)
		ok = ok && good
	}
	protocols, good := d.list(place+".protocols", m["protocols"])
	ok = ok && good
	for i, raw := range protocols {
		p, good := d.clusterPort(index(place+".protocols", i), raw)
		r.Ports = append(r.Ports, p)
		ok = ok && good
	}
	if !ok {
		return r.closed()
	}
	r.AnyPort = len(protocols) == 0
	return r
}

// clusterPeer reads a peer of a ClusterNetworkPolicy. A peer with several networks is as many peers here.
func (d *decoder) clusterPeer(place string, raw json.RawMessage, dir Direction) (list []Peer, ok bool) {
	m, ok := d.object(place, raw, "namespaces", "pods", "networks", "nodes", "domainNames")
	if !ok {
		return nil, false
	}
	field := m.only()
	switch field {
	case "namespaces", "pods":
		g, ok := d.group(place+"."+field, m[field], field)
		return []Peer{{Group: g}}, ok
	case "nodes", "domainNames":
		d.note(ReasonUnsupported, place+"."+field, "peers of this kind are not supported")
		return nil, false
	}
	networks, ok := d.list(place+".networks", m["networks"])
	if field == "" || len(networks) == 0 || dir == Ingress {
		d.note(ReasonPeer, place, "is %s, want exactly one kind of peer, and networks in egress only", excerpt(raw))
		return nil, false
	}
	for i, raw := range networks {
		cidr, good := d.cidr(index(place+".networks", i), raw)
		list = append(list, Peer{Block: cidr})
		ok = ok && good
	}
	return list, ok
}

// clusterPort reads an item of a rule's protocols.
func (d *decoder) clusterPort(place string, raw json.RawMessage) (p Port, ok bool) {
	m, ok := d.object(place, raw, "tcp", "udp", "sctp", "destinationNamedPort")
	field := m.only()
	if !ok {
		return p, false
	}
	if field == "" {
		d.note(ReasonProtocol, place, "is %s, want either tcp, udp, sctp or destinationNamedPort", excerpt(raw))
		return p, false
	}
	place += "." + field
	if field == "destinationNamedPort" {
		if p.Name, ok = d.text(place, m[field]); p.Name == "" {
			d.note(ReasonPort, place, "is %s, want a port's name", excerpt(m[field]))
		}
		return p, ok && p.Name != ""
	}
	p.Protocol = map[string]Protocol{"tcp": TCP, "udp": UDP, "sctp": SCTP}[field]
	protocol, ok := d.object(place, m[field], "destinationPort")
	if !ok {
		return p, false
	}
	return d.destinationPort(p, place+".destinationPort", protocol["destinationPort"])
}

func (d *decoder) destinationPort(p Port, place string, raw json.RawMessage) (Port, bool) {
	m, ok := d.object(place, raw, "number", "range")
	if !ok || absent(m["number"]) == absent(m["range"]) {
		d.note(ReasonPort, place, "is %s, want either number or range", excerpt(raw))
		return p, false
	}
	first, last := 0, 0
	if !absent(m["number"]) {
		first, ok = d.number(ReasonPort, place+".number", m["number"], 1, 0xffff)
		last = first
	} else {
		var r members
		if r, ok = d.object(place+".range", m["range"], "start", "end"); !ok {
			return p, false
		}
		if first, ok = d.number(ReasonPort, place+".range.start", r["start"], 1, 0xffff); ok {
			last, ok = d.number(ReasonPort, place+".range.end", r["end"], first, 0xffff)
		}
	}
	p.First, p.Last = uint16(first), uint16(last)
	return p, ok
}
