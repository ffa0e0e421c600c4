package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// A daemon announces its network to other daemons in the same network namespace by the name of an abstract unix socket,
// which the kernel removes with the process: selvage-network|TAG|NETWORKS|IFALIAS. See unix(7).
const presencePrefix = "@selvage-network|"

// presenceLimit is the longest name, in bytes, without the leading NUL (sun_path in struct sockaddr_un).
const presenceLimit = 107

// Neighbour is a network that a running daemon keeps in this network namespace.
type Neighbour struct {
	Tag      string // of its scope
	Networks []netip.Prefix
	Name     string // for people: "/second (VNI 2)"
}

// Neighbours lists the networks of all running daemons in this network namespace.
func Neighbours() (all []Neighbour, err error) {
	data, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return nil, fmt.Errorf("look for other daemons: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if _, name, ok := strings.Cut(strings.TrimRight(line, "\n"), " "+presencePrefix); ok {
			if n, ok := parsePresence(name); ok {
				all = append(all, n)
			}
		}
	}
	return all, nil
}

// presenceName is what announces a network.
func presenceName(scope network.Scope, networks []netip.Prefix) string {
	var texts []string
	for _, p := range networks {
		texts = append(texts, p.String())
	}
	name := presencePrefix + scope.Tag() + "|" + strings.Join(texts, ",") + "|" + scope.Alias()
	return name[:min(len(name), presenceLimit)]
}

func parsePresence(name string) (n Neighbour, ok bool) {
	fields := strings.SplitN(name, "|", 3)
	if len(fields) != 3 {
		return n, false
	}
	n.Tag = fields[0]
	for text := range strings.SplitSeq(fields[1], ",") {
		if p, err := netip.ParsePrefix(text); err == nil {
			n.Networks = append(n.Networks, p)
		}
	}
	n.Name = fields[2]
	if s, ok := network.ParseAlias(n.Name); ok {
		n.Name = s.String()
	}
	return n, true
}

// presence is what a daemon has announced.
type presence struct {
	name     string
	listener net.Listener
}

// announce announces a network, in place of what was announced before. It fails if a running daemon keeps the same
// network, or one whose addresses overlap: the routes of the two would replace each other.
func (p *presence) announce(scope network.Scope, networks []netip.Prefix) error {
	name := presenceName(scope, networks)
	if p.listener != nil && name == p.name {
		return nil
	}
	l, err := net.Listen("unix", name)
	if errors.Is(err, unix.EADDRINUSE) {
		return sameNetwork(scope)
	}
	if err != nil {
		return nil // a hardened host may forbid it; the daemon works without
	}
	all, err := Neighbours()
	if err == nil {
		err = clash(scope, networks, othersThan(all, name, p.name))
	}
	if err != nil {
		l.Close()
		return err
	}
	p.close()
	p.name, p.listener = name, l
	return nil
}

// othersThan returns the networks other than those with two names: the daemon's own, new and old.
func othersThan(all []Neighbour, names ...string) (others []Neighbour) {
	own := map[string]int{}
	for _, name := range names {
		if n, ok := parsePresence(strings.TrimPrefix(name, presencePrefix)); ok {
			own[fmt.Sprint(n)]++
		}
	}
	for _, n := range all {
		if own[fmt.Sprint(n)] == 0 {
			others = append(others, n)
		}
	}
	return others
}

// clash returns why a network cannot live beside others, or nil.
func clash(scope network.Scope, networks []netip.Prefix, others []Neighbour) error {
	for _, o := range others {
		if o.Tag == scope.Tag() {
			return sameNetwork(scope)
		}
		for _, p := range networks {
			for _, q := range o.Networks {
				if p.Overlaps(q) {
					return fmt.Errorf("network %s overlaps %s of another selvaged on this node, which keeps the "+
						"network %s: give one of the networks other addresses", p, q, o.Name)
				}
			}
		}
	}
	return nil
}

func sameNetwork(scope network.Scope) error {
	return fmt.Errorf("another selvaged on this node keeps the network %s already: stop one of them, "+
		"or give this one another --etcd-prefix or --kube-annotation-prefix", scope)
}

func (p *presence) close() {
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
}
