package reach

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

const (
	// Misses is after how many probes in a row without an answer a peer is unreachable.
	Misses = 4
	// Timeout is how long an answer may take; less with a shorter interval.
	Timeout = 1500 * time.Millisecond
	// Remembered is how many of a path's latest probes are counted: with the default interval, those of five minutes.
	Remembered = 32
	// Losses is how many times among the remembered probes answers have to be missing for a path to be lossy. A single
	// outage is one of them, however many probes are lost in a row.
	Losses = 3
	// together is the part of the interval within which a probe is sent early, with one that is due, so that all are
	// soon sent at once: at rest, waking the process costs more than a probe.
	together = 2
)

// State is what is known of a path to a peer.
type State int

// The states of a path.
const (
	Unknown     State = iota // not probed, or no result yet
	Reachable                // the latest probes were answered
	Unreachable              // the latest [Misses] probes or more were not answered
)

// Target is an address that a peer answers for.
type Target struct {
	Addr netip.Addr
	Hops int // hop limit of the probe; 0: the default. With 1, the peer answers that it is exceeded
}

// Path is how a peer is probed in one family.
type Path struct {
	Targets [2]Target // the second one is tried where the first one does not answer; invalid: there is none
	// An answer counts only from an address in Subnet or from PublicIP: others can answer that a hop limit is exceeded.
	Subnet   netip.Prefix
	PublicIP netip.Addr
}

// Peer is a node to probe. Its zero paths are not probed.
type Peer struct {
	Name  string // of its lease
	Paths [2]Path
}

// Probe is an echo request to send.
type Probe struct {
	Family subnet.Family
	Seq    uint16
	Target
}

// Result is the state of a path.
type Result struct {
	State State
	Since time.Time     // when the state began; of Unreachable, when the first unanswered probe was sent
	RTT   time.Duration // of the latest answer
	Error string        // why the latest probe was not answered, if that is known
	// Recent counts the latest probes, at most [Remembered], and Lost those of them without an answer.
	Recent, Lost int
	// Lossy: probes were lost [Losses] times among the latest ones, and since then [Remembered] in a row have not been
	// answered.
	Lossy      bool
	LossySince time.Time
}

// Totals counts the probes of one family.
type Totals struct{ Sent, Lost uint64 }

// key identifies a path.
type key struct {
	name   string
	family subnet.Family
}

// progress is the state of one path's probing.
type progress struct {
	Path
	Result
	lost   uint32    // the outcomes of the latest probes, the newest in the lowest bit; 1: no answer
	misses int       // in a row
	missed time.Time // when the first of them was sent
	target int       // index of the target that answers
	at     time.Time // when the next probe is sent, or the one in flight times out
	seq    uint16    // of the probe in flight
	sent   time.Time // when it was sent
	flying bool
}

// Schedule decides when which peer is probed. It belongs to one goroutine.
type Schedule struct {
	interval time.Duration
	paths    map[key]*progress
	flying   [2]map[uint16]key // probes in flight, by sequence number
	next     [2]uint16
	totals   [2]Totals
}

// NewSchedule returns a schedule in which each peer is probed once an interval.
func NewSchedule(interval time.Duration) *Schedule {
	return &Schedule{
		interval: interval, paths: map[key]*progress{},
		flying: [2]map[uint16]key{{}, {}}, next: [2]uint16{uint16(rand.Uint32()), uint16(rand.Uint32())},
	}
}

// Set says which peers are to be probed. A path that is new, or has changed, begins without a result.
func (s *Schedule) Set(peers []Peer, now time.Time) {
	keep := map[key]bool{}
	for _, p := range peers {
		for _, f := range subnet.Families() {
			k := key{p.Name, f}
			if p.Paths[f] == (Path{}) {
				continue
			}
			keep[k] = true
			if old := s.paths[k]; old == nil || old.Path != p.Paths[f] {
				s.drop(k)
				s.paths[k] = &progress{Path: p.Paths[f], at: now}
			}
		}
	}
	for k := range s.paths {
		if !keep[k] {
			s.drop(k)
		}
	}
}

func (s *Schedule) drop(k key) {
	if p := s.paths[k]; p != nil && p.flying {
		delete(s.flying[k.family], p.seq)
	}
	delete(s.paths, k)
}

// Next returns when [Schedule.Due] has something to do; the zero time: never.
func (s *Schedule) Next() (at time.Time) {
	for _, p := range s.paths {
		if at.IsZero() || p.at.Before(at) {
			at = p.at
		}
	}
	return at
}

