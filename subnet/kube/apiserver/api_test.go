package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

const (
	kept  = "flannel.alpha.coreos.com/public-ip"
	other = "example.org/note"
)

// backend is an API server.
type backend struct {
	options Options
	admin   kubetest.Admin
	compact func(t *testing.T) // the store forgets its history; the server may still have it in its cache
	forget  func(t *testing.T) // so does the server, which may restart for that
	// restore takes the server back to what it was when backup was called. Both restart it.
	backup  func(t *testing.T)
	restore func(t *testing.T)
}

// What this file tests, it tests with the stand-in and with a real kube-apiserver: they have to do the same.

// backends runs a test with each.
func backends(t *testing.T, test func(t *testing.T, b backend)) {
	t.Run("stand-in", func(t *testing.T) {
		t.Parallel()
		test(t, standInBackend(t))
	})
	if real != nil {
		t.Run("kube-apiserver", func(t *testing.T) { test(t, realBackend(t)) })
	}
}

func standInBackend(t *testing.T) backend {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	certFile, keyFile := ca.sign(filepath.Join(dir, "server"))
	token := write(t, filepath.Join(dir, "token"), "secret\n")
	s := standIn(t, kubetest.Options{CertFile: certFile, KeyFile: keyFile, Token: "secret"})
	admin := s.Admin()
	admin.Client = trusting(t, ca.File)
	var saved kubetest.Backup
	return backend{
		options: Options{Kubeconfig: kubeconfigFile(t, s.URL(), ca.File, "tokenFile: "+token), Annotations: []string{kept}},
		admin:   admin,
		compact: func(*testing.T) { s.Compact() },
		forget:  func(*testing.T) { s.Compact() },
		backup:  func(*testing.T) { saved = s.Backup() },
		restore: func(t *testing.T) {
			s.Stop()
			s.Restore(saved)
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// kubeconfigFile writes a kubeconfig.
func kubeconfigFile(t *testing.T, server, ca, user string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "kubeconfig"), fmt.Sprintf(`
apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: here, context: {cluster: this, user: me}}
clusters:
- name: this
  cluster:
    server: %s
    certificate-authority: %s
users:
- name: me
  user:
    %s
`, server, ca, user))
}

// nodes creates Nodes and returns their names.
func (b backend) nodes(t *testing.T, count int) (names []string) {
	t.Helper()
	for i := range count {
		n := kubetest.Node{
			Name: fmt.Sprintf("node-%04d", i), PodCIDRs: []string{fmt.Sprintf("10.%d.%d.0/24", 5+i/256, i%256)},
			Annotations: map[string]string{kept: fmt.Sprintf("172.31.0.%d", i), other: strings.Repeat("x", 300)},
		}
		names = append(names, n.Name)
		must[kubetest.Object](t)(b.admin.CreateNode(t.Context(), n))
	}
	return names
}

// list reads a list.
func (c *Client) listed(t *testing.T, o ListOptions) (objects map[string]Object, version int64) {
	t.Helper()
	version, err := c.List(t.Context(), Nodes, o, func(p Page) error {
		if p.First {
			objects = map[string]Object{}
		}
		if len(p.Objects) > PageSize {
			t.Errorf("a page of %d objects", len(p.Objects))
		}
		for _, o := range p.Objects {
			if o.Bad != nil {
				t.Errorf("%s: %v", o.Name, o.Bad)
			}
			objects[o.Name] = o
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return objects, version
}

func TestList(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		if none, version := c.listed(t, ListOptions{}); len(none) != 0 || version == 0 {
			t.Errorf("an empty cluster has %v at %d", none, version)
		}
		began := time.Now()
		names := b.nodes(t, 5)
		at := must[kubetest.Object](t)(b.admin.Node(t.Context(), names[4]))
		for _, o := range []ListOptions{{}, {AnyVersion: true}, {NotOlderThan: 1}} {
			got, version := c.listed(t, o)
			if !slices.Equal(slices.Sorted(maps.Keys(got)), names) {
				t.Fatalf("%+v: %v, want %v", o, slices.Sorted(maps.Keys(got)), names)
			}
			one := got[names[4]]
			if one.UID != at.Metadata.UID || fmt.Sprint(one.Version) != at.Metadata.ResourceVersion || version < one.Version {
				t.Errorf("%+v: %+v at %d, want %+v", o, one, version, at.Metadata)
			}
			if want := map[string]string{kept: "172.31.0.4"}; !maps.Equal(one.Annotations, want) {
				t.Errorf("%+v: annotations %v, want %v", o, one.Annotations, want)
			}
			if one.Created.Before(began.Add(-time.Minute)) || one.Created.After(time.Now().Add(time.Minute)) || one.Deleting {
				t.Errorf("%+v: created %s, deleting %t", o, one.Created, one.Deleting)
			}
		}
	})
}

func TestListExactly(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		b.nodes(t, 2)
		all, version := c.listed(t, ListOptions{})
		must[kubetest.Object](t)(b.admin.Annotate(t.Context(), "node-0001", map[string]any{kept: "changed"}))
		if one, _ := c.listed(t, ListOptions{Name: "node-0001"}); len(one) != 1 || one["node-0001"].Annotations[kept] != "changed" {
			t.Errorf("node-0001 by name: %+v", one)
		}
		if none, _ := c.listed(t, ListOptions{Name: "nobody"}); len(none) != 0 {
			t.Errorf("nobody: %+v", none)
		}
		then, again := c.listed(t, ListOptions{Exactly: version})
		if again != version || len(then) != 2 || then["node-0001"].Annotations[kept] != all["node-0001"].Annotations[kept] {
			t.Errorf("at %d of %d: %+v, want %+v", again, version, then, all)
		}
		nothing := func(Page) error { return nil }
		if _, err := c.List(t.Context(), Nodes, ListOptions{Exactly: version + 1_000_000}, nothing); !errors.Is(err, ErrBehind) {
			t.Errorf("exactly at a version of the future: %v", err)
		}
		b.forget(t)
		if _, err := c.List(t.Context(), Nodes, ListOptions{Exactly: version}, nothing); !errors.Is(err, ErrExpired) {
			t.Errorf("exactly at a forgotten version: %v", err)
		}
	})
}

