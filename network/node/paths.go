package node

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/paths"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach"
	"github.com/selvage-net/selvage/subnet"
)

// choosePause is the shortest time between two choices of the peers to watch: a choice walks all leases, which takes
// half a millisecond at 5,000.
const choosePause = time.Second

// pathFollower decides when the keeper of the paths gets another order.
type pathFollower struct {
	stale   bool // the leases have changed since the last order
	at      time.Time
	self    pathSelf // of the last order
	routing bool     // the kernel's routing may have changed since it was last checked
}

// pathSelf is what the paths depend on besides the leases.
type pathSelf struct {
	uplink      string
	local       [2]netip.Addr
	own         [2]netip.Prefix
	bridges     [2]string
	port        uint16
	tunnels     bool
	device, key string
}

// followPaths tells the keeper of the paths what to watch, and that the kernel's routing may have changed.
func (n *node) followPaths(wake *alarm) {
	n.followRouting(wake)
	if !n.programmed || !n.holder.final {
		return
	}
	f, self := &n.pathFollower, n.pathSelf()
	if !f.stale && self == f.self {
		return
	}
	if wake.now.Before(f.at) {
		wake.set(f.at)
		return
	}
	f.stale, f.at, f.self = false, wake.now.Add(choosePause), self
	n.paths.Set(paths.Order{
		Peers: n.choosePeers(), Uplink: self.uplink, Tunnels: self.tunnels, Port: self.port, Local: self.local,
		Own:     self.own,
		Bridges: self.bridges, Pods: n.examinedPods(),
	})
}

// followRouting has the kernel's routing checked if it may have changed.
func (n *node) followRouting(wake *alarm) {
	stale := n.kernel.RoutingStale()
	if stale {
		n.fast.flush()
	}
	if n.pathFollower.routingDue(stale, n.history.pendingSince, wake) {
		n.paths.RoutingChanged()
	}
}

// routingDue reports, once for each time that the kernel's routing may have changed, whether it is to be checked now.
// While a repair is under way, missing routes are no finding, and to examine them would delay it; what stays out of
// sync is examined all the same. pendingSince is since when entries have been out of sync; zero: they are in sync.
func (f *pathFollower) routingDue(stale bool, pendingSince time.Time, wake *alarm) (due bool) {
	f.routing = f.routing || stale
	if !pendingSince.IsZero() && wake.now.Sub(pendingSince) < pendingFor {
		wake.set(pendingSince.Add(pendingFor))
		return false
	}
	due, f.routing = f.routing, false
	return due
}

func (n *node) pathSelf() pathSelf {
	s := pathSelf{uplink: n.uplink.Name, local: n.uplink.Local, own: n.subnets, key: n.holder.record.Name}
	for _, t := range n.backend.Describe().Tunnels {
		s.tunnels, s.port, s.device = true, t.Port, s.device+" "+t.String()
	}
	for f, own := range n.subnets {
		if own.IsValid() {
			connected := network.RouteKey{Prefix: own, Metric: network.ConnectedMetric(own)}
			s.bridges[f] = n.tables.Routes.Get(connected).Have.Link
		}
	}
	return s
}

// examinedPods returns the pods to which the node itself routes packets.
func (n *node) examinedPods() (all []paths.Pod) {
	o := &n.ownSide
	for _, p := range o.pods {
		if !p.Managed || !o.node.Live(p) {
			continue
		}
		link := cmp.Or(p.Bridge, p.Port)
		for _, x := range p.Prefixes {
			a := x.Addr()
			leads := func(r network.Item[network.RouteKey, network.Route]) bool {
				return r.Value.Link == link && r.Key.Prefix.Contains(a)
			}
			if slices.ContainsFunc(o.state.Routes, leads) {
				all = append(all, paths.Pod{Name: a.String(), Addr: a, Link: link, Bridge: p.Bridge, Port: p.Port,
					MAC: p.MAC})
			}
		}
	}
	return all
}

