package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Fragments counts the IP fragments that the node's kernel has made and those that it was sent, since the lab began. Pods
// have counters of their own: what is counted here is the underlay's, and what is forwarded.
//
// Where connections are tracked, received IPv6 fragments are put together before they are counted (net/ipv6/netfilter/
// nf_conntrack_reasm.c). But routers do not fragment IPv6, so whoever made them has counted them.
func (n *Node) Fragments() (uint64, error) {
	count, err := in(n.do, fragments)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", n.name, err)
	}
	return count, nil
}

// Fragments counts the fragments of all nodes, and of the router between them: see [Node.Fragments].
func (l *Lab) Fragments() (uint64, error) {
	sum, err := fragments()
	for _, n := range l.nodes {
		if err != nil {
			break
		}
		var count uint64
		count, err = n.Fragments()
		sum += count
	}
	return sum, err
}

// fragments counts in the calling thread's network namespace.
func fragments() (sum uint64, err error) {
	all, err := counters()
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"IpFragCreates", "IpReasmReqds", "Ip6FragCreates", "Ip6ReasmReqds"} {
		count, ok := all[name]
		if !ok {
			return 0, fmt.Errorf("/proc/net/snmp and snmp6 have no counter %s", name)
		}
		sum += uint64(count)
	}
	return sum, nil
}

// counters reads the counters of the calling thread's network namespace (RFC 1213 and its successors; proc_pid_net(5)), by
// group and name: UdpOutDatagrams, Ip6FragCreates.
func counters() (map[string]int64, error) {
	all := map[string]int64{}
	for _, file := range []string{"snmp", "snmp6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return nil, err
		}
		if err := parseCounters(all, string(text)); err != nil {
			return nil, fmt.Errorf("/proc/net/%s: %w", file, err)
		}
	}
	return all, nil
}

// parseCounters takes both forms. For IPv4 it is a line of names, then one of values, each with the group in front; for IPv6
// a line for each counter.
func parseCounters(all map[string]int64, text string) error {
	var names []string
	add := func(name, value string) error {
		v, err := strconv.ParseInt(value, 10, 64)
		all[name] = v
		return err
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		group, grouped := strings.CutSuffix(fields[0], ":")
		switch {
		case !grouped && len(fields) == 2:
			if err := add(fields[0], fields[1]); err != nil {
				return err
			}
		case grouped && names == nil:
			names = fields
		case grouped && len(fields) == len(names):
			for i := 1; i < len(fields); i++ {
				if err := add(group+names[i], fields[i]); err != nil {
					return err
				}
			}
			names = nil
		default:
			return fmt.Errorf("cannot read %q", line)
		}
	}
	return nil
}