// TestIdentity: the answers name the store.
func TestIdentity(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		var listed, streamed Identity
		if _, err := c.List(t.Context(), Nodes, ListOptions{}, func(p Page) error { listed = p.Store; return nil }); err != nil {
			t.Fatal(err)
		}
		boom := errors.New("boom")
		if err := c.Watch(t.Context(), Nodes, WatchOptions{Initial: true}, func(e Event) error {
			if streamed = e.Store; e.Type == InitialEnd {
				return boom
			}
			return nil
		}); err != boom {
			t.Fatal(err)
		}
		if listed != streamed || listed.FlowSchema == "" || listed.PriorityLevel == "" {
			t.Errorf("the list names %+v, the watch %+v", listed, streamed)
		}
	})
}

func TestWatchOfOne(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		b.nodes(t, 2)
		_, from := c.listed(t, ListOptions{})
		w := c.watching(t, WatchOptions{From: from, Name: "node-0001"})
		for _, name := range []string{"node-0000", "node-0001"} {
			must[kubetest.Object](t)(b.admin.Annotate(t.Context(), name, map[string]any{kept: "changed"}))
		}
		if e := w.next(); e.Object.Name != "node-0001" {
			t.Errorf("%+v, want node-0001 alone", e)
		}
	})
}

func TestListInPages(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		names := b.nodes(t, 2*PageSize+1)
		for _, o := range []ListOptions{{}, {AnyVersion: true}} {
			if got, _ := c.listed(t, o); !slices.Equal(slices.Sorted(maps.Keys(got)), names) {
				t.Fatalf("%+v: %d nodes, want %d", o, len(got), len(names))
			}
		}
		pages, firsts, forgotten := 0, 0, false
		var versions []int64
		version, err := c.List(t.Context(), Nodes, ListOptions{}, func(p Page) error {
			if pages++; p.First {
				firsts++
				versions = append(versions, p.Version)
			}
			if !forgotten { // between two pages
				forgotten = true
				must[kubetest.Object](t)(b.admin.Annotate(t.Context(), names[0], map[string]any{kept: "new"}))
				b.compact(t)
			}
			return nil
		})
		if err != nil || version != versions[len(versions)-1] || firsts > 2 || pages < 3 {
			t.Errorf("%d pages, %d lists, version %d of %v, %v", pages, firsts, version, versions, err)
		}
		t.Logf("%d lists", firsts)
		boom := errors.New("boom")
		if _, err := c.List(t.Context(), Nodes, ListOptions{}, func(Page) error { return boom }); err != boom {
			t.Errorf("the error of the callee is returned as %v", err)
		}
	})
}