// choosePeers returns the peers to watch.
func (n *node) choosePeers() (all []paths.Peer) {
	description := n.backend.Describe()
	for _, key := range reach.Choose(n.holder.record.Name, n.peerNames) {
		m, ok, _ := n.view.Get(key)
		if !ok {
			continue
		}
		p, want := paths.Peer{Key: key, Name: m.NodeName}, peerState(n.backend, &m.Lease)
		for _, f := range subnet.Families() {
			e := m.Endpoints[f]
			if path := description.Path(want, e.Subnet); e.Subnet.IsValid() && path.Device != "" {
				p.Paths[f] = paths.Path{Subnet: e.Subnet, PublicIP: e.PublicIP, Link: path.Device,
					Tunnel: path.Tunnel != nil}
				if path.Remote.IsValid() {
					p.Paths[f].PublicIP = path.Remote.Addr()
				}
				if p.Name == "" {
					p.Name = nodeName(m.Lease, f)
				}
			}
		}
		all = append(all, p)
	}
	return all
}

// peerNames yields the keys of the peers' leases.
func (n *node) peerNames(yield func(string) bool) {
	for m := range n.view.Peers {
		if !yield(m.Name) {
			return
		}
	}
}

// peerReach returns the reachability of a peer in one family.
func peerReach(s paths.Status, key string, f subnet.Family) status.Reach {
	r, probed := s.Results[f][key]
	switch {
	case s.Off != "":
		return status.Reach{State: status.NotProbed, Code: s.Off}
	case !probed:
		return status.Reach{State: status.NotProbed, Code: status.NotChosen}
	case r.State == reach.Reachable:
		return status.Reach{State: status.Reachable, Since: r.Since, RTT: r.RTT}
	case r.State == reach.Unreachable:
		return status.Reach{State: status.Unreachable, Since: r.Since, Error: status.Text(r.Error)}
	}
	return status.Reach{State: status.NotProbed, Code: status.NoAnswerYet}
}

// probes counts the probed peers of each family in use.
func (n *node) probes() (all []status.Probes) {
	s := n.paths.Status()
	for _, f := range subnet.Families() {
		if !n.subnets[f].IsValid() {
			continue
		}
		p := status.Probes{Family: f.String(), Off: s.Off, Sent: s.Totals[f].Sent, Lost: s.Totals[f].Lost}
		for key, r := range s.Results[f] {
			switch r.State {
			case reach.Reachable:
				p.Reachable++
				p.MaxRTT = max(p.MaxRTT, r.RTT)
			case reach.Unreachable:
				p.Unreachable++
			default:
				p.Waiting++
			}
			p.Peers = append(p.Peers, n.probedPeer(key, f, r))
		}
		slices.SortFunc(p.Peers, func(a, b status.ProbedPeer) int { return strings.Compare(a.Key, b.Key) })
		all = append(all, p)
	}
	return all
}

// probedPeer returns what the probes of a peer have found in one family.
func (n *node) probedPeer(key string, f subnet.Family, r reach.Result) status.ProbedPeer {
	p := status.ProbedPeer{
		Key: key, State: status.NotProbed, Since: r.Since, RTT: r.RTT, Recent: r.Recent, Lost: r.Lost,
		Lossy: isLossy(r),
	}
	switch r.State {
	case reach.Reachable:
		p.State = status.Reachable
	case reach.Unreachable:
		p.State = status.Unreachable
	case reach.Unknown:
	}
	m, ok, _ := n.view.Get(key)
	if !ok { // its lease has just gone
		return p
	}
	switch to := n.backend.Describe().Path(peerState(n.backend, &m.Lease), m.Endpoints[f].Subnet); {
	case to.Direct():
		p.Path = status.PathDirect
	case to.Tunnel != nil:
		p.Path = strings.ToLower(to.Tunnel.Protocol)
	}
	if n.usesFastPath() && n.fast.why.code == "" {
		p.FastPath = status.FastPathNotInUse
		if c := n.tables.FastPeers.Get(m.Endpoints[f].Subnet); c.Present && c.Wanted && c.Have == c.Want {
			p.FastPath = status.FastPathInUse
		}
	}
	return p
}

