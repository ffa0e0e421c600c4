package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// host is a node of the lab with what it takes to break and to look at it from outside.
type host struct {
	*lab.Node
	families []subnet.Family // of the overlay
	nftables bool            // in the place of iptables
	backend  Backend
	store    subnet.StoreKind
	nl       *reader // of the node's network namespace
	netns    *os.File
	patience time.Duration // see Options
	pods     []*lab.Pod
	policed  policed
	uplink   uplink // as it was made

	plan   plan
	others []string // the dump of foreign things that is to stay
	golden []string // selvage's rules as they were when all was well
	own    ownSide  // as it was when all was well
	// policies are the rules of network policies as they were when all was well; nil: none are enforced.
	policies []string
	fast     bool            // the daemon uses the fast path
	passed   map[string]bool // devices that fast packets would pass by something on: see checkFast

	netfilter map[int]*nl.SocketHandle // a socket of nf_tables in the node's network namespace
	conntrack *netlink.Handle          // the same for connection tracking
	wireGuard *wgctrl.Client           // nil: the backend is another one
}

func newHost(n *lab.Node, o Options) (*host, error) {
	h := &host{Node: n, families: o.Families, nftables: o.NFTables, backend: o.Backend, store: o.Store,
		patience: o.Patience, fast: o.FastPath, passed: map[string]bool{}}
	err := n.Do(func() (err error) {
		if h.nl, err = newReader(); err != nil {
			return err
		}
		if h.conntrack, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		h.netfilter = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
		if o.Backend == WireGuard {
			if h.wireGuard, err = wgctrl.New(); err != nil {
				return err
			}
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
	h.conntrack.Close()
	h.netfilter[unix.NETLINK_NETFILTER].Close()
	h.netns.Close()
	if h.wireGuard != nil {
		h.wireGuard.Close()
	}
}

// plan is what some leases ask of a node. It is kept from one look to the next: with thousands of leases it takes longer
// to put together than to compare.
type plan struct {
	leases []subnet.Lease
	uplink uplink
	self   [2]subnet.Endpoint // the node's own, by family
	want   entries
	peers  peers
}

// renew puts the plan together unless it is for these very leases already.
func (p *plan) renew(leases []subnet.Lease, h *host, u uplink) error {
	same := len(leases) == len(p.leases) && len(leases) > 0 && &leases[0] == &p.leases[0]
	if same && u.name == p.uplink.name && u.mtu == p.uplink.mtu && slices.EqualFunc(u.addrs, p.uplink.addrs, netlink.Addr.Equal) {
		return nil
	}
	self, families := h.Name(), h.families
	want, err := expected(leases, self, h.backend, families, u)
	if err != nil {
		return err
	}
	if h.backend == WireGuard {
		want.addBackstops(families, h.store)
	}
	*p = plan{leases: leases, uplink: u, want: want,
		peers: peers{make(map[netip.Prefix]bool, len(leases)), make(map[uint32]bool, len(leases))}}
	for _, l := range leases {
		if l.NodeName == self {
			p.self = l.Endpoints
			continue
		}
		for _, f := range families {
			gateway := l.Endpoints[f].Subnet
			p.peers.subnets[gateway] = true
			if f == subnet.IPv4 {
				p.peers.nexthops[nexthopID(gateway.Addr())] = true
			}
		}
	}
	return nil
}

// problems are what is wrong, by family. What is of neither is among those of the first.
type problems [2][]string

func (p *problems) add(f subnet.Family, format string, args ...any) {
	p[f] = append(p[f], fmt.Sprintf(format, args...))
}

func (p problems) none() bool { return len(p[0])+len(p[1]) == 0 }

func (p problems) all() []string { return slices.Concat(p[:]...) }

// of says on which node they are.
func (p problems) of(h *host) problems {
	for f := range p {
		for i := range p[f] {
			p[f][i] = h.Name() + ": " + p[f][i]
		}
	}
	return p
}

// check says what on the node is not as the leases ask for; nil if nothing.
func (h *host) check(leases []subnet.Lease) ([]string, error) {
	p, err := h.checkTables(leases, h.families)
	if p.none() {
		return nil, err
	}
	return p.all(), err
}

// checkTables is check by family, of those that are given.
func (h *host) checkTables(leases []subnet.Lease, families []subnet.Family) (p problems, err error) {
	u, err := h.readUplink()
	if err != nil {
		return p, err
	}
	if err := h.plan.renew(leases, h, u); err != nil {
		return p, err
	}
	have, err := h.nl.read(h.plan.peers, families)
	if h.backend == WireGuard {
		h.readWireGuards(families, have)
	}
	if err != nil {
		return p, fmt.Errorf("%s: %w", h.Name(), err)
	}
	p = diff(h.plan.want, have, families)
	for _, f := range families {
		if has, says := u.addr(f), h.plan.self[f].PublicIP; has.IsValid() && has != says {
			p.add(f, "the lease says %s, the uplink has %s", says, has)
		}
	}
	return p.of(h), nil
}

// checkAround says what is wrong with all that is not in the tables: rules, forwarding, the subnet file.
func (h *host) checkAround(ctx context.Context) (p problems, err error) {
	our, err := h.rules(ctx)
	if err != nil {
		return p, err
	}
	return h.checkAroundWith(our)
}

// checkAroundWith is checkAround where the rules have been read.
func (h *host) checkAroundWith(our ownRules) (p problems, err error) {
	if h.backend.filtersVTEPs() {
		p = h.checkPeers(our.peers)
	}
	for _, difference := range compare("rules", h.golden, our.lines) {
		p.add(ruleFamily(difference), "%s", difference)
	}
	u, err := h.readUplink()
	if err != nil {
		return p, err
	}
	mtu := u.mtu
	for _, f := range h.families {
		mtu = min(mtu, u.mtu-h.backend.overhead(f))
		want := map[string]string{ipForward(f): "1", forwardingOf(f, u.name): "1"}
		if device := h.backend.device(f); h.backend.tunnels() {
			want[forwardingOf(f, device)], want[noLinkLocal(device)] = "1", "1"
			if f == subnet.IPv6 {
				want[disableIPv6(device)] = "0"
			}
		}
		for path, wanted := range want {
			if value, err := h.ReadFile(path); err != nil || strings.TrimSpace(string(value)) != wanted {
				p.add(f, "%s is %q, %v, want %s", path, value, err, wanted)
			}
		}
	}
	if file, err := h.Subnet(); err != nil || file.MTU != mtu {
		p.add(0, "the subnet file says MTU %d, %v, want %d", file.MTU, err, mtu)
	}
	return p.of(h), nil
}

// checkForeign says what of others' things has changed.
func (h *host) checkForeign(ctx context.Context) ([]string, error) {
	_, others, err := h.allRules(ctx)
	if err != nil {
		return nil, err
	}
	return h.checkForeignWith(others)
}

// checkForeignWith is checkForeign where others' rules have been read.
func (h *host) checkForeignWith(others []string) ([]string, error) {
	now, err := h.foreign(others)
	if err != nil {
		return nil, err
	}
	problems := compare("foreign", h.others, now)
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
