package policy

import "fmt"

// Text returns the group as text for people: "all pods in shop", or "pods(app=web) in namespaces(team=red)".
func (g Group) Text() string {
	pods, namespaces := "all pods", "all namespaces"
	if s := g.Pods.String(); s != "" {
		pods = "pods(" + s + ")"
	}
	if g.Namespace != "" {
		namespaces = plain(g.Namespace)
	} else if s := g.Namespaces.String(); s != "" {
		namespaces = "namespaces(" + s + ")"
	}
	return pods + " in " + namespaces
}

// String returns the peer as text: its group as [Group.Text] has it, or its block, such as
// "10.0.0.0/8 except 10.1.0.0/16".
func (p Peer) String() string {
	if !p.Block.IsValid() {
		return p.Group.Text()
	}
	text := p.Block.String()
	separator := " except "
	for _, e := range p.Except {
		text += separator + e.String()
		separator = ", "
	}
	return text
}

// String returns the port as text: "80/TCP", "8000-8999/UDP", "TCP" for all its ports, or "http/TCP".
func (p Port) String() string {
	switch {
	case p.Name != "" && p.Protocol == 0:
		return plain(p.Name)
	case p.Name != "":
		return plain(p.Name) + "/" + p.Protocol.String()
	}
	return PortText(p.Protocol, p.First, p.Last)
}

// PortText returns a range of ports as text: "80/TCP", "8000-8999/UDP", or "TCP" for all its ports.
func PortText(p Protocol, first, last uint16) string {
	switch {
	case first == 0 && last == 0xffff:
		return p.String()
	case first == last:
		return fmt.Sprintf("%d/%s", first, p)
	}
	return fmt.Sprintf("%d-%d/%s", first, last, p)
}

// Texts returns what a rule matches as text: its peers and its ports. A nil list matches all, and an empty one nothing.
func (m Match) Texts() (peers, ports []string) {
	if !m.AnyPeer {
		peers = []string{}
		for _, p := range m.Peers {
			peers = append(peers, p.String())
		}
	}
	if !m.AnyPort {
		ports = []string{}
		for _, p := range m.Ports {
			ports = append(ports, p.String())
		}
	}
	return peers, ports
}