// Topics of problems with the paths.
const (
	topicPeers   = "peers"
	topicRouting = "routing"
	topicLoss    = "loss"
)

// pathProblem is a problem with the paths to other nodes.
type pathProblem struct {
	topic   string
	code    status.Reason
	family  subnet.Family
	text    string
	same    string // is compared in place of the text, whose figures change all the time; empty: the text is compared
	since   time.Time
	warning bool
	cuts    bool // the family's traffic
}

// pathProblems lists the problems with the paths to other nodes.
func (n *node) pathProblems() (all []pathProblem) {
	if n.paths == nil || n.backend == nil {
		return nil
	}
	s := n.paths.Status()
	for _, f := range subnet.Families() {
		if p, found := n.unreachableProblem(s, f); found {
			all = append(all, p)
		}
		if p, found := n.lossProblem(s, f); found {
			all = append(all, p)
		}
	}
	if s.Unread != nil {
		all = append(all, pathProblem{topic: topicRouting, code: status.RoutingUnread, since: s.Since, warning: true,
			text: fmt.Sprintf("the kernel's routing to other nodes cannot be checked, retrying: %v", s.Unread)})
	}
	var pods podCuts
	if len(s.Faults) > 0 {
		pods = n.podCuts()
	}
	for _, x := range s.Faults {
		if x.Main {
			continue // see shadowProblems
		}
		all = append(all, pathProblem{
			topic: topicRouting, code: x.Code, family: x.Family, text: x.Text, since: x.Since,
			cuts: x.Sure && (x.All || x.Own && pods.all[x.Family]),
			// Packets that take another way may arrive all the same.
			warning: x.Code == status.UnderlayRoute && !x.Sure && anyReachable(s.Results[x.Family]),
		})
	}
	return all
}

// status returns the problem as the status has it.
func (p pathProblem) status() status.Problem {
	x := status.Problem{Topic: p.topic, Code: p.code, Text: status.Text(p.text), Since: p.since, Warning: p.warning}
	if p.cuts {
		x.Cuts = familyNames(only(p.family))
	}
	return x
}

func anyReachable(results map[string]reach.Result) bool {
	for _, r := range results {
		if r.State == reach.Reachable {
			return true
		}
	}
	return false
}

// unreachableProblem returns the problem that some or all of the probed peers do not answer in a family.
func (n *node) unreachableProblem(s paths.Status, f subnet.Family) (p pathProblem, found bool) {
	p = pathProblem{topic: topicPeers, code: status.PeerUnreachable, family: f, warning: true}
	var names []string
	for key, r := range s.Results[f] {
		if r.State != reach.Unreachable {
			continue
		}
		name := n.peerName(key, f)
		if r.Error != "" {
			name += ": " + r.Error
		}
		names = append(names, name)
		if p.since.IsZero() || r.Since.Before(p.since) {
			p.since = r.Since
		}
	}
	if len(names) == 0 {
		return p, false
	}
	slices.Sort(names)
	text := fmt.Sprintf("%d of %d probed nodes", len(names), len(s.Results[f]))
	if since, all := reach.AllUnreachable(slices.Collect(maps.Values(s.Results[f]))); all {
		p.code, p.warning, p.since, p.cuts = status.AllUnreachable, false, since, true
		text = "none of the probed nodes answers"
	} else if len(names) == 1 {
		text += " does not answer"
	} else {
		text += " do not answer"
	}
	p.text = fmt.Sprintf("%s over %s: %s; selvaged doctor finds out why", text, f, strings.Join(names, ", "))
	return p, true
}

// peerName names the node with a lease, for people.
func (n *node) peerName(key string, f subnet.Family) string {
	m, ok, _ := n.view.Get(key)
	if !ok {
		return key
	}
	public := m.Endpoints[f].PublicIP.String()
	if name := nodeName(m.Lease, f); name != public {
		return fmt.Sprintf("%s (%s)", name, public)
	}
	return public
}
