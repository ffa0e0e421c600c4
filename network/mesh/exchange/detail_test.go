package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// serveDetail serves d until the test ends, with a detail.
func serveDetail(t *testing.T, f Files, d *daemon, examine Examiner, change func(*Options)) *Server {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	o := Options{Address: freePort(t, "127.0.0.1"), Files: f, Log: log, Detail: true, Examine: examine}
	if change != nil {
		change(&o)
	}
	s, err := listen(o, patiently())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, d) }()
	t.Cleanup(func() { cancel(); <-done })
	await(t, "a summary", func() bool { return s.last.Load() != nil })
	return s
}

func askDetail(t *testing.T, s *Server, f Files) mesh.Told {
	t.Helper()
	q := Query{Files: f, Port: s.Access().Port, Timeout: patient}
	told, err := AskDetail(t.Context(), q, mesh.Target{Public: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	return told
}

// TestDetail: a node tells its repairs, the latest drops and what an examination has found, and the summary has nothing of that.
func TestDetail(t *testing.T) {
	f := newPKI(t).sign("well")
	d := &daemon{node: "node1", drops: []status.Drop{}, repairs: []status.Repair{
		{At: time.Now(), Kind: "route", Key: "10.5.9.0/24", What: "missing", By: "pid 7 (ip)"}}}
	for i := range mesh.MaxDetailed + 8 {
		d.drops = append(d.drops, status.Drop{At: time.Now(), Direction: "ingress", Policy: fmt.Sprint("policy", i),
			Source: status.PolicyEnd{Pod: "team/secret-pod"}})
	}
	var examined atomic.Int64
	s := serveDetail(t, f, d, func(context.Context) (mesh.Examination, error) {
		examined.Add(1)
		return mesh.Examination{At: time.Now(), Passed: 17, Findings: []mesh.Examined{{Check: "cni", Level: "failure", Evidence: "no plugin"}}}, nil
	}, nil)
	if examined.Load() != 0 {
		t.Error("it examines itself although it was not asked for its detail")
	}
	if first := askDetail(t, s, f).Detail; first == nil || !first.Examining && first.Examination == nil {
		t.Fatalf("at first: %+v", first)
	}
	var got *mesh.Detail
	await(t, "an examination", func() bool { got = askDetail(t, s, f).Detail; return got.Examination != nil })
	if e := got.Examination; e.Passed != 17 || len(e.Findings) != 1 || e.Findings[0].Evidence != "no plugin" {
		t.Errorf("%+v", e)
	}
	if len(got.Repairs) != 1 || got.Repairs[0].Key != "10.5.9.0/24" || got.Repairs[0].By != "pid 7 (ip)" {
		t.Errorf("%+v", got.Repairs)
	}
	if n := len(got.Drops); n != mesh.MaxDetailed || got.Drops[0].Policy != fmt.Sprint("policy", mesh.MaxDetailed+7) || got.Drops[0].Source.Pod != "team/secret-pod" {
		t.Errorf("%d drops: %+v", n, got.Drops)
	}
	for range 20 {
		askDetail(t, s, f)
	}
	if n := examined.Load(); n != 1 {
		t.Errorf("%d examinations within half a minute", n)
	}
	var later atomic.Int64
	s.examinations.mu.Lock()
	s.examinations.now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	s.examinations.mu.Unlock()
	later.Store(int64(examineEvery))
	await(t, "another examination", func() bool { askDetail(t, s, f); return examined.Load() == 2 })
	if text := fmt.Sprintf("%+v", *askOne(t, s, f, "").Summary); strings.Contains(text, "secret-pod") || strings.Contains(text, "10.5.9.0") {
		t.Errorf("the summary has %s", text)
	}
}

// TestNoDetail: why a node tells none, or a part of it.
func TestNoDetail(t *testing.T) {
	ours, theirs := newPKI(t), newPKI(t)
	f, d := ours.sign("well"), &daemon{node: "node1"}
	got := askDetail(t, serveDetail(t, f, d, nil, nil), f).Detail
	if got == nil || got.DropsOff != mesh.NotEnforced || got.ExaminationOff != mesh.NoSocket || got.Examination != nil {
		t.Errorf("without policies and a socket: %+v", got)
	}
	off := serveDetail(t, f, d, nil, func(o *Options) { o.Detail = false })
	if told := askDetail(t, off, f); told.Code != mesh.DetailOff || told.Detail != nil || !strings.Contains(told.Text, "--mesh-detail=false") {
		t.Errorf("with --mesh-detail=false: %+v", told)
	}
	failing := serveDetail(t, f, d, func(context.Context) (mesh.Examination, error) { return mesh.Examination{}, errors.New("no memory") }, nil)
	await(t, "an examination that fails", func() bool {
		x := askDetail(t, failing, f).Detail.Examination
		return x != nil && x.Error == "no memory"
	})
	stranger := theirs.sign("client")
	stranger.CA = ours.ca.File
	if told := askDetail(t, failing, stranger); told.Code != mesh.CertificateRefused || told.Detail != nil {
		t.Errorf("a stranger: %+v", told)
	}
	// A daemon of before answers 404 to what it does not know.
	if code := codeOf(statusError(http.StatusNotFound)); code != mesh.NoDetail || !strings.Contains(mesh.Untold(mesh.Answer{Code: code}).Text, "older") {
		t.Errorf("an older daemon: %s", code)
	}
}

// TestExaminationEnds: an examination that hangs ends with the server, and only one runs at a time.
func TestExaminationEnds(t *testing.T) {
	f := newPKI(t).sign("well")
	var running, most atomic.Int64
	ended := make(chan struct{})
	t.Cleanup(func() {
		select {
		case <-ended:
		default:
			t.Error("the server has ended before the examination")
		}
		if most.Load() != 1 {
			t.Errorf("%d examinations at a time", most.Load())
		}
	})
	s := serveDetail(t, f, &daemon{node: "node1"}, func(ctx context.Context) (mesh.Examination, error) {
		most.Store(max(most.Load(), running.Add(1)))
		<-ctx.Done()
		running.Add(-1)
		close(ended)
		return mesh.Examination{}, ctx.Err()
	}, nil)
	for range 5 {
		if d := askDetail(t, s, f).Detail; !d.Examining || d.Examination != nil {
			t.Errorf("%+v", d)
		}
	}
}
