package node

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network/reach/echo"
	"github.com/selvage-net/selvage/subnet"
)

// topicTrials is of problems to try by which ways peers are reached.
const topicTrials = "reachability by the new backend"

const (
	// trialInterval is how often a way is tried until it works, and how long an answer may take.
	trialInterval = time.Second
	// At most trialBurst ways are tried every trialPause: each may begin a handshake.
	trialBurst, trialPause = 64, 100 * time.Millisecond
	// trialsNeeded is how many requests in a row have to be answered. The first one may be answered while a
	// handshake is still on its way that the peer began at the same time, and that replaces the session.
	trialsNeeded = 2
)

// trial is what is known of a way.
type trial struct {
	at      time.Time // of the last request
	seq     uint16    // of the last request
	open    bool      // it has not been answered
	sent    int
	answers int // in a row
	back    int // of them, those that came by the way's own device, in a row
}

// schedule decides when which way is tried, and takes in the answers.
type schedule struct {
	ways  []backend.Way // that are to be tried
	next  int           // index of the next one in ways
	known map[backend.Way]*trial
	asked map[uint16]backend.Way
	seq   uint16
	// mutual: a way works once answers have come by it, too, so that the peer sends by it.
	mutual bool
}

// request is an echo request on a way.
type request struct {
	way  backend.Way
	to   netip.Addr
	hops uint8
	seq  uint16
}

// set says which ways are to be tried. What is known of others is forgotten.
func (s *schedule) set(ways []backend.Way) {
	known := make(map[backend.Way]*trial, len(ways))
	for _, w := range ways {
		if known[w] = s.known[w]; known[w] == nil {
			known[w] = &trial{}
		}
	}
	s.ways, s.known, s.next = ways, known, s.next%max(1, len(ways))
	if s.asked == nil {
		s.asked = map[uint16]backend.Way{}
	}
}

// due returns the requests to send now, and when to call it again; the zero time: not before set is called.
func (s *schedule) due(now time.Time) (requests []request, again time.Time) {
	for range s.ways {
		if len(requests) == trialBurst {
			return requests, now.Add(trialPause)
		}
		w := s.ways[s.next]
		t := s.known[w]
		if s.works(w) {
			s.next = (s.next + 1) % len(s.ways)
			continue
		}
		if at := t.at.Add(trialInterval); now.Before(at) {
			return requests, at // the others were tried later
		}
		s.next = (s.next + 1) % len(s.ways)
		if t.open {
			t.answers, t.back = 0, 0
			delete(s.asked, t.seq)
		}
		s.seq++
		to, hops := target(w.Key.Prefix, t.sent)
		t.at, t.seq, t.open, t.sent = now, s.seq, true, t.sent+1
		s.asked[s.seq] = w
		requests = append(requests, request{w, to, hops, s.seq})
	}
	if len(requests) > 0 {
		again = now.Add(trialInterval)
	}
	return requests, again
}

// target returns where a request is sent to, of those that are sent on one way: by turns the peer's first address, and
// another one with a hop limit at which it answers that this is exceeded, as it does where a firewall drops echo
// requests. Two of either follow each other.
func target(p netip.Prefix, sent int) (to netip.Addr, hops uint8) {
	if sent/trialsNeeded%2 == 0 {
		return p.Addr(), 64
	}
	return subnet.LastAddr(p).Prev(), 1
}

// answered takes in an answer. link is the index of the interface that it came by, and index returns that of a device.
func (s *schedule) answered(a answer, index func(string) int) {
	w, asked := s.asked[a.seq]
	if !asked {
		return
	}
	delete(s.asked, a.seq)
	t := s.known[w]
	if t == nil || !t.open || t.seq != a.seq {
		return
	}
	t.open, t.answers = false, t.answers+1
	if t.back++; a.link == 0 || a.link != index(w.Key.Link) {
		t.back = 0
	}
}

// arrives reports whether packets arrive by a way.
func (s *schedule) arrives(w backend.Way) bool {
	t := s.known[w]
	return t != nil && t.answers >= trialsNeeded
}

// works reports whether a way need not be tried any more.
func (s *schedule) works(w backend.Way) bool {
	return s.arrives(w) && (!s.mutual || s.known[w].back >= trialsNeeded)
}

// answer is an answer to the request with a sequence number.
type answer struct {
	seq  uint16
	link int // index of the interface that it came by
}

// trials tries by which ways peers are reached. But for what Receive reports, it belongs to the loop's goroutine.
type trials struct {
	wake     func() // wakes the loop; does not block
	schedule schedule

	sender    *echo.Sender // nil: not open
	sockets   [2]*echo.Socket
	receiving sync.WaitGroup
	openAt    time.Time // when to open them again after a failure

	mu      sync.Mutex
	answers []answer
}

// step takes in the answers, and sends the requests that are due. index returns that of a device, and the requests'
// source is the first address of own.
func (t *trials) step(wake *alarm, index func(string) int, own [2]netip.Prefix) error {
	t.mu.Lock()
	answers := t.answers
	t.answers = nil
	t.mu.Unlock()
	for _, a := range answers {
		t.schedule.answered(a, index)
	}
	if len(t.schedule.ways) == 0 {
		return nil
	}
	if wake.set(t.openAt); wake.now.Before(t.openAt) {
		return nil
	}
	if err := t.open(own); err != nil {
		t.closeSockets()
		t.openAt = wake.now.Add(waitAfterFailure)
		wake.set(t.openAt)
		return err
	}
	requests, again := t.schedule.due(wake.now)
	wake.set(again)
	for _, r := range requests {
		f := subnet.FamilyOf(r.to)
		// One that is refused is not answered, and another one follows.
		_ = t.sender.Send(t.sockets[f], index(r.way.Key.Link), own[f].Addr(), r.to, r.hops, r.seq)
	}
	return nil
}

// open opens what is not open, for the families that the node has a subnet of.
func (t *trials) open(own [2]netip.Prefix) (err error) {
	if t.sender == nil {
		if t.sender, err = echo.OpenSender(); err != nil {
			return err
		}
	}
	for _, f := range subnet.Families() {
		if !own[f].IsValid() || t.sockets[f] != nil {
			continue
		}
		s, err := echo.Open(context.Background(), f)
		if err != nil {
			return err
		}
		t.sockets[f] = s
		t.receiving.Go(func() { s.Receive(func(seq uint16, _ netip.Addr, link int) { t.received(seq, link) }) })
	}
	return nil
}

func (t *trials) received(seq uint16, link int) {
	t.mu.Lock()
	t.answers = append(t.answers, answer{seq, link})
	t.mu.Unlock()
	t.wake()
}

// forget forgets what is known of all ways.
func (t *trials) forget() { t.schedule = schedule{} }

// close ends the trials.
func (t *trials) close() {
	t.forget()
	t.closeSockets()
}

func (t *trials) closeSockets() {
	if t.sender != nil {
		t.sender.Close()
		t.sender = nil
	}
	for f, s := range t.sockets {
		if s != nil {
			s.Close()
			t.sockets[f] = nil
		}
	}
	t.receiving.Wait()
}
