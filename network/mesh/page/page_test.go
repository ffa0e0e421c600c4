package page

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
)

// viewOf is the view of nodes that are well. Of those that are named as odd, the state is degraded.
func viewOf(count int, odd ...int) mesh.Cluster {
	var targets []mesh.Target
	var answers []mesh.Answer
	for i := range count {
		key := fmt.Sprint("key", i)
		s := &mesh.Summary{Version: 1, Now: time.Now(), Age: time.Duration(time.Now().UnixNano() % 1e9), Lease: key, State: status.Ready}
		if slices.Contains(odd, i) {
			s.State, s.Problems = status.Degraded, []mesh.Problem{{Topic: "conflict", Code: status.Conflict}}
		}
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		targets = append(targets, mesh.Target{Key: key, Node: fmt.Sprint("node", i), Public: []netip.Addr{a}})
		answers = append(answers, mesh.Answer{Summary: s})
	}
	return mesh.Assemble(targets, answers, time.Now())
}

func namesIn(t *testing.T, u update) (names []string) {
	t.Helper()
	for _, raw := range u.nodes {
		var n struct{ Name string }
		if err := json.Unmarshal(raw, &n); err != nil {
			t.Fatal(err)
		}
		names = append(names, n.Name)
	}
	return names
}

// TestChanges: a reader gets the whole view first, then what has changed since, however many views that was ago.
func TestChanges(t *testing.T) {
	f := newFeed(nil, 1)
	if _, latest, _ := f.since(0); latest != 0 {
		t.Errorf("view %d before the first", latest)
	}
	f.publish(viewOf(3), nil, time.Second, time.Minute)
	u, first, changed := f.since(0)
	if names := namesIn(t, u); !u.whole || len(names) != 3 || u.header.Counts.Ready != 3 || u.header.Took != 1000 {
		t.Errorf("at first: %+v, %q", u, names)
	}
	f.publish(viewOf(3), nil, 0, 0)
	f.publish(viewOf(3, 1), nil, 0, 0)
	<-changed
	u, second, _ := f.since(first)
	if names := namesIn(t, u); u.whole || !slices.Equal(names, []string{"node1"}) || u.header.Counts.Degraded != 1 {
		t.Errorf("after a change: %+v, %q", u, names)
	}
	f.publish(mesh.Cluster{}, errors.New("the daemon does not run"), 0, 0)
	u, third, _ := f.since(second)
	if u.whole || len(u.nodes) > 0 || u.header.Error != "the daemon does not run" || u.header.Counts.Nodes != 3 {
		t.Errorf("after an error: %+v", u)
	}
	f.publish(viewOf(2, 1), nil, 0, 0)
	u, _, _ = f.since(third)
	if names := namesIn(t, u); !u.whole || !slices.Equal(names, []string{"node1", "node0"}) || u.header.Error != "" {
		t.Errorf("without a node: %+v, %q", u, names)
	}
}

