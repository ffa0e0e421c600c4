package page

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// teller counts the questions, by key.
type teller struct {
	mu    sync.Mutex
	asked map[string]int
	told  mesh.Told
	err   error
	held  chan struct{} // if it is not nil, answers wait for its end
}

func (d *teller) ask(_ context.Context, key string) (mesh.Told, error) {
	d.mu.Lock()
	d.asked[key]++
	held, told, err := d.held, d.told, d.err
	d.mu.Unlock()
	if held != nil {
		<-held
	}
	if told.Detail != nil {
		x := *told.Detail
		x.Now = time.Now()
		told.Detail = &x
	}
	return told, err
}

func (d *teller) count(key string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[key]
}

// TestDetailShared: a node is asked once for all readers at a time, and no answer is kept of a node that no page has open.
func TestDetailShared(t *testing.T) {
	src := &teller{asked: map[string]int{}, held: make(chan struct{}), told: mesh.Told{Detail: &mesh.Detail{Version: 1}}}
	d := newDetails(src.ask, 100)
	now := time.Now()
	var clock sync.Mutex
	d.now = func() time.Time { clock.Lock(); defer clock.Unlock(); return now }
	var reading sync.WaitGroup
	for range 20 {
		reading.Go(func() {
			if text, rest := d.get(t.Context(), "a"); !strings.Contains(string(text), `"version":1`) || rest != detailEvery {
				t.Errorf("%s, and again after %s", text, rest)
			}
		})
	}
	await(t, "a question", func() bool { return src.count("a") == 1 })
	close(src.held)
	reading.Wait()
	if n := src.count("a"); n != 1 {
		t.Errorf("%d questions for 20 readers", n)
	}
	clock.Lock()
	now = now.Add(detailEvery)
	clock.Unlock()
	src.told.Detail = &mesh.Detail{Version: 1, Examining: true}
	if _, rest := d.get(t.Context(), "a"); rest != detailSoon || src.count("a") != 2 {
		t.Errorf("while it examines itself: again after %s, %d questions", rest, src.count("a"))
	}
	clock.Lock()
	now = now.Add(detailEvery)
	clock.Unlock()
	src.err = errors.New("no certificate")
	if text, _ := d.get(t.Context(), "b"); !strings.Contains(string(text), "no certificate") {
		t.Errorf("an error: %s", text)
	}
	if len(d.asked) != 1 {
		t.Errorf("%d answers are kept", len(d.asked))
	}
}

// TestDetailEvents: a page gets the detail of a node as an event, and another one when it has changed. Too many are refused.
func TestDetailEvents(t *testing.T) {
	src := &teller{asked: map[string]int{}, told: mesh.Told{Detail: &mesh.Detail{Version: 1, Examining: true}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	feed := &source{view: viewOf(2)}
	go func() { done <- Serve(ctx, l, Options{Source: feed.query, Detail: src.ask}) }()
	t.Cleanup(func() { cancel(); <-done })
	open := func() (*http.Response, *bufio.Reader) {
		r, err := http.Get("http://" + l.Addr().String() + "/detail?key=10.5.1.0%2D24")
		if err != nil {
			t.Fatal(err)
		}
		return r, bufio.NewReader(r.Body)
	}
	next := func(lines *bufio.Reader) (told mesh.Told) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if data, is := strings.CutPrefix(line, "data: "); is {
				if err := json.Unmarshal([]byte(data), &told); err != nil {
					t.Fatal(err)
				}
				return told
			}
		}
	}
	first, lines := open()
	if told := next(lines); told.Detail == nil || !told.Detail.Examining || feed.queries() > 0 {
		t.Errorf("at first: %+v, and %d queries of all nodes", told, feed.queries())
	}
	src.mu.Lock()
	src.told = mesh.Told{Detail: &mesh.Detail{Version: 1, Repairs: []status.Repair{{Key: "10.5.9.0/24"}}}}
	src.mu.Unlock()
	if told := next(lines); told.Detail == nil || told.Detail.Examining || len(told.Detail.Repairs) != 1 {
		t.Errorf("after a change: %+v", told)
	}
	opened := []io.Closer{first.Body}
	for range mostPages - 1 {
		r, lines := open()
		next(lines)
		opened = append(opened, r.Body)
	}
	if r, _ := open(); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: %s", r.Status)
	}
	for _, c := range opened {
		_ = c.Close()
	}
}
