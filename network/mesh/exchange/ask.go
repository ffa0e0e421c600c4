package exchange

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// Query says how nodes are asked.
type Query struct {
	Files      Files
	TokenFile  string // of a token to show instead of a certificate; then Target.Key says which server to show it to
	Port       uint16
	ServerName string        // in the nodes' certificates; empty: they have the address that is asked for
	Timeout    time.Duration // for each node
	Parallel   int           // how many nodes are asked at the same time
}

// maxReason is the length of the text of an error, in runes. It can quote a certificate that no authority has signed.
const maxReason = 160

// Ask asks all targets for their summaries, and returns an answer for each, in the same order. An error means that none
// can be asked.
func Ask(ctx context.Context, q Query, targets []mesh.Target) ([]mesh.Answer, error) {
	id, err := q.asker()
	if err != nil {
		return nil, err
	}
	answers := make([]mesh.Answer, len(targets))
	next := make(chan int)
	var asking sync.WaitGroup
	for range min(q.Parallel, len(targets)) {
		asking.Go(func() {
			for i := range next {
				answers[i] = q.summary(ctx, id, targets[i])
			}
		})
	}
	for i := range targets {
		next <- i
	}
	close(next)
	asking.Wait()
	return answers, ctx.Err()
}

// asker is how a client proves who it is.
type asker struct {
	id    *identity // nil: it shows the token
	token string
}

// asker reads the files.
func (q Query) asker() (a asker, err error) {
	if q.TokenFile != "" {
		a.token, err = readToken(q.TokenFile)
		return a, err
	}
	a.id, err = q.Files.read()
	return a, err
}

// tls returns the settings of a connection to a node with a public IP.
func (q Query) tls(a asker, t mesh.Target, public netip.Addr) *tls.Config {
	if a.id == nil {
		return pinned(t.MeshKey)
	}
	config := a.id.client()
	if config.ServerName = q.ServerName; q.ServerName == "" {
		config.ServerName = public.String()
	}
	return config
}

// question is what a node is asked.
type question struct {
	path string
	most int64                     // bytes of the answer
	read func(*json.Decoder) error // takes in the answer
}

// summary asks one node for its summary.
func (q Query) summary(ctx context.Context, id asker, t mesh.Target) mesh.Answer {
	var s *mesh.Summary
	a := q.ask(ctx, id, t, question{path: mesh.Path, most: mesh.MaxSummary, read: func(d *json.Decoder) error {
		got := new(mesh.Summary)
		if err := decode(d, got, &got.Version, mesh.SummaryVersion); err != nil {
			return err
		}
		got.Clean()
		s = got
		return nil
	}})
	a.Summary = s
	return a
}

// decode decodes an answer, which has to have the version that this side knows.
func decode(d *json.Decoder, into any, version *int, want int) error {
	if err := d.Decode(into); err != nil {
		return errors.Join(errUnreadable, err)
	}
	if *version != want {
		return fmt.Errorf("%w: version %d, want %d", errUnreadable, *version, want)
	}
	return nil
}

// ask asks one node at its addresses, one after the other. The answer has no code if there was one to the question.
func (q Query) ask(ctx context.Context, id asker, t mesh.Target, about question) (a mesh.Answer) {
	if id.id == nil && t.MeshKey == "" {
		return mesh.Answer{Code: mesh.NoKey}
	}
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	began := time.Now()
	a.Code = mesh.NoAddress
	for i, public := range t.Public {
		at := public
		if i < len(t.Local) {
			at = t.Local[i]
		}
		left := q.Timeout - time.Since(began)
		place := place{at, public, left / time.Duration(len(t.Public)-i)}
		ends, err := q.askAt(ctx, id, t, place, about)
		if err == nil {
			return mesh.Answer{CertificateEnds: ends}
		}
		a.Code = codeOf(err)
		a.Text = status.Text(mesh.Printable(fmt.Sprintf("%s: %v", at, reason(err)), maxReason))
	}
	return a
}

// askAt asks one node at one address. The server's certificate has to be valid for its public IP, or to have the key
// that the node's lease names.
func (q Query) askAt(ctx context.Context, id asker, t mesh.Target, p place, about question) (
	certificateEnds time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", net.JoinHostPort(p.at.String(), strconv.Itoa(int(q.Port))))
	if err != nil {
		return certificateEnds, err
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	if err := raw.SetDeadline(deadline); err != nil {
		return certificateEnds, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := tls.Client(raw, q.tls(id, t, p.public))
	if err := c.HandshakeContext(ctx); err != nil {
		return certificateEnds, err
	}
	if id.id != nil {
		certificateEnds = c.ConnectionState().PeerCertificates[0].NotAfter
	}
	return certificateEnds, request(c, p.at, id.token, about)
}

// place is where a node is asked.
type place struct {
	at, public netip.Addr
	limit      time.Duration
}

// request sends the request and reads the answer.
func request(c *tls.Conn, at netip.Addr, token string, about question) error {
	r, err := http.NewRequest(http.MethodGet, "https://"+net.JoinHostPort(at.String(), "0")+about.path, nil)
	if err != nil {
		return err
	}
	r.Close = true
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	// In TLS 1.3 the handshake has ended for a client before the server has judged its certificate, so the write can
	// fail while the alert that says why waits to be read.
	writeErr := r.Write(c)
	const buffer = 4 << 10
	response, err := http.ReadResponse(bufio.NewReaderSize(io.LimitReader(c, about.most), buffer), r)
	if err != nil && writeErr != nil && !isAlert(err) {
		return writeErr
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return statusError(response.StatusCode)
	}
	return about.read(json.NewDecoder(response.Body))
}