func TestBehind(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		_, version := c.listed(t, ListOptions{})
		_, err := c.List(t.Context(), Nodes, ListOptions{NotOlderThan: version + 1_000_000}, func(Page) error { return nil })
		if !errors.Is(err, ErrBehind) {
			t.Errorf("a list of the future: %v", err)
		}
		err = c.Watch(t.Context(), Nodes, WatchOptions{From: version + 1_000_000, Initial: true}, func(Event) error { return nil })
		if !errors.Is(err, ErrBehind) {
			t.Errorf("a streamed list of the future: %v", err)
		}
	})
}

// watching is a watch that runs.
type watching struct {
	t      *testing.T
	events chan Event
	stop   context.CancelFunc
	ended  chan error
}

func (c *Client) watching(t *testing.T, o WatchOptions) *watching {
	ctx, stop := context.WithCancel(t.Context())
	w := &watching{t: t, events: make(chan Event), stop: stop, ended: make(chan error, 1)}
	go func() {
		w.ended <- c.Watch(ctx, Nodes, o, func(e Event) error {
			select {
			case w.events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		close(w.ended)
	}()
	t.Cleanup(func() {
		stop()
		for range w.ended {
		}
	})
	return w
}

// next returns the next event that is no bookmark.
func (w *watching) next() Event {
	w.t.Helper()
	late := time.After(patience)
	for {
		select {
		case e := <-w.events:
			if e.Type != Bookmark {
				return e
			}
		case err := <-w.ended:
			w.t.Fatalf("the watch has ended: %v", err)
		case <-late:
			w.t.Fatal("no event")
		}
	}
}

// end returns why the watch has ended.
func (w *watching) end() error {
	w.t.Helper()
	late := time.After(patience)
	for {
		select {
		case <-w.events:
		case err := <-w.ended:
			return err
		case <-late:
			w.t.Fatal("the watch does not end")
		}
	}
}

func TestWatch(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		b.nodes(t, 2)
		_, from := c.listed(t, ListOptions{})
		w := c.watching(t, WatchOptions{From: from})
		changed := must[kubetest.Object](t)(b.admin.Annotate(t.Context(), "node-0001", map[string]any{kept: "changed"}))
		if e := w.next(); e.Type != Modified || e.Object.Name != "node-0001" || e.Object.Annotations[kept] != "changed" ||
			fmt.Sprint(e.Version) != changed.Metadata.ResourceVersion || e.Version <= from {
			t.Errorf("%+v, want that node-0001 is modified", e)
		}
		must[kubetest.Object](t)(b.admin.CreateNode(t.Context(), kubetest.Node{Name: "new"}))
		if e := w.next(); e.Type != Added || e.Object.Name != "new" || len(e.Object.Annotations) != 0 {
			t.Errorf("%+v, want that new is added", e)
		}
		if err := b.admin.DeleteNode(t.Context(), "node-0001"); err != nil {
			t.Fatal(err)
		}
		e := w.next()
		if _, version := c.listed(t, ListOptions{}); e.Type != Deleted || e.Object.Name != "node-0001" || e.Version > version ||
			e.Object.Annotations[kept] != "changed" || fmt.Sprint(e.Version) <= changed.Metadata.ResourceVersion {
			t.Errorf("%+v, want that node-0001 is deleted", e)
		}
		again := c.watching(t, WatchOptions{From: e.Version})
		must[kubetest.Object](t)(b.admin.Annotate(t.Context(), "new", map[string]any{kept: "1"}))
		for _, w := range []*watching{w, again} {
			if e := w.next(); e.Type != Modified || e.Object.Name != "new" {
				t.Errorf("%+v, want that new is modified", e)
			}
		}
		w.stop()
		if err := w.end(); !errors.Is(err, context.Canceled) {
			t.Errorf("a watch that was cancelled: %v", err)
		}
		if h := c.Health(); len(h.Failed) > 0 || h.Requests["WATCH"] != 2 || h.Answers < 6 || h.Received == 0 || h.Sent == 0 ||
			!strings.HasPrefix(h.Endpoint, "127.0.0.1:") || h.Latency <= 0 || h.Latency > patience || h.LastContact.IsZero() {
			t.Errorf("health %+v", h)
		}
	})
}

func TestWatchEndsInTime(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		b.options.watchFor = func() time.Duration { return time.Second }
		c := open(t, b.options)
		_, from := c.listed(t, ListOptions{})
		if err := c.watching(t, WatchOptions{From: from}).end(); err != ErrEnded {
			t.Errorf("%v, want %v", err, ErrEnded)
		}
		if h := c.Health(); len(h.Failed) > 0 {
			t.Errorf("failed %v", h.Failed)
		}
	})
}

