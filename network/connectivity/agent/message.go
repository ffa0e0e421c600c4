package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Ports that an agent listens on.
const (
	EchoPort    = 7070 // UDP and TCP: answers with the source address seen and the host's name, see Serve
	ControlPort = 7071 // TCP: does what it is asked to
)

// Request is what an agent is asked to do: one of these.
type Request struct {
	Call   *Call   `json:",omitempty"`
	Stream *Stream `json:",omitempty"`
	Report bool    `json:",omitempty"` // on the streams
	// Overflows: how many datagrams the pod's sockets had no room for, ever.
	Overflows bool `json:",omitempty"`
}

// Call asks to call an address once: an agent, or whatever accepts a connection; or to look up a name.
type Call struct {
	Network Network
	To      netip.AddrPort `json:",omitzero"`
	Name    string         `json:",omitempty"` // for [DNS]
}

// Network is the way of a call.
type Network string

// The ways of a call.
const (
	TCP Network = "tcp" // to an agent
	UDP Network = "udp" // to an agent
	// Full is a datagram to an agent as large as the path allows, as far as the kernel knows it (IP_MTU in ip(7)), and
	// one of the same size back. They may not be fragmented.
	Full    Network = "full"
	Connect Network = "connect" // a TCP connection, on which nothing is sent and read
	DNS     Network = "dns"     // a name, by the servers in /etc/resolv.conf
)

// Stream asks to send a datagram to an agent every so often, from now on.
type Stream struct {
	To    netip.AddrPort
	Every time.Duration
}

// Answer is what came of a request.
type Answer struct {
	Error     string   `json:",omitempty"`
	Echo      *Echo    `json:",omitempty"` // of a call
	Overflows uint64   `json:",omitempty"`
	Losses    []Losses `json:",omitempty"` // of the streams since the last report, in the order of their start
}

// Echo is what an agent answers to a call.
type Echo struct {
	Seen netip.Addr // the source address of the call
	By   string     // host name of who answers
}

func (e Echo) String() string { return fmt.Sprintf("%s %s", e.Seen, e.By) }

// parseEcho reads an answer. That of an endpoint of the lab, which is no agent, has no name in it.
func parseEcho(text string) (e Echo, err error) {
	fields := strings.Fields(text)
	if len(fields) < 1 || len(fields) > 2 {
		return e, fmt.Errorf("an answer of %q: want an address and a name", text)
	}
	if len(fields) == 2 {
		e.By = fields[1]
	}
	e.Seen, err = netip.ParseAddr(fields[0])
	return e, err
}

// Losses counts a stream's datagrams.
type Losses struct {
	Sent, Lost int
	// Gap is the longest time without a datagram that was answered, from the sending of the first lost one.
	Gap time.Duration
	// First is when the first lost one was sent.
	First time.Time
}

func (l Losses) String() string {
	if l.Lost == 0 {
		return fmt.Sprintf("0 of %d datagrams lost", l.Sent)
	}
	return fmt.Sprintf("%d of %d datagrams lost, the first sent at %s, longest gap %s",
		l.Lost, l.Sent, l.First.UTC().Format("15:04:05.000"), l.Gap.Round(time.Millisecond))
}

// Add adds those of another stream.
func (l Losses) Add(o Losses) Losses {
	sum := Losses{Sent: l.Sent + o.Sent, Lost: l.Lost + o.Lost, Gap: max(l.Gap, o.Gap), First: l.First}
	if l.Lost == 0 || o.Lost > 0 && o.First.Before(l.First) {
		sum.First = o.First
	}
	return sum
}
