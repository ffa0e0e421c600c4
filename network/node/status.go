package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/uplink"
)

// maxRepairs is the number of repairs that the status lists.
const maxRepairs = 20

// maxPodProblems is the number of problems with pods that the status lists.
const maxPodProblems = 20

// pendingFor is how long an entry must be out of sync before that is a problem: a pass removes most differences at
// once.
const pendingFor = time.Second

// history is the part of the status that the loop records over time.
type history struct {
	started      time.Time
	readySince   time.Time // when it last became ready
	troubled     bool      // whether there were problems at the last check
	pendingSince time.Time // since when entries have been out of sync after each pass; zero: in sync
	repairs      status.Repairs
	passes       status.Passes
	failures     map[string]int // by kind
	filterSince  time.Time      // since when our packet filter rules or those of others block the overlay's packets
}

// ask has the loop call f between two steps, and waits for the call. Other goroutines read the loop's state this way.
func (n *node) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case n.questions <- func() { f(); close(done) }:
	case <-ctx.Done():
		return fmt.Errorf("the daemon's loop does not answer: %w", context.Cause(ctx))
	}
	<-done // f returns soon
	return nil
}

// Status implements api.Source.
func (n *node) Status(ctx context.Context) (s status.Status, err error) {
	return s, n.ask(ctx, func() { s = n.status(time.Now()) })
}

// Peers implements api.Source.
func (n *node) Peers(ctx context.Context) (p []status.Peer, err error) {
	return p, n.ask(ctx, func() { p = n.peers() })
}

// notePass records the result of a pass for the status.
func (n *node) notePass(now time.Time, r network.Result) {
	if r.Set+r.Removed+len(r.Failures) > 0 {
		n.history.passes.Add(time.Since(now))
	}
	for _, f := range r.Failures {
		if n.history.failures == nil {
			n.history.failures = map[string]int{}
		}
		n.history.failures[f.Kind]++
	}
	if n.pending() == 0 {
		n.history.pendingSince = time.Time{}
	} else if n.history.pendingSince.IsZero() {
		n.history.pendingSince = now
	}
	for _, x := range r.Repairs {
		n.noteRepair(now, x)
	}
}

// pending returns the number of objects that are out of sync. Undesired objects count only once they may be removed:
// before all leases are known, a later lease may need them.
func (n *node) pending() (total int) {
	for _, c := range n.tables.Counts() {
		total += n.pendingOf(c)
	}
	return total
}

func (n *node) pendingOf(c network.Count) int {
	if n.rec.KeepUnwanted {
		return c.Pending
	}
	return c.Pending + c.Unwanted
}

// noteRepair counts and records a repair.
func (n *node) noteRepair(now time.Time, r network.Repair) {
	repairs := &n.history.repairs
	repairs.Add(r.Kind, r.Cause, r.Count)
	key := r.Key
	if r.Count > 1 {
		key = fmt.Sprintf("%s and %d more", key, r.Count-1)
	}
	repairs.Last = slices.Insert(repairs.Last, 0, status.Repair{At: now, Kind: r.Kind, Key: key, What: r.Cause,
		By: r.By})
	repairs.Last = repairs.Last[:min(len(repairs.Last), maxRepairs)]
}

// noteState records since when the node has been ready.
func (n *node) noteState(now time.Time) {
	if !n.publisher.ready {
		return
	}
	if len(n.filterProblems(now)) == 0 {
		n.history.filterSince = time.Time{}
	} else if n.history.filterSince.IsZero() {
		n.history.filterSince = now
	}
	troubled := slices.ContainsFunc(n.problems(now), degrades)
	if n.history.readySince.IsZero() || n.history.troubled && !troubled {
		n.history.readySince = now
	}
	n.history.troubled = troubled
}

// degrades reports whether a node with a problem is degraded.
func degrades(p status.Problem) bool { return !p.Warning }

