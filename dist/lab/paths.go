package lab

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// OneSegment tells whether two nodes are on one segment of the underlay.
func (l *Lab) OneSegment(a, b *Node) bool {
	return l.segment(slices.Index(l.nodes, a)) == l.segment(slices.Index(l.nodes, b))
}

// WrongPaths says which nodes reach each other's subnets by another way than they should: out of the uplink where direct says
// so, and else through a tunnel. A subnet that a node has no route to is wrong as well.
func (l *Lab) WrongPaths(direct func(from, to *Node) bool) (wrong []string, err error) {
	for _, n := range l.nodes {
		for _, peer := range l.nodes {
			if n == peer {
				continue
			}
			of, err := n.wrongPaths(peer, direct(n, peer))
			if err != nil {
				return wrong, err
			}
			wrong = append(wrong, of...)
		}
	}
	return wrong, nil
}

// wrongPaths is [Lab.WrongPaths] of one node to another.
func (n *Node) wrongPaths(peer *Node, direct bool) (wrong []string, err error) {
	subnets := subnetsOf([]*Node{peer})
	o, err := n.readOverlay(subnets)
	if err != nil {
		return nil, err
	}
	want := "a tunnel"
	if direct {
		want = uplink
	}
	for _, r := range o.routes {
		if r.Type != unix.RTN_UNICAST {
			continue // a blackhole, for when there is no other route
		}
		to := prefixOf(r.Dst)
		delete(subnets, to)
		if link := o.links[r.LinkIndex]; direct != (link == uplink) {
			wrong = append(wrong, fmt.Sprintf("%s reaches %s of %s through %s, want %s", n.name, to, peer.name, link, want))
		}
	}
	for to := range subnets {
		wrong = append(wrong, fmt.Sprintf("%s has no route to %s of %s, want one through %s", n.name, to, peer.name, want))
	}
	return wrong, nil
}

// unencryptedPaths says which nodes reach each other's subnets by another device than that of the family, whatever
// [Lab.WrongPaths] says: only a WireGuard device encrypts.
func (l *Lab) unencryptedPaths(devices [2]string) (wrong []string, err error) {
	for _, n := range l.nodes {
		o, err := n.readOverlay(subnetsOf(l.PeersOf(n)))
		if err != nil {
			return wrong, err
		}
		for _, r := range o.routes {
			to := prefixOf(r.Dst)
			want := devices[subnet.FamilyOf(to.Addr())]
			if link := o.links[r.LinkIndex]; r.Type == unix.RTN_UNICAST && link != want {
				wrong = append(wrong, fmt.Sprintf("%s reaches %s through %s, want %s", n.name, to, link, want))
			}
		}
	}
	return wrong, nil
}
