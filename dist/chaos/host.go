package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// host is a node of the lab with what it takes to break and to look at it from outside.
type host struct {
	*lab.Node
	nl     *reader // of the node's network namespace
	netns  *os.File
	pods   []*lab.Pod
	uplink uplink // as it was made

	plan   plan
	others []string // the dump of foreign things that is to stay
	golden []string // selvage's rules as they were when all was well
}

func newHost(n *lab.Node) (*host, error) {
	h := &host{Node: n}
	err := n.Do(func() (err error) {
		if h.nl, err = newReader(); err != nil {
			return err
		}
		h.netns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name(), err)
	}
	return h, nil
}

func (h *host) close() {
	h.nl.close()
	h.netns.Close()
}

// plan is what some leases ask of a node. It is kept from one look to the next: with thousands of leases it takes longer
// to put together than to compare.
type plan struct {
	leases    []subnet.Lease
	uplinkMTU int
	self      subnet.Endpoint // the node's own
	want      entries
	peers     peers
}

// renew puts the plan together unless it is for these very leases already.
func (p *plan) renew(leases []subnet.Lease, self string, uplinkMTU int) error {
	same := len(leases) == len(p.leases) && len(leases) > 0 && &leases[0] == &p.leases[0]
	if same && uplinkMTU == p.uplinkMTU {
		return nil
	}
	want, err := expected(leases, self, uplinkMTU)
	if err != nil {
		return err
	}
	*p = plan{leases: leases, uplinkMTU: uplinkMTU, want: want,
		peers: peers{make(map[netip.Prefix]bool, len(leases)), make(map[uint32]bool, len(leases))}}
	for _, l := range leases {
		if e := l.Endpoints[subnet.IPv4]; l.NodeName == self {
			p.self = e
		} else {
			p.peers.subnets[e.Subnet] = true
			p.peers.nexthops[nexthopID(e.Subnet.Addr())] = true
		}
	}
	return nil
}

// check says what on the node is not as the leases ask for; nil if nothing.
func (h *host) check(leases []subnet.Lease) ([]string, error) {
	u, err := h.readUplink()
	if err != nil {
		return nil, err
	}
	if err := h.plan.renew(leases, h.Name(), u.mtu); err != nil {
		return nil, err
	}
	have, err := h.nl.read(h.plan.peers)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name(), err)
	}
	problems := diff(h.plan.want, have)
	if has, says := u.addr(), h.plan.self.PublicIP; has.IsValid() && has != says {
		problems = append(problems, fmt.Sprintf("the lease says %s, the uplink has %s", says, has))
	}
	for i := range problems {
		problems[i] = h.Name() + ": " + problems[i]
	}
	return problems, nil
}

// checkAround says what is wrong with all that is not in the tables: rules, forwarding, the subnet file.
func (h *host) checkAround(ctx context.Context) ([]string, error) {
	our, _, err := h.rules(ctx)
	if err != nil {
		return nil, err
	}
	problems := compare(h.golden, our)
	for i, p := range problems {
		problems[i] = strings.Replace(p, "foreign", "rules", 1)
	}
	u, err := h.readUplink()
	if err != nil {
		return nil, err
	}
	for _, path := range []string{ipForward, forwardingOf(device), forwardingOf(u.name), noLinkLocal} {
		if value, err := h.ReadFile(path); err != nil || strings.TrimSpace(string(value)) != "1" {
			problems = append(problems, fmt.Sprintf("%s is %q, %v, want 1", path, value, err))
		}
	}
	if file, err := h.Subnet(); err != nil || file.MTU != u.mtu-overhead {
		problems = append(problems, fmt.Sprintf("the subnet file says MTU %d, %v, want %d", file.MTU, err, u.mtu-overhead))
	}
	for i := range problems {
		problems[i] = h.Name() + ": " + problems[i]
	}
	return problems, nil
}

// checkForeign says what of others' things has changed.
func (h *host) checkForeign(ctx context.Context) ([]string, error) {
	now, err := h.foreign(ctx)
	if err != nil {
		return nil, err
	}
	problems := compare(h.others, now)
	for i := range problems {
		problems[i] = h.Name() + ": " + problems[i]
	}
	return problems, nil
}

// write writes to a file as the node sees it, a sysctl for instance.
func (h *host) write(path, value string) error {
	return h.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
}

// drops is how many notifications the kernel could not give to the sockets of the node's namespace.
func (h *host) drops() (int, error) {
	b, err := h.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return 0, err
	}
	column, sum := -1, 0
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if column < 0 {
			if column = slices.Index(f, "Drops"); column < 0 {
				return 0, fmt.Errorf("/proc/net/netlink has no column Drops: %q", line)
			}
			continue
		}
		n, err := strconv.Atoi(f[column])
		if err != nil {
			return 0, fmt.Errorf("/proc/net/netlink: %w", err)
		}
		sum += n
	}
	return sum, nil
}