func TestWatchExpired(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		_, from := c.listed(t, ListOptions{})
		b.nodes(t, 2)
		b.forget(t)
		if err := c.watching(t, WatchOptions{From: from}).end(); !errors.Is(err, ErrExpired) {
			t.Errorf("%v, want %v", err, ErrExpired)
		}
	})
}

func TestStreamedList(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		names := b.nodes(t, 3)
		_, version := c.listed(t, ListOptions{})
		for _, from := range []int64{0, version} {
			w := c.watching(t, WatchOptions{Initial: true, From: from})
			got := map[string]bool{}
			var e Event
			for e = w.next(); e.Type == Added; e = w.next() {
				got[e.Object.Name] = true
			}
			if e.Type != InitialEnd || e.Version < version || !slices.Equal(slices.Sorted(maps.Keys(got)), names) {
				t.Fatalf("%v, then %+v, want %v and their end", got, e, names)
			}
			must[kubetest.Object](t)(b.admin.Annotate(t.Context(), names[0], map[string]any{kept: fmt.Sprint(from)}))
			if e := w.next(); e.Type != Modified || e.Object.Name != names[0] {
				t.Errorf("%+v, want that %s is modified", e, names[0])
			}
		}
	})
}

// TestRegressed: after its etcd was restored from a backup, a server has an older version. A watch does not find that
// out: it stays silent until the server has reached the version from which it was to begin.
func TestRegressed(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		b.nodes(t, 1)
		b.backup(t)
		for i := range 20 {
			must[kubetest.Object](t)(b.admin.Annotate(t.Context(), "node-0000", map[string]any{kept: fmt.Sprint(i)}))
		}
		_, version := c.listed(t, ListOptions{})
		b.restore(t)
		got, older := c.listed(t, ListOptions{})
		for _, o := range []ListOptions{{NotOlderThan: version}, {Exactly: version}} {
			if _, err := c.List(t.Context(), Nodes, o, func(Page) error { return nil }); !errors.Is(err, ErrBehind) {
				t.Errorf("%+v: %v", o, err)
			}
		}
		if older >= version || got["node-0000"].Annotations[kept] != "172.31.0.0" {
			t.Errorf("version %d after %d, %+v", older, version, got)
		}
		w := c.watching(t, WatchOptions{From: version})
		var last kubetest.Object
		for i := 0; fmt.Sprint(version) > last.Metadata.ResourceVersion || len(fmt.Sprint(version)) > len(last.Metadata.ResourceVersion); i++ {
			last = must[kubetest.Object](t)(b.admin.Annotate(t.Context(), "node-0000", map[string]any{kept: fmt.Sprint("again ", i)}))
		}
		must[kubetest.Object](t)(b.admin.Annotate(t.Context(), "node-0000", map[string]any{kept: "beyond"}))
		if e := w.next(); e.Version <= version {
			t.Errorf("%+v at %d, want what is after %d", e.Object.Annotations, e.Version, version)
		}
	})
}