// TestGroups: many nodes are divided by their zones, and by the prefix of their address in the order of the prefixes.
func TestGroups(t *testing.T) {
	if all, of := grouped(viewOf(oneByOne).Nodes, nil); len(all) > 0 || len(of[oneByOne-1]) > 0 {
		t.Errorf("few nodes have the groupings %v", all)
	}
	nodes := viewOf(1000).Nodes
	nodes[500].PublicIP = nil
	nodes[501].PublicIP = []netip.Addr{netip.MustParseAddr("2001:db8::1")}
	nodes[502].PublicIP = []netip.Addr{netip.MustParseAddr("::ffff:10.0.0.9")}
	all, of := grouped(nodes, nil)
	if len(all) != 1 || all[0].By != byPrefix || len(all[0].Groups) > mostGroups || len(all[0].Groups) < mostGroups/2 {
		t.Fatalf("groupings %v", all)
	}
	name := func(grouping, node int) string { return all[grouping].Groups[of[node][grouping]] }
	if name(0, 500) != "no address" || name(0, 501) != "2001:db8::/108" || name(0, 502) != "10.0.0.0/27" {
		t.Errorf("groups %q, %q and %q", name(0, 500), name(0, 501), name(0, 502))
	}
	for i, n := range nodes {
		if p, err := netip.ParsePrefix(name(0, i)); err == nil && !p.Contains(n.PublicIP[0].Unmap()) {
			t.Errorf("%s is in the group %s", n.PublicIP, p)
		}
	}
	for i := range nodes[:900] {
		nodes[i].Summary.Zone = fmt.Sprint("zone-", i%3)
	}
	known := map[string]string{nodes[7].Key: "zone-1", nodes[8].Key: "zone-2"}
	nodes[7].Summary = nil // it is missing, and was in zone-1
	all, of = grouped(nodes, known)
	if len(all) != 2 || all[0].By != byZone || !slices.Equal(all[0].Groups, []string{"zone-0", "zone-1", "zone-2", "no zone"}) {
		t.Fatalf("groupings %v", all)
	}
	for node, want := range map[int]string{0: "zone-0", 7: "zone-1", 8: "zone-2", 899: "zone-2", 900: "no zone"} {
		if got := name(0, node); got != want {
			t.Errorf("%s is in %q, want %q", nodes[node].Name, got, want)
		}
	}
	if p, err := netip.ParsePrefix(name(1, 0)); err != nil || !p.Contains(nodes[0].PublicIP[0]) {
		t.Errorf("%s is in the group %s", nodes[0].PublicIP, name(1, 0))
	}
	for i := range nodes {
		if nodes[i].Summary != nil {
			nodes[i].Summary.Zone = fmt.Sprint("zone-", i%(mostGroups+1))
		}
	}
	if all, _ := grouped(nodes, nil); len(all) != 1 {
		t.Errorf("more zones than groups: %d groupings", len(all))
	}
}

// TestZonesOfMissing: a node that is missing stays in the zone that it was in.
func TestZonesOfMissing(t *testing.T) {
	f := newFeed(nil, 1)
	view := viewOf(oneByOne + 1)
	for i := range view.Nodes {
		view.Nodes[i].Summary.Zone = fmt.Sprint("zone-", i%2)
	}
	lost := view.Nodes[1].Key
	for range 3 {
		f.publish(view, nil, 0, 0)
		view.Nodes = slices.Clone(view.Nodes)
		view.Nodes[1].Summary = nil
	}
	u, _, _ := f.since(0)
	for _, raw := range u.nodes {
		var n node
		if err := json.Unmarshal(raw, &n); err != nil {
			t.Fatal(err)
		}
		if n.Key == lost && (n.Summary != nil || u.header.Groupings[0].Groups[n.Groups[0]] != "zone-1") {
			t.Errorf("%+v", n)
		}
	}
}

// source counts the queries.
type source struct {
	mu    sync.Mutex
	asked int
	view  mesh.Cluster
}

func (s *source) query(context.Context) (mesh.Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.view, nil
}

func (s *source) queries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// serve serves the page until the test ends.
func serve(t *testing.T, s *source) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Options{Source: s.query}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// follow reads the first event, and returns the connection.
func follow(t *testing.T, address string) (io.Closer, string) {
	t.Helper()
	r, err := http.Get("http://" + address + "/events")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(r.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("status %s: %v", r.Status, err)
		}
		if strings.HasPrefix(line, "data: ") {
			return r.Body, line
		}
	}
}

