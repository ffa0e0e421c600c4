package mesh

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// Finding is something odd about a node.
type Finding struct {
	Code    status.Reason `json:"code"`
	Rank    Rank          `json:"-"`
	Warning bool          `json:"warning,omitempty"` // the node works all the same
	Text    status.Text   `json:"text"`
}

// Rank says how bad a finding is: the smallest is the worst.
type Rank int

// The ranks, the worst first.
const (
	RankMissing   Rank = iota // it has not answered
	RankConfig                // it refuses the network config
	RankStuck                 // its daemon's loop does not answer
	RankCut                   // its traffic is cut
	RankRejected              // its lease is rejected or withdrawn
	RankDegraded              // a problem makes it degraded
	RankUnreached             // other nodes' probes do not reach it
	RankStarting              // it is not ready yet
	RankOther                 // it differs from most nodes
	RankWarning               // a warning
	RankFine                  // nothing is odd
)

// Codes of findings that are no problem's.
const (
	LoopStuck          status.Reason = "loop-stuck"
	TrafficCut         status.Reason = "traffic-cut"
	UnreachedByOthers  status.Reason = "unreached"
	NotReady           status.Reason = "starting"
	OtherConfig        status.Reason = "other-config"
	OtherVersion       status.Reason = "other-version"
	OtherBackend       status.Reason = "other-backend"
	OtherLease         status.Reason = "other-lease"
	NotAllEncrypted    status.Reason = "not-all-encrypted"
	FastPathOff        status.Reason = "fast-path-off"
	RepairedLately     status.Reason = "repaired-lately"
	CertificateExpires status.Reason = "certificate-expires"
)

const (
	// stuckAfter is how old a node's state may be: it is renewed every two seconds, and a pass takes a second or two.
	stuckAfter = 15 * time.Second
	// certificateSoon is how long before the end of a certificate it is named.
	certificateSoon = 7 * 24 * time.Hour
)

// usual is what most nodes have.
type usual struct {
	version, config, backend string
	fastPath                 bool
}

// usual returns what most of the nodes that have answered have.
func (c *Cluster) usual() (u usual) {
	backends, fast, answered := map[string]int{}, 0, 0
	for _, n := range c.Nodes {
		if n.Summary == nil {
			continue
		}
		answered++
		backends[n.Summary.Backend]++
		if f := n.Summary.FastPath; f != nil && f.InUse {
			fast++
		}
	}
	first := func(all []Tally) string {
		if len(all) == 0 {
			return ""
		}
		return all[0].Value
	}
	return usual{first(c.Versions), first(c.Configs), first(tallies(backends)), 2*fast > answered}
}

// Worst returns the rank of a node's worst finding.
func (n *Node) Worst() Rank {
	if len(n.Findings) == 0 {
		return RankFine
	}
	return n.Findings[0].Rank
}

// list collects findings, the worst first.
type list []Finding

func (l *list) add(rank Rank, code status.Reason, format string, args ...any) {
	f := Finding{Code: code, Rank: rank, Warning: rank >= RankOther, Text: status.Text(fmt.Sprintf(format, args...))}
	i := len(*l)
	for i > 0 && (*l)[i-1].Rank > rank {
		i--
	}
	*l = append((*l)[:i], append(list{f}, (*l)[i:]...)...)
}