func TestNode(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		at := time.Now().UTC().Truncate(time.Second)
		created := must[kubetest.Object](t)(b.admin.CreateNode(t.Context(), kubetest.Node{
			Name: "a", PodCIDRs: []string{"10.5.1.0/24", "fd00:5:1::/64"}, Images: 50, Annotations: map[string]string{kept: "172.31.0.1"},
			Addresses: []kubetest.Address{{Type: "InternalIP", Address: "172.31.0.1"}, {Type: "Hostname", Address: "a"}},
			Conditions: []kubetest.Condition{
				{Type: "Ready", Status: "True", Reason: "KubeletReady", LastHeartbeatTime: at, LastTransitionTime: at},
				{Type: NetworkUnavailable, Status: "True", Reason: "NoRouteCreated", Message: "no route", LastHeartbeatTime: at, LastTransitionTime: at},
			},
		}))
		must[kubetest.Object](t)(b.admin.CreateNode(t.Context(), kubetest.Node{Name: "bare"}))
		n := must[Node](t)(c.Node(t.Context(), "a"))
		if fmt.Sprint(n.Version) != created.Metadata.ResourceVersion || n.UID != created.Metadata.UID || n.Annotations[kept] != "172.31.0.1" {
			t.Errorf("%+v, want %+v", n, created.Metadata)
		}
		if !slices.Equal(n.PodCIDRs, []string{"10.5.1.0/24", "fd00:5:1::/64"}) {
			t.Errorf("podCIDRs %v", n.PodCIDRs)
		}
		if !slices.Equal(n.Addresses, []NodeAddress{{"InternalIP", "172.31.0.1"}, {"Hostname", "a"}}) {
			t.Errorf("addresses %v", n.Addresses)
		}
		if want := (Condition{"True", "NoRouteCreated", "no route", at, at}); n.NetworkUnavailable == nil || *n.NetworkUnavailable != want {
			t.Errorf("condition %+v, want %+v", n.NetworkUnavailable, want)
		}
		if bare := must[Node](t)(c.Node(t.Context(), "bare")); len(bare.PodCIDRs) != 0 || bare.NetworkUnavailable != nil || bare.Version == 0 {
			t.Errorf("%+v, want a bare Node", bare)
		}
		if _, err := c.Node(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a Node that does not exist: %v", err)
		}
		all := map[string]Node{}
		version, err := c.Nodes(t.Context(), ListOptions{}, func(p PageOf[Node]) error {
			for _, n := range p.Objects {
				all[n.Name] = n
			}
			return nil
		})
		if err != nil || version < n.Version || len(all) != 2 || fmt.Sprint(all["a"].PodCIDRs) != fmt.Sprint(n.PodCIDRs) {
			t.Errorf("%+v at %d, %v", all, version, err)
		}
	})
}

