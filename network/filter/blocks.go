package filter

import (
	"net/netip"
	"slices"
)

// maxDepth bounds the depth of jumps that are followed. The kernel rejects loops.
const maxDepth = 5

// blocks reports whether a rule drops all packets from or to one of the networks: it drops or rejects every packet, or
// every packet of a whole network, or calls a chain that does. A rule with any other condition, such as a pod's address
// or a connection's state, is a policy that stays in force.
//
// list returns the rules of a chain, none if it does not exist.
func blocks(rule string, networks []netip.Prefix, list func(chain string) []string) bool {
	return blocksAt(0, rule, networks, list)
}

func blocksAt(depth int, rule string, networks []netip.Prefix, list func(chain string) []string) bool {
	if depth > maxDepth || !takesAll(rule, networks) {
		return false
	}
	switch to := target(rule); to {
	case "DROP", "REJECT":
		return true
	case "", "ACCEPT", "RETURN", "LOG", "NFLOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "TRACE", "QUEUE",
		"NFQUEUE", ForwardChain:
		return false
	default:
		for _, r := range list(to) {
			switch {
			case blocksAt(depth+1, r, networks, list):
				return true
			case takesAll(r, networks) && slices.Contains([]string{"ACCEPT", "RETURN"}, target(r)):
				return false // no packet reaches the rules after it
			}
		}
		return false
	}
}

// takesAll reports whether a rule matches all packets from or to one of the networks.
func takesAll(rule string, networks []netip.Prefix) bool {
	words := splitWords(rule)
	for i := 0; i < len(words); i += 2 {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "-m":
			if value != "comment" {
				return false
			}
		case "--comment":
		case "-s", "-d":
			p, err := netip.ParsePrefix(value)
			if err != nil || !slices.ContainsFunc(networks, func(n netip.Prefix) bool {
				return p.Bits() <= n.Bits() && p.Contains(n.Addr())
			}) {
				return false
			}
		case "-j", "-g":
			return true // the target's options follow
		default:
			return false
		}
	}
	return false
}
