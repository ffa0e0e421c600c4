package network

import (
	"net/netip"
	"time"
)

// Of WireGuard's protocol, section 6.1 of its paper.
const (
	// rejectAfterTime is how long a session lasts: a peer with an older handshake has none.
	rejectAfterTime = 180 * time.Second
	// A peer that receives packets answers with an empty one after keepaliveTimeout, and who is not answered tries a
	// handshake rekeyTimeout later.
	keepaliveTimeout, rekeyTimeout = 10 * time.Second, 5 * time.Second
	// silence is how long a peer that receives packets sends none, at most.
	silence = keepaliveTimeout + rekeyTimeout
)

// Heard is what a WireGuard device knows of the packets of a peer.
type Heard struct {
	Endpoint       netip.AddrPort
	Handshake      time.Time // of the last one; zero: there was none
	Received, Sent uint64    // bytes
}

// Roaming tells peers that have moved from endpoints that another process has set. A WireGuard device sends to where
// the last authentic packet of a peer came from: a peer behind NAT, or with several addresses, is not at the endpoint
// that its lease names, and is reached all the same. To set that endpoint again would cut it off.
//
// What is received once an endpoint has changed has come from there, else the device would send elsewhere again. A peer
// that was not heard since the last read has not moved. One that was heard may have sent before or after the change, so
// it has to be asked for an answer: Doubted returns those, and Asked notes it. Without an answer it has not moved. A
// peer that has moved is asked again if it does not answer later, since what was received may also have come between
// two changes by another process. Each read of a device's peers is Mark, Endpoint for each peer, and Sweep.
type Roaming struct {
	last, next map[PeerKey]roamer
	totals     map[string]Traffic // by device
	doubts     int                // of last: how many are doubted
}

// Traffic counts the bytes that a device has exchanged with its peers.
type Traffic struct{ Received, Sent uint64 }

// Total returns what was exchanged since the first read, also with peers that are gone.
func (r *Roaming) Total(link string) Traffic { return r.totals[link] }

// count adds what a peer has exchanged since the last read. A peer that was set again counts from zero. What it had
// exchanged at the first read of all is not counted.
func (r *Roaming) count(link string, last, now Heard) {
	if r.last == nil {
		return
	}
	if r.totals == nil {
		r.totals = map[string]Traffic{}
	}
	since := func(last, now uint64) uint64 {
		if now < last {
			return now
		}
		return now - last
	}
	t := r.totals[link]
	t.Received += since(last.Received, now.Received)
	t.Sent += since(last.Sent, now.Sent)
	r.totals[link] = t
}

// roamer is what is remembered of a peer.
type roamer struct {
	heard Heard
	want  netip.AddrPort // the desired endpoint
	place place
	asked time.Time // first; of one that is doubted
	// unanswered is since when packets have been sent to it and none has come; zero: it answers, or nothing is sent.
	unanswered   time.Time
	lastReceived time.Time // when the last packets came; zero: none since the first read
}

// place is where a peer is.
type place int

const (
	atLease   place = iota // where its lease says, whatever the device has
	doubted                // perhaps where the device sends to
	elsewhere              // where the device sends to, and not where its lease says
)

// answerTime is how long a peer may take to answer, as for probes.
const answerTime = 1500 * time.Millisecond

// Mark begins a read.
func (r *Roaming) Mark() { r.next = make(map[PeerKey]roamer, len(r.last)) }

// Sweep ends a read, and forgets the peers that it has not found.
func (r *Roaming) Sweep() {
	r.last, r.next, r.doubts = r.next, nil, 0
	for _, x := range r.last {
		if x.place == doubted {
			r.doubts++
		}
	}
}

// Doubted returns the peers that have to be asked for an answer, by their present endpoints, to find out whether they
// have moved.
func (r *Roaming) Doubted() (peers []PeerKey) {
	if r.doubts == 0 {
		return nil
	}
	for k, x := range r.last {
		if x.place == doubted {
			peers = append(peers, k)
		}
	}
	return peers
}

// Asked notes that a peer was asked for an answer.
func (r *Roaming) Asked(k PeerKey, now time.Time) {
	if x, ok := r.last[k]; ok && x.asked.IsZero() {
		x.asked = now
		r.last[k] = x
	}
}

// Endpoint returns the endpoint of a peer as it is compared with the desired one: the desired one, if the peer has
// moved, or may have.
func (r *Roaming) Endpoint(k PeerKey, want netip.AddrPort, heard Heard, now time.Time) netip.AddrPort {
	x, known := r.last[k]
	r.count(k.Link, x.heard, heard)
	received, sent := heard.Received > x.heard.Received, heard.Sent > x.heard.Sent
	switch {
	case received:
		x.unanswered = time.Time{}
		if known {
			x.lastReceived = now
		}
	case sent && known && x.unanswered.IsZero():
		x.unanswered = now
	}
	before := x.place
	x.place = x.findPlace(known, received, want, heard, now)
	if x.place != before || heard.Endpoint != x.heard.Endpoint {
		x.asked = time.Time{}
	}
	x.heard, x.want = heard, want
	r.next[k] = x
	if x.place == atLease {
		return heard.Endpoint
	}
	return want
}

// findPlace returns where a peer is. received says that packets of it have come since the last read.
func (x *roamer) findPlace(known, received bool, want netip.AddrPort, heard Heard, now time.Time) place {
	if heard.Endpoint == want || !heard.Endpoint.IsValid() {
		return atLease
	}
	if !known { // at a start
		if now.Sub(heard.Handshake) < rejectAfterTime {
			return doubted
		}
		return atLease
	}
	switch {
	case heard.Endpoint != x.heard.Endpoint, x.place == atLease && want == x.want:
		if received {
			return doubted
		}
		return atLease
	case x.place == doubted && received:
		return elsewhere
	case x.place == doubted && !x.asked.IsZero():
		if now.Sub(x.asked) > answerTime {
			return atLease
		}
	case !x.unanswered.IsZero() && now.Sub(x.unanswered) > silence: // it cannot be asked
		return atLease
	case x.place == elsewhere && (want != x.want || !x.unanswered.IsZero() && now.Sub(x.unanswered) > rekeyTimeout):
		return doubted
	}
	return x.place
}

// Session is what is known of the packets that are exchanged with a WireGuard peer.
type Session struct {
	Heard
	// UnansweredSince is since when packets are sent to it and none is received; zero: it answers, or none is sent.
	UnansweredSince time.Time
	LastReceived    time.Time // to the precision of the reads; zero: no packets since the first one
}

// Session returns what the last read says of a peer; ok is false if it did not find the peer.
func (r *Roaming) Session(k PeerKey) (s Session, ok bool) {
	x, ok := r.last[k]
	return Session{Heard: x.heard, UnansweredSince: x.unanswered, LastReceived: x.lastReceived}, ok
}