// findings returns what is odd about a node. names are the nodes' by key.
func findings(n *Node, t Target, a Answer, u usual, names map[string]string, now time.Time) []Finding {
	var l list
	if len(n.UnreachedBy) > 0 {
		l.add(RankUnreached, UnreachedByOthers, "does not answer the probes of %s", few(n.UnreachedBy))
	}
	switch s := n.Summary; {
	case s != nil:
		l.summary(s, t, u, names)
	default:
		l.add(RankMissing, a.Code, "%s", missingText(a))
	}
	switch t.Reject {
	case "":
	case status.LeaseWithdrawn:
		l.add(RankRejected, t.Reject, "its lease was withdrawn")
	default:
		l.add(RankRejected, t.Reject, "this node rejects its lease: %s", t.Reject)
	}
	if ends := n.CertificateEnds; !ends.IsZero() && ends.Sub(now) < certificateSoon {
		l.add(RankWarning, CertificateExpires, "its certificate expires at %s",
			ends.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return l
}

// missingText says why a node has not answered, and what to do.
func missingText(a Answer) string {
	switch a.Code {
	case NotListening:
		return fmt.Sprintf("%s: its daemon does not run, or does not serve --mesh-addr at this port", a.Text)
	case NoAnswer:
		return fmt.Sprintf("no answer from %s: the node is down, or a firewall drops the packets", a.Text)
	case NoAddress:
		return "it has no public IP yet"
	case BadCertificate:
		return fmt.Sprintf("its certificate is not accepted: %s", a.Text)
	case CertificateRefused:
		return fmt.Sprintf("it refuses this node's certificate: %s", a.Text)
	case NoKey:
		return "its lease names no key of a server for tokens: its daemon is older, or runs without --mesh-token-file"
	case TokenRefused:
		return fmt.Sprintf("it refuses the token that is shown, its log says why: %s", a.Text)
	case TokenNotReviewed:
		return fmt.Sprintf("it gets no review of the token by the API server, its log says why: %s", a.Text)
	case NotReadyYet:
		return fmt.Sprintf("its daemon has just started: %s", a.Text)
	}
	return fmt.Sprint(a.Text)
}

func (l *list) summary(s *Summary, t Target, u usual, names map[string]string) {
	if s.Age > stuckAfter {
		l.add(RankStuck, LoopStuck, "its daemon's loop has not answered for %s; the rest is older",
			s.Age.Round(time.Second))
	}
	if len(s.Cut) > 0 {
		l.add(RankCut, TrafficCut, "%s traffic is cut", strings.Join(s.Cut, " and "))
	}
	for _, p := range s.Problems {
		rank := RankDegraded
		switch {
		case p.Code == status.ConfigRejected:
			l.add(RankConfig, p.Code, "has refused the network config for %s", lasting(s.Now, p.Since))
			continue
		case p.Code == status.PeerUnreachable && s.unreachable() > 0:
			continue // they are named below
		case p.Warning:
			rank = RankWarning
		}
		what := p.Topic + ": " + string(p.Code)
		if p.Topic == string(p.Code) {
			what = p.Topic
		}
		l.add(rank, p.Code, "%s for %s", what, lasting(s.Now, p.Since))
	}
	if s.More > 0 {
		l.add(RankDegraded, "", "and %d more problems", s.More)
	}
	if s.State != status.Ready && s.State != status.Degraded {
		l.add(RankStarting, NotReady, "not ready for %s", lasting(s.Now, s.Started))
	}
	if s.Lease != t.Key {
		l.add(RankOther, OtherLease, "answers for the lease %q", s.Lease)
	}
	l.differs(s, u)
	for _, p := range s.Probes {
		if keys := p.Unreachable(); len(keys) > 0 {
			l.add(RankWarning, status.PeerUnreachable, "cannot reach %s over %s", few(named(keys, names)), p.Family)
		}
	}
	if n := s.Repairs.Lately; n > 0 {
		l.add(RankWarning, RepairedLately, "%d repairs lately", n)
	}
}

// differs adds how a node differs from most.
func (l *list) differs(s *Summary, u usual) {
	if s.Config != "" && s.Config != u.config {
		l.add(RankOther, OtherConfig, "config %s, not %s", s.Config, u.config)
	}
	if s.Backend != "" && s.Backend != u.backend {
		l.add(RankOther, OtherBackend, "backend %s, not %s", s.Backend, u.backend)
	}
	if n := s.unencrypted(); s.Encrypted != nil && n > 0 {
		l.add(RankOther, NotAllEncrypted, "sends to %d of %d peers without encryption", n, s.accepted())
	}
	if s.Selvaged != u.version {
		l.add(RankOther, OtherVersion, "version %s, not %s", s.Selvaged, u.version)
	}
	if f := s.FastPath; u.fastPath && (f == nil || !f.InUse) {
		text := "off"
		if f != nil && f.Code != "" {
			text = string(f.Code)
		}
		l.add(RankOther, FastPathOff, "no fast path: %s", text)
	}
}

// named replaces keys by names, and sorts them.
func named(keys []string, names map[string]string) (all []string) {
	for _, key := range keys {
		if name, known := names[key]; known {
			key = name
		}
		all = append(all, key)
	}
	slices.SortFunc(all, compareNames)
	return all
}

// few joins a list, and counts what is beyond the first few.
func few(all []string) string {
	const most = 4
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// lasting formats how long something has lasted, by the node's own clock.
func lasting(now, since time.Time) string {
	const day, hour, minute = 24 * 60 * 60, 60 * 60, 60
	switch seconds := max(0, int(now.Sub(since).Seconds())); {
	case since.IsZero():
		return "an unknown time"
	case seconds >= 2*day:
		return fmt.Sprintf("%d d", seconds/day)
	case seconds >= hour:
		return fmt.Sprintf("%d h", seconds/hour)
	case seconds >= minute:
		return fmt.Sprintf("%d min", seconds/minute)
	default:
		return fmt.Sprintf("%d s", seconds)
	}
}
