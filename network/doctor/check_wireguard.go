package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// Of WireGuard's protocol, section 6.1 of its paper.
const (
	// sessionLife is how long a session lasts (Reject-After-Time).
	sessionLife = 180 * time.Second
	// answerTime is within which a peer that receives packets sends one (Keepalive-Timeout), and within which another
	// handshake is tried (Rekey-Timeout).
	answerTime = 15 * time.Second
	// initiation is the size of a handshake initiation in bytes. One that arrives counts as received, whatever follows.
	initiation = 148
	// clockSlack is how far in the future a handshake may be: the daemon and doctor read the clock at different times.
	clockSlack = 2 * time.Second
)

// compareKeys is advice.
const compareKeys = "compare the preshared keys on both nodes: Backend.PSK in \"selvaged config show\", and " +
	"\"selvaged status\" for a config that was not applied; and the public keys in \"selvaged status\" with those of " +
	"\"wg show\""

// silence is the reason why a WireGuard peer does not answer.
type silence int

const (
	answers     silence = iota
	clockBack           // this node's clock is behind its last handshake
	neverHeard          // nothing has come from the peer
	incomplete          // what the peer sends arrives, and no handshake is completed
	nothingBack         // packets are sent, and none comes any more
)

// silenceOf decides from what is known of a session. A handshake is refused as a replay if its time is not after that
// of the last one, and does not count as received. A response that was made with another preshared key is dropped, and
// does not count either; initiations do, since the preshared key is no part of these. So a peer that begins handshakes
// is heard, whether its preshared key differs, or it does not receive the responses; and one that begins none is not
// heard, even if it receives and refuses everything.
func silenceOf(s status.Session, now time.Time) silence {
	live := !s.Handshake.IsZero() && now.Sub(s.Handshake) < sessionLife
	unanswered := !s.UnansweredSince.IsZero() && now.Sub(s.UnansweredSince) > answerTime
	// What comes after the end of a session, and begins no other one, is of handshakes that are not completed.
	unfinished := s.LastReceived.Sub(s.Handshake) > sessionLife+answerTime
	if s.Handshake.IsZero() {
		unfinished = s.Received >= 3*initiation
	}
	switch {
	case s.Handshake.Sub(now) > clockSlack:
		return clockBack
	case !live && unfinished && now.Sub(s.LastReceived) < sessionLife:
		return incomplete
	case unanswered && s.Received == 0:
		return neverHeard
	case unanswered:
		return nothingBack
	}
	return answers
}

// checkWireGuard reports peers that do not answer by WireGuard, and what that may come from.
func checkWireGuard(f Facts) (all []Finding) {
	names, first, sessions := map[silence][]string{}, map[silence]status.Session{}, 0
	for _, p := range f.Peers {
		for _, s := range p.Sessions {
			sessions++
			why := silenceOf(s, f.Now)
			if why == answers {
				continue
			}
			if len(names[why]) == 0 {
				first[why] = s
			}
			names[why] = append(names[why], fmt.Sprintf("%s (%s, %s)", nameOf(p), s.Endpoint, s.Device))
		}
	}
	for why := clockBack; why <= nothingBack; why++ {
		if len(names[why]) > 0 {
			all = append(all, f.silent(why, abbreviate(names[why]), first[why]))
		}
	}
	if sessions > 0 && len(all) == 0 {
		all = append(all, passed("no WireGuard peer of %d leaves packets unanswered", sessions))
	}
	return all
}

// silent is the finding for peers with the same reason; s is the first one's session.
func (f Facts) silent(why silence, peers string, s status.Session) Finding {
	ports := fmt.Sprintf("UDP port %d", s.Endpoint.Port())
	switch why {
	case clockBack:
		ahead := s.Handshake.Sub(f.Now).Round(time.Second)
		return failure("correct this node's clock. If it is right now, remove the peer on the other node, so that it "+
			"is set again without the time of the last handshake: wg set DEVICE peer KEY remove",
			"this node's clock is %s behind its last WireGuard handshake: %s refuse its handshakes until the clock "+
				"has passed that time", ahead, peers)
	case incomplete:
		return failure("run selvaged doctor on the other node. If nothing arrives there, allow "+ports+" from this "+
			"node to there. Else "+compareKeys,
			"WireGuard packets of %s arrive, but no handshake is completed: the preshared keys or the public keys "+
				"differ, or this node's packets to %s there are lost", peers, ports)
	case neverHeard:
		return failure("allow "+ports+" in the firewalls of both nodes and between them. If it is open, the other "+
			"node refuses the handshakes: "+compareKeys+". If they are equal, this node's clock may be behind an "+
			"earlier one: correct it, or on the other node, wg set DEVICE peer KEY remove, with this node's public key",
			"WireGuard handshakes to %s are not answered, for %s: nothing has ever come from there", peers, f.since(s))
	}
	advice := []string{"allow " + ports + " in the firewalls of both nodes and between them",
		"see selvaged status on the other node, which may have been restarted with another clock or key"}
	return failure(strings.Join(advice, "; "), "WireGuard packets to %s get no answer, for %s", peers, f.since(s))
}

// since is how long packets have been sent in vain.
func (f Facts) since(s status.Session) time.Duration {
	return f.Now.Sub(s.UnansweredSince).Round(time.Second)
}
