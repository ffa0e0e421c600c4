package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// probeTimeout is how long a probe waits for an answer if its context does not say.
const probeTimeout = 2 * time.Second

// Result is what a probe found.
type Result struct {
	From, To string        // names of the endpoints
	RTT      time.Duration // of one UDP datagram and its answer, neighbours being resolved
	Source   netip.Addr    // the source address that To saw
	Err      error         // no answer, or a source address that is not as it should be
}

// Probe sends from one endpoint to another: UDP datagrams, then 32 KiB over TCP and back. It also judges the source address
// seen: a pod's is its own, except outside the overlay, where it is the node's; a node's is any that belongs to the node.
//
// It uses IPv4 if both ends have it; [Lab.ProbeFamily] chooses.
func (l *Lab) Probe(ctx context.Context, from, to *Endpoint) Result {
	f := subnet.IPv4
	if !from.Addr(f).IsValid() || !to.Addr(f).IsValid() {
		f = subnet.IPv6
	}
	return l.ProbeFamily(ctx, f, from, to)
}

// ProbeFamily is [Lab.Probe] in the given family.
func (l *Lab) ProbeFamily(ctx context.Context, f subnet.Family, from, to *Endpoint) Result {
	r := Result{From: from.name, To: to.name}
	if !from.Addr(f).IsValid() || !to.Addr(f).IsValid() {
		r.Err = fmt.Errorf("%s and %s have no %s addresses both", from.name, to.name, f)
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	target := netip.AddrPortFrom(to.Addr(f), echoPort)
	if r.RTT, r.Source, r.Err = probeUDP(ctx, from.do, target); r.Err != nil {
		r.Err = fmt.Errorf("UDP: %w", r.Err)
		return r
	}
	seen, err := probeTCP(ctx, from.do, target)
	if err != nil {
		r.Err = fmt.Errorf("TCP: %w", err)
	} else if seen != r.Source {
		r.Err = fmt.Errorf("the source address seen is %s with UDP and %s with TCP", r.Source, seen)
	} else {
		r.Err = from.source(seen, to)
	}
	return r
}

// Matrix probes from each endpoint to each other, one after the other, so that they do not slow each other down.
// result[i][j] is from endpoint i to endpoint j; result[i][i] is the zero Result.
func (l *Lab) Matrix(ctx context.Context, endpoints []*Endpoint) [][]Result {
	results := make([][]Result, len(endpoints))
	for i, from := range endpoints {
		results[i] = make([]Result, len(endpoints))
		for j, to := range endpoints {
			if i != j {
				results[i][j] = l.Probe(ctx, from, to)
			}
		}
	}
	return results
}

// dial opens a socket where do leads to; from then on it can be used from anywhere.
func dial(ctx context.Context, do func(func() error) error, network string, target netip.AddrPort) (net.Conn, error) {
	conn, err := in(do, func() (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, target.String())
	})
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	return conn, nil
}

// probeUDP exchanges two datagrams: the first may have to wait for neighbours to be resolved, the second is measured.
func probeUDP(ctx context.Context, do func(func() error) error, target netip.AddrPort) (rtt time.Duration, seen netip.Addr, err error) {
	conn, err := dial(ctx, do, "udp", target)
	if err != nil {
		return 0, seen, err
	}
	defer conn.Close()
	answer := make([]byte, 128)
	for number := range uint64(2) {
		sent := time.Now()
		if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, number)); err != nil {
			return 0, seen, err
		}
		n, err := conn.Read(answer)
		if err != nil {
			return 0, seen, err
		}
		rtt = time.Since(sent)
		if _, seen, err = parseUDP(answer[:n]); err != nil {
			return 0, seen, err
		}
	}
	return rtt, seen, nil
}

func probeTCP(ctx context.Context, do func(func() error) error, target netip.AddrPort) (seen netip.Addr, err error) {
	conn, err := dial(ctx, do, "tcp", target)
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