func (n *node) status(now time.Time) status.Status {
	s := status.Status{
		Version: n.Version, Kernel: n.Kernel, Node: n.NodeName, Started: n.history.started,
		Config:     withoutSecrets(n.configJSON, hiddenSecret),
		SubnetFile: n.SubnetFile, Prefix: n.state.binding.Prefix, VNI: n.scope.VNI,
		State: status.Ready, Since: n.history.readySince, Problems: n.problems(now),
		Filter: n.filterStatus(), Repairs: n.history.repairs, Failures: maps.Clone(n.history.failures),
		Passes: n.history.passes, Entries: map[string]status.Count{},
		Lease: n.leaseStatus(), Peers: n.peerCounts(), Pods: n.podsStatus(),
		Enforcement: n.policyStatus(), PoliciesOff: n.PoliciesOff, FastPath: n.fastPathStatus(),
		Mesh: n.Mesh.Access(), Zone: n.advice().Zone,
	}
	s.SetStore(n.storeStatus())
	if n.kernel != nil {
		s.Overruns = n.kernel.Overruns()
	}
	s.Repairs.Counts, s.Repairs.Last = slices.Clone(s.Repairs.Counts), slices.Clone(s.Repairs.Last)
	switch {
	case !n.publisher.ready:
		s.State, s.Since = status.Starting, n.history.started
	default:
		for _, p := range s.Problems {
			if degrades(p) && (s.State != status.Degraded || p.Since.Before(s.Since)) {
				s.State, s.Since = status.Degraded, p.Since
			}
		}
	}
	s.Cut = status.CutsOf(s.Problems)
	for kind, c := range n.tables.Counts() {
		s.Entries[kind] = status.Count{
			Wanted: c.Wanted, Present: c.Present, Pending: n.pendingOf(c), Optional: c.Optional,
		}
	}
	if n.identity != nil {
		s.InstanceID = n.identity.InstanceID
	}
	if n.backend != nil {
		s.Leases, _ = n.view.Len()
		s.Probes = n.probes()
		s.Uplink, s.Backend, s.Quarantined = uplinkStatus(n.uplink), n.backendStatus(), n.quarantined()
	}
	return s
}

// quarantined returns the first few rejected leases.
func (n *node) quarantined() (first []status.Refusal) {
	const few = 3
	for key, why := range n.view.Quarantined {
		i, _ := slices.BinarySearchFunc(first, key, func(q status.Refusal, key string) int {
			return strings.Compare(q.Key, key)
		})
		if i < few {
			first = slices.Insert(first, i, status.Refusal{Key: key, Code: rejection(why),
				Why: status.Text(why.Error())})
			first = first[:min(len(first), few)]
		}
	}
	return first
}

// problems lists the current problems, in the order of their topics.
func (n *node) problems(now time.Time) []status.Problem {
	all := []status.Problem{}
	add := func(topic string, code status.Reason, since time.Time, text string) {
		all = append(all, status.Problem{Topic: topic, Code: code, Text: status.Text(text), Since: since})
	}
	for topic, t := range n.journal.open {
		add(topic, reasonOf(topic, t.err), t.since, t.text)
		all[len(all)-1].Warning = topic == topicKeyFile // it matters at the next start
	}
	for kind, f := range n.journal.failures {
		if !f.logged.IsZero() {
			all = append(all, status.Problem{
				Topic: kind, Code: entryReason(f.err), Kind: kind, Key: f.key, Text: status.Text(f.err.Error()),
				Since: f.since,
			})
		}
	}
	for _, f := range n.journal.conflicts {
		if now.Sub(f.last) < conflictLogged {
			all = append(all, status.Problem{
				Topic: "conflict", Code: status.Conflict, Kind: f.kind, Key: f.key, Since: f.since,
				Text: status.Text(fmt.Sprintf("another process keeps changing %s %s: want %s, found %s%s",
					f.kind, f.key, f.want, f.have, authored("; last changed by ", f.by))),
			})
		}
	}
	if since := n.history.pendingSince; !since.IsZero() && now.Sub(since) > pendingFor {
		add("pending", status.EntriesPending, since, fmt.Sprintf("%d entries are out of sync", n.pending()))
		if n.backend != nil {
			all[len(all)-1].Cuts = n.entryCuts()
		}
	}
	all = append(all, n.watchProblems(now)...)
	all = append(all, n.shadowProblems()...)
	all = append(all, n.overlapProblems()...)
	all = append(all, n.ownSide.problems[:min(len(n.ownSide.problems), maxPodProblems)]...)
	all = append(all, n.filterProblems(now)...)
	all = append(all, n.vteps.problems(now)...)
	all = append(all, n.enforced.problems.list(n.policyTroubles(), now)...)
	all = append(all, n.fastPathProblems(now)...)
	for _, p := range n.pathProblems() {
		all = append(all, p.status())
	}
	if code, text, since := n.holder.problem(now); text != "" {
		add("lease", code, cmp.Or(since, n.history.started), text)
		all[len(all)-1].Cuts = n.leaseCuts(all[len(all)-1].Since, now)
	}
	all = append(all, n.sharedIPProblems()...)
	if p := n.storeProblem(); p != nil {
		all = append(all, *p)
	}
	all = append(all, n.unreadProblems()...)
	slices.SortFunc(all, status.Problem.Compare)
	return all
}

