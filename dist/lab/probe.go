package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Result is what a probe found.
type Result struct {
	From, To string        // names of the endpoints
	Family   subnet.Family // that was used
	RTT      time.Duration // of one UDP datagram and its answer, neighbours being resolved
	Source   netip.Addr    // the source address that To saw
	Size     int           // of a full-size probe's packet, in bytes
	Err      error         // no answer, or a source address that is not as it should be
}

// Probe sends from one endpoint to another: UDP datagrams, then 32 KiB over TCP and back. It also judges the source
// address seen: a pod's is its own, except outside the overlay, where it is the node's; a node's is any that belongs
// to the node.
//
// It uses IPv4 if both ends have it; [Lab.ProbeFamily] chooses, and [Lab.ProbeShared] uses all that both have.
func (l *Lab) Probe(ctx context.Context, from, to *Endpoint) Result {
	return l.ProbeFamily(ctx, preferred(from, to), from, to)
}

// ProbeShared is [Lab.Probe] in each family that both ends have, one result a family. There is at least one result: of
// ends that share no family, one that says so.
func (l *Lab) ProbeShared(ctx context.Context, from, to *Endpoint) []Result {
	return eachShared(from, to, func(f subnet.Family) Result { return l.ProbeFamily(ctx, f, from, to) })
}

// eachShared calls fn with each family that both ends have, and with IPv6 if there is none.
func eachShared[T any](from, to *Endpoint, fn func(subnet.Family) T) (results []T) {
	for _, f := range subnet.Families() {
		if share(f, from, to) {
			results = append(results, fn(f))
		}
	}
	if results == nil {
		return []T{fn(preferred(from, to))}
	}
	return results
}

// share tells whether both ends have a family.
func share(f subnet.Family, from, to *Endpoint) bool {
	return from.Addr(f).IsValid() && to.Addr(f).IsValid()
}

func errNoShared(f subnet.Family, from, to *Endpoint) error {
	return fmt.Errorf("%s and %s have no %s addresses both", from.name, to.name, f)
}

// preferred is IPv4 if both ends have it.
func preferred(from, to *Endpoint) subnet.Family {
	if share(subnet.IPv4, from, to) {
		return subnet.IPv4
	}
	return subnet.IPv6
}

// ProbeFamily is [Lab.Probe] in the given family.
func (l *Lab) ProbeFamily(ctx context.Context, f subnet.Family, from, to *Endpoint) Result {
	r := Result{From: from.name, To: to.name, Family: f}
	if !share(f, from, to) {
		r.Err = errNoShared(f, from, to)
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, l.options.Patience)
	defer cancel()
	target := netip.AddrPortFrom(to.Addr(f), EchoPort)
	if r.RTT, r.Source, r.Err = probeUDP(ctx, net.Dialer{}, from.do, target, numberSize); r.Err != nil {
		r.Err = fmt.Errorf("UDP: %w", r.Err)
		return r
	}
	seen, err := probeTCP(ctx, net.Dialer{}, from.do, target)
	if err != nil {
		r.Err = fmt.Errorf("TCP: %w", err)
	} else if seen != r.Source {
		r.Err = fmt.Errorf("the source address seen is %s with UDP and %s with TCP", r.Source, seen)
	} else {
		r.Err = from.source(seen, to)
	}
	return r
}

// LongEnough is how long a probe that is to get no answer waits for one: a hundred times what a probe from one
// endpoint to another that is answered has just taken, so that it is longer on a slow machine.
func (l *Lab) LongEnough(ctx context.Context, from, to *Endpoint) (time.Duration, error) {
	const times, least = 100, 100 * time.Millisecond
	begin := time.Now()
	if r := l.Probe(ctx, from, to); r.Err != nil {
		return 0, fmt.Errorf("%s -> %s: %w", r.From, r.To, r.Err)
	}
	return max(least, times*time.Since(begin)), nil
}

// Matrix probes from each endpoint to each other, one after the other, so that they do not slow each other down.
// result[i][j] is from endpoint i to endpoint j; result[i][i] is the zero Result.
func (l *Lab) Matrix(ctx context.Context, endpoints []*Endpoint) [][]Result {
	return matrix(endpoints, func(from, to *Endpoint) Result { return l.Probe(ctx, from, to) })
}