func TestPatchNodeStatus(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		b.nodes(t, 1)
		const name = "node-0000"
		before := must[Node](t)(c.Node(t.Context(), name))
		patch := func(text string) (Node, error) { return c.PatchNodeStatus(t.Context(), name, []byte(text)) }
		n := must[Node](t)(patch(`{"metadata":{"annotations":{"` + kept + `":"172.31.9.9"}},"spec":{"podCIDR":"10.5.7.0/24"}}`))
		if n.Annotations[kept] != "172.31.9.9" || n.PodCIDRs[0] != "10.5.0.0/24" || n.Version <= before.Version {
			t.Errorf("%+v, want the annotation changed, and not the podCIDR", n)
		}
		if again := must[Node](t)(patch(`{"metadata":{"annotations":{"` + kept + `":"172.31.9.9"}}}`)); again.Version != n.Version {
			t.Errorf("a patch that changes nothing makes version %d of %d", again.Version, n.Version)
		}
		seen := must[kubetest.Object](t)(b.admin.Node(t.Context(), name))
		if len(seen.Metadata.Annotations[other]) != 300 || seen.Metadata.Annotations[kept] != "172.31.9.9" {
			t.Errorf("annotations %v, want the others untouched", seen.Metadata.Annotations)
		}
		condition := `{"status":{"conditions":[{"type":"NetworkUnavailable","status":"%s","reason":"SelvageIsUp","message":"m",` +
			`"lastHeartbeatTime":"2026-11-29T07:00:00Z","lastTransitionTime":"2026-11-29T07:00:00Z"}]}}`
		must[kubetest.Object](t)(b.admin.PatchNode(t.Context(), name, "status", map[string]any{"status": map[string]any{
			"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}}))
		n = must[Node](t)(patch(fmt.Sprintf(condition, "False")))
		want := Condition{"False", "SelvageIsUp", "m", time.Unix(1795935600, 0).UTC(), time.Unix(1795935600, 0).UTC()}
		if n.NetworkUnavailable == nil || *n.NetworkUnavailable != want {
			t.Errorf("condition %+v, want %+v", n.NetworkUnavailable, want)
		}
		if seen := must[kubetest.Object](t)(b.admin.Node(t.Context(), name)); len(seen.Status.Conditions) != 2 {
			t.Errorf("conditions %+v, want two", seen.Status.Conditions)
		}
		n = must[Node](t)(patch(`{"metadata":{"annotations":{"` + kept + `":null}}}`))
		if len(n.Annotations) != 0 {
			t.Errorf("annotations %v, want none", n.Annotations)
		}
		if _, err := patch(fmt.Sprintf(`{"metadata":{"resourceVersion":"%d","annotations":{"`+kept+`":"x"}}}`, before.Version)); !errors.Is(err, ErrConflict) {
			t.Errorf("a patch of an older version: %v", err)
		}
		if _, err := patch(`{"metadata":{"uid":"00000000-0000-4000-8000-000000000000","annotations":{"` + kept + `":"x"}}}`); !errors.Is(err, ErrInvalid) {
			t.Errorf("a patch of another object of that name: %v", err)
		}
		if _, err := c.PatchNodeStatus(t.Context(), "nobody", []byte("{}")); !errors.Is(err, ErrNotFound) {
			t.Errorf("a patch of a Node that does not exist: %v", err)
		}
		if h := c.Health(); h.Requests["PATCH"] != 7 || h.Failed["PATCH"] != 3 || h.Requests["GET"] != 1 {
			t.Errorf("health %+v", h)
		}
	})
}

func TestPodNode(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		var pod map[string]any
		if err := json.Unmarshal([]byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"default"},
			"spec":{"nodeName":"node-7","automountServiceAccountToken":false,"containers":[{"name":"c","image":"i"}]}}`), &pod); err != nil {
			t.Fatal(err)
		}
		must[kubetest.Object](t)(b.admin.Create(t.Context(), "/api/v1/namespaces/default/pods", pod))
		if name, err := c.PodNode(t.Context(), "default", "p"); name != "node-7" || err != nil {
			t.Errorf("the pod's node is %q, %v", name, err)
		}
		if _, err := c.PodNode(t.Context(), "default", "q"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a pod that does not exist: %v", err)
		}
	})
}

func TestAllowedAndVersion(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		for _, right := range []Right{
			{Verb: "list", Resource: Nodes}, {Verb: "patch", Resource: Nodes, Subresource: "status", Object: "node-0000"},
			{Verb: "watch", Resource: Resource{Group: "networking.k8s.io", Version: "v1", Name: "networkpolicies"}},
		} {
			if ok, why, err := c.Allowed(t.Context(), right); !ok || err != nil {
				t.Errorf("%s: %t, %q, %v", right, ok, why, err)
			}
		}
		if v, err := c.Version(t.Context()); err != nil || !strings.HasPrefix(v, "v1.") {
			t.Errorf("version %q, %v", v, err)
		}
		e := c.Examine(t.Context())
		if e.Problem.Err != nil || !strings.HasPrefix(e.Version, "v1.") || e.Latency <= 0 || e.CertificateEnds.Before(time.Now()) ||
			e.ClockAhead == nil || e.ClockAhead.Abs() > time.Minute || !strings.HasPrefix(e.URL, "https://127.0.0.1:") {
			t.Errorf("%+v", e)
		}
		if all := c.Addresses(); len(all) != 1 || all[0].String() != "127.0.0.1" {
			t.Errorf("addresses %v", all)
		}
	})
}