// TestServe: nodes are queried only while a page follows, and pages beyond the limit are refused.
func TestServe(t *testing.T) {
	s := &source{view: viewOf(2, 1)}
	address := serve(t, s)
	if r, err := http.Get("http://" + address + "/"); err != nil || r.StatusCode != http.StatusOK || s.queries() > 0 {
		t.Errorf("%v, %v, %d queries", r, err, s.queries())
	}
	var pages []io.Closer
	for range mostPages {
		p, data := follow(t, address)
		pages = append(pages, p)
		var event struct {
			Header header
			Nodes  []node
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(data, "data: ")), &event); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if len(event.Nodes) != 2 || event.Nodes[0].Name != "node1" || event.Header.Counts.Degraded != 1 {
			t.Errorf("%+v", event)
		}
	}
	r, err := http.Get("http://" + address + "/events")
	if err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one page too many: %v, %v", r, err)
	}
	for _, p := range pages {
		_ = p.Close()
	}
	await(t, "closed pages do not count", func() bool {
		r, err := http.Get("http://" + address + "/events")
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// await waits for a condition; go test's timeout ends it.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	t.Logf("waiting: %s", what)
	for !is() {
		time.Sleep(5 * time.Millisecond)
	}
}

// TestSlow: clients that do not send a request, or do not read the events, are disconnected, and others are answered meanwhile.
func TestSlow(t *testing.T) {
	src := &source{view: viewOf(1000)}
	for _, n := range src.view.Nodes {
		n.Summary.Kernel = strings.Repeat("x", 10_000) // together more than the kernel buffers
	}
	s := &server{feed: newFeed(src.query, 2), details: newDetails(nil, 1), local: true, now: time.Now, patience: 2 * time.Second}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, l, nil) }()
	t.Cleanup(func() { cancel(); <-done })
	narrow := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) { // before the handshake: it decides about the window
		_ = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1<<12) })
		return err
	}}
	var clients []net.Conn
	for _, request := range []string{"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET / HT", ""} {
		c, err := narrow.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = io.WriteString(c, request)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	await(t, "the page is followed", s.feed.isRead)
	await(t, "an answer beside slow clients", func() bool {
		r, err := http.Get("http://" + l.Addr().String() + "/")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	await(t, "the page is not followed", func() bool { return !s.feed.isRead() })
	for _, c := range clients {
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
}

func TestRequests(t *testing.T) {
	s := &server{feed: newFeed(nil, 0), details: newDetails(nil, 1), local: true, now: time.Now}
	for _, tt := range []struct {
		method, target, host, body string
		want                       int
	}{
		{"GET", "/", "127.0.0.1:8474", "", 200}, {"GET", "/", "localhost:8474", "", 200}, {"GET", "/", "[::1]:8474", "", 200}, {"GET", "/", "localhost", "", 200},
		{"HEAD", "/main.js", "127.0.0.1", "", 200}, {"GET", "/", "[::1]", "", 200},
		{"GET", "/", "evil.example", "", 421}, {"GET", "/events", "127.0.0.1.evil.example:8474", "", 421}, {"GET", "/", "", "", 421}, {"GET", "/", "[", "", 421},
		{"GET", "/", "192.0.2.1:8474", "", 421}, {"POST", "/", "localhost", "", 405}, {"DELETE", "/events", "localhost", "", 405},
		{"GET", "/", "localhost", "x", 413}, {"GET", "/events", "localhost", "", 503},
		{"GET", "/detail?key=k", "localhost", "", 404}, {"GET", "/detail", "evil.example", "", 421}, {"POST", "/detail", "localhost", "", 405},
		{"GET", "/page.go", "localhost", "", 404}, {"GET", "/assets/main.js", "localhost", "", 404}, {"GET", "/../page.go", "localhost", "", 404},
		{"GET", "/assets", "localhost", "", 404}, {"GET", "/.", "localhost", "", 404}, {"GET", "//", "localhost", "", 404},
	} {
		r := httptest.NewRequest(tt.method, "http://x/", strings.NewReader(tt.body))
		r.URL.Path, r.Host = tt.target, tt.host
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s %s of %q: status %d, want %d", tt.method, tt.target, tt.host, w.Code, tt.want)
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", tt.target, csp)
		}
	}
}

// TestFiles: the page loads nothing from elsewhere, has no inline script or style, and no script makes HTML of a text.
func TestFiles(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setTimeout\("|DOMParser|createContextualFragment|` +
		`https?://|style="| on[a-z]+="|<script(>| [^>]*>[^<])|<style`)
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := assets.ReadFile(name)
		text := strings.ReplaceAll(string(data), `xmlns="http://www.w3.org/2000/svg"`, "") // the name of a language
		if found := forbidden.FindString(text); found != "" {
			t.Errorf("%s has %q", name, found)
		}
		if types[path.Ext(name)] == "" {
			t.Errorf("%s has no type", name)
		}
		for i, line := range strings.Split(string(data), "\n") {
			if len([]rune(line)) > 120 {
				t.Errorf("%s:%d has more than 120 characters", name, i+1)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