// MatrixFamily is [Lab.Matrix] in the given family.
func (l *Lab) MatrixFamily(ctx context.Context, f subnet.Family, endpoints []*Endpoint) [][]Result {
	return matrix(endpoints, func(from, to *Endpoint) Result { return l.ProbeFamily(ctx, f, from, to) })
}

// MatrixFull is [Lab.MatrixFamily] with full-size probes, see [Lab.ProbeFull].
func (l *Lab) MatrixFull(ctx context.Context, f subnet.Family, endpoints []*Endpoint) [][]Result {
	return matrix(endpoints, func(from, to *Endpoint) Result { return l.ProbeFull(ctx, f, from, to) })
}

func matrix(endpoints []*Endpoint, probe func(from, to *Endpoint) Result) [][]Result {
	results := make([][]Result, len(endpoints))
	for i, from := range endpoints {
		results[i] = make([]Result, len(endpoints))
		for j, to := range endpoints {
			if i != j {
				results[i][j] = probe(from, to)
			}
		}
	}
	return results
}

// dial opens a socket where do leads to; from then on it can be used from anywhere.
func dial(ctx context.Context, dialer net.Dialer, do func(func() error) error, network string, target netip.AddrPort) (net.Conn, error) {
	conn, err := in(do, func() (net.Conn, error) { return dialer.DialContext(ctx, network, target.String()) })
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	return conn, nil
}

// numberSize is the size of a probe's number in bytes.
const numberSize = 8

// probeUDP exchanges two datagrams: the first may have to wait for neighbours to be resolved, the second is measured.
// The ones sent have size bytes.
func probeUDP(ctx context.Context, dialer net.Dialer, do func(func() error) error, target netip.AddrPort, size int,
) (rtt time.Duration, seen netip.Addr, err error) {
	conn, err := dial(ctx, dialer, do, "udp", target)
	if err != nil {
		return 0, seen, err
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Hour)
	}
	datagram := make([]byte, size)
	for number := range uint64(2) {
		sent := time.Now()
		if seen, err = exchange(conn, datagram, number, deadline); err != nil {
			return 0, seen, err
		}
		rtt = time.Since(sent)
	}
	return rtt, seen, nil
}

const (
	// askAgain is how long an answer may be missing until another datagram is sent, to see whether the path works.
	askAgain = time.Second
	// later marks the numbers of those datagrams.
	later = 1 << 32
)

// errLost means that a datagram was not answered, and a later one was.
var errLost = errors.New("a datagram was lost")

// exchange sends a datagram of a number and waits for the answer, however long that takes before the deadline, unless
// a later datagram was answered.
func exchange(conn net.Conn, datagram []byte, number uint64, deadline time.Time) (seen netip.Addr, err error) {
	send := func(number uint64) error {
		binary.BigEndian.PutUint64(datagram, number)
		_, err := conn.Write(datagram)
		return err
	}
	if err := send(number); err != nil {
		return seen, err
	}
	answer, works := make([]byte, 128), false
	conn.SetReadDeadline(earlier(deadline, askAgain))
	for {
		n, err := conn.Read(answer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && works:
			return seen, errLost
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline):
			if err := send(number | later); err != nil {
				return seen, err
			}
			conn.SetReadDeadline(earlier(deadline, askAgain))
			continue
		case err != nil:
			return seen, err
		}
		got, from, err := parseUDP(answer[:n])
		switch {
		case err != nil || got == number:
			return from, err
		case got == number|later && !works:
			works = true
			conn.SetReadDeadline(earlier(deadline, settle))
		}
	}
}

// earlier returns the time after d, or the deadline if that comes first.
func earlier(deadline time.Time, d time.Duration) time.Time {
	if at := time.Now().Add(d); at.Before(deadline) {
		return at
	}
	return deadline
}

func probeTCP(ctx context.Context, dialer net.Dialer, do func(func() error) error, target netip.AddrPort) (seen netip.Addr, err error) {
	conn, err := dial(ctx, dialer, do, "tcp", target)
	if err != nil {
		return seen, err
	}
	defer conn.Close()
	data := make([]byte, bulk)
	if _, err := conn.Write(data); err != nil {
		return seen, err
	}
	if _, err := io.ReadFull(conn, data); err != nil {
		return seen, err
	}
	text, _, _ := bytes.Cut(data, []byte{0})
	return netip.ParseAddr(string(text))
}