// Due returns the probes to send now.
func (s *Schedule) Due(now time.Time) (probes []Probe) {
	for k, p := range s.paths {
		if p.flying && !now.Before(p.at) {
			s.miss(k, p, now, "")
		}
	}
	if now.Before(s.Next()) {
		return nil
	}
	soon := now.Add(s.interval / together)
	for k, p := range s.paths {
		due := !now.Before(p.at)
		early := !p.at.After(soon) && (p.misses == 0 || p.misses >= Misses) // not between a probe and its repetition
		if !p.flying && (due || early) {
			probes = append(probes, s.send(k, p, now))
		}
	}
	slices.SortFunc(probes, func(a, b Probe) int { return a.Addr.Compare(b.Addr) })
	return probes
}

func (s *Schedule) send(k key, p *progress, now time.Time) Probe {
	s.next[k.family]++
	s.totals[k.family].Sent++
	p.seq, p.sent, p.flying = s.next[k.family], now, true
	p.at = now.Add(min(Timeout, s.interval))
	s.flying[k.family][p.seq] = k
	return Probe{Family: k.family, Seq: p.seq, Target: p.Targets[p.target]}
}

// Answered takes in an answer. from is its source.
func (s *Schedule) Answered(f subnet.Family, seq uint16, from netip.Addr, now time.Time) {
	k, ok := s.flying[f][seq]
	if !ok {
		return
	}
	p := s.paths[k]
	if !p.Subnet.Contains(from) && from != p.PublicIP {
		return
	}
	delete(s.flying[f], seq)
	p.flying, p.misses = false, 0
	p.note(0, now)
	p.RTT, p.Error = now.Sub(p.sent), ""
	if p.State != Reachable {
		p.State, p.Since = Reachable, now
	}
	p.at = p.sent.Add(s.jitter())
}

// Failed takes in that a probe could not be sent, or was refused on its way.
func (s *Schedule) Failed(f subnet.Family, seq uint16, why string, now time.Time) {
	if k, ok := s.flying[f][seq]; ok {
		s.miss(k, s.paths[k], now, why)
	}
}

// miss takes in that a probe is not answered.
func (s *Schedule) miss(k key, p *progress, now time.Time, why string) {
	delete(s.flying[k.family], p.seq)
	s.totals[k.family].Lost++
	if p.misses == 0 {
		p.missed = p.sent
	}
	p.flying = false
	p.misses++
	p.note(1, now)
	p.Error = why
	if p.Targets[1].Addr.IsValid() {
		p.target = 1 - p.target
	}
	p.at = p.sent.Add(min(Timeout, s.interval)) // also after an error, which takes no time
	if p.misses >= Misses {
		if p.State != Unreachable {
			p.State, p.Since = Unreachable, p.missed
		}
		p.at = p.sent.Add(s.jitter())
	}
}

// note records the outcome of a probe; 1: no answer.
func (p *progress) note(lost uint32, now time.Time) {
	p.lost = p.lost<<1 | lost
	p.Recent, p.Lost = min(p.Recent+1, Remembered), bits.OnesCount32(p.lost)
	times := bits.OnesCount32(p.lost &^ (p.lost >> 1)) // losses whose preceding probe was answered
	switch {
	case !p.Lossy && times >= Losses:
		p.Lossy, p.LossySince = true, now
	case p.lost == 0:
		p.Lossy, p.LossySince = false, time.Time{}
	}
}

// jitter returns the interval, give or take a tenth: the probes of nodes that started together spread out.
func (s *Schedule) jitter() time.Duration {
	return s.interval + time.Duration((rand.Float64()-0.5)*0.2*float64(s.interval))
}

// Results returns the results of the probed paths in a family, by the name of the peer.
func (s *Schedule) Results(f subnet.Family) map[string]Result {
	all := map[string]Result{}
	for k, p := range s.paths {
		if k.family == f {
			all[k.name] = p.Result
		}
	}
	return all
}

// Totals returns the numbers of probes since the schedule was made, by subnet.Family.
func (s *Schedule) Totals() [2]Totals { return s.totals }

// AllUnreachable reports whether no probed peer can be reached in a family, and since when that is so. It is false
// while the result of any of them is not known. probed are the results of a family.
func AllUnreachable(probed []Result) (since time.Time, ok bool) {
	for _, r := range probed {
		if r.State != Unreachable {
			return time.Time{}, false
		}
		if r.Since.After(since) {
			since = r.Since
		}
	}
	return since, len(probed) > 0
}