func (n *node) leaseStatus() *status.Lease {
	if !n.holder.final {
		return nil
	}
	r := n.holder.record
	return &status.Lease{
		Key: r.Name, EtcdLease: r.LeaseID, Reservation: r.LeaseID == 0, Expires: n.holder.expires(),
		Subnets: valid(n.holder.subnets[:], netip.Prefix.IsValid),
	}
}

func uplinkStatus(c uplink.Choice) *status.Uplink {
	u := &status.Uplink{
		Name: c.Name, MTU: c.MTU, Why: status.Text(c.Why),
		Local: valid(c.Local[:], netip.Addr.IsValid), PublicIP: valid(c.PublicIP[:], netip.Addr.IsValid),
		OnLink: slices.Concat(c.OnLink[:]...),
	}
	for _, r := range slices.Concat(c.Rejected, c.Others) {
		u.Not = append(u.Not, status.Text(r.String()))
	}
	return u
}

func (n *node) backendStatus() *status.Backend {
	description := n.backend.Describe()
	b := &status.Backend{Type: n.config.Backend.Type, PodMTU: description.MTU, Devices: []status.Device{}}
	for _, x := range n.device.Links {
		have := n.tables.Links.Get(x.Key)
		d := deviceStatus(x.Key, x.Value, description.Tunnels)
		d.Present = have.Present && have.Have == x.Value
		if x.Value.Kind == network.KindWireGuard {
			d.UserSpace = n.userSpaceStatus(x.Key)
		}
		if drops, err := n.kernel.Drops(x.Key); err == nil && have.Present {
			d.Drops = (*status.Drops)(&drops)
		}
		b.Devices = append(b.Devices, d)
	}
	n.moveStatus(b, description)
	return b
}

// deviceStatus describes one of the node's devices, with the backend's description of it.
func deviceStatus(name string, l network.Link, tunnels []backend.Tunnel) status.Device {
	d := status.Device{Name: name, Kind: l.Kind, MTU: l.MTU}
	if l.MAC != (network.MAC{}) {
		d.MAC = l.MAC.String()
	}
	if v, ok := l.Settings.(network.VXLAN); ok {
		d.VNI = v.VNI
	}
	for _, t := range tunnels {
		if t.Device != name {
			continue
		}
		d.Protocol, d.Overhead, d.Port, d.Local = t.Protocol, t.Overhead, t.Port, t.Local
		for _, s := range t.Settings {
			d.Settings = append(d.Settings, status.Setting{Name: s.Name, Value: s.Value})
		}
	}
	return d
}

// valid returns the valid ones of values that are indexed by family.
func valid[T any](byFamily []T, is func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(byFamily), func(x T) bool { return !is(x) })
}
