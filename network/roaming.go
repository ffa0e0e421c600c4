package network

import (
	"net/netip"
	"time"
)

// Of WireGuard's protocol, section 6.1 of its paper.
const (
	// rejectAfterTime is how long a session lasts: a peer with an older handshake has none.
	rejectAfterTime = 180 * time.Second
	// silence is how long a peer that receives packets sends none, at most: it answers with an empty packet after 10 s
	// (Keepalive-Timeout), and 5 s later a handshake is tried (Rekey-Timeout).
	silence = 15 * time.Second
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
// A peer has moved if it was heard at about the time at which its endpoint changed. If it then does not answer, it
// has not. Each read of a device's peers is Mark, Endpoint for each peer, and Sweep.
type Roaming struct {
	last, next map[PeerKey]roamer
	totals     map[string]Traffic // by device
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
	moved bool
	// unanswered is since when packets have been sent to it and none has come; zero: it answers, or nothing is sent.
	unanswered   time.Time
	lastReceived time.Time // when the last packets came; zero: none since the first read
}

// Mark begins a read.
func (r *Roaming) Mark() { r.next = make(map[PeerKey]roamer, len(r.last)) }

// Sweep ends a read, and forgets the peers that it has not found.
func (r *Roaming) Sweep() { r.last, r.next = r.next, nil }

// Endpoint returns the endpoint of a peer as it is compared with the desired one: the desired one, if the peer has
// moved.
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
	switch {
	case heard.Endpoint == want || !heard.Endpoint.IsValid():
		x.moved = false
	case !known: // at a start
		x.moved = now.Sub(heard.Handshake) < rejectAfterTime
	case received:
		x.moved = true
	case heard.Endpoint != x.heard.Endpoint:
		x.moved = false
	case !x.unanswered.IsZero() && now.Sub(x.unanswered) > silence:
		x.moved = false
	}
	x.heard = heard
	r.next[k] = x
	if x.moved {
		return want
	}
	return heard.Endpoint
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
