package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// followed is a [Follower] that keeps a text of each object.
type followed[T any] struct {
	t    *testing.T
	show func(T) (Key, string)
	end  func()

	first func() // called before the first Synced returns; nil: nothing is

	mu      sync.Mutex
	objects map[Key]string
	synced  map[Key]string // as of the last Synced
	count   int            // of Synced
	deleted []string       // UIDs
}

func (f *followed[T]) Put(o T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k, text := f.show(o)
	f.objects[k] = text
}

func (f *followed[T]) Delete(k Key, uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.objects, k)
	f.deleted = append(f.deleted, uid)
}

func (f *followed[T]) Synced(count int) {
	if first := f.first; first != nil {
		f.first = nil
		first()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if count != len(f.objects) {
		f.t.Errorf("%d objects are reported, and %d are known", count, len(f.objects))
	}
	f.synced = maps.Clone(f.objects)
	f.count++
}

// follow follows objects until the test ends.
func follow[T any](t *testing.T, r Reader[T], o FollowOptions, show func(T) (Key, string)) *followed[T] {
	f := &followed[T]{t: t, show: show, objects: map[Key]string{}}
	f.run(r, o)
	return f
}

// run follows objects until the test ends, or until end is called.
func (f *followed[T]) run(r Reader[T], o FollowOptions) {
	t := f.t
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Follow(ctx, o, f) }()
	f.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Follow returned %v", err)
		}
	})
	t.Cleanup(f.end)
}

func (f *followed[T]) syncs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// is waits until what is there, after a Synced, is what is wanted.
func (f *followed[T]) is(t *testing.T, want map[Key]string) {
	t.Helper()
	testctx.Eventually(t, func() string {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.count == 0 || !maps.Equal(f.synced, want) {
			return fmt.Sprintf("%v, want %v", f.synced, want)
		}
		return ""
	})
}

// object is one in JSON.
func object(kind, apiVersion, name string, more map[string]any) map[string]any {
	o := map[string]any{"kind": kind, "apiVersion": apiVersion, "metadata": map[string]any{"name": name}}
	maps.Copy(o, more)
	return o
}

// TestFollowPods: what is decoded of a Pod, and that those of one Node can be followed alone.
func TestFollowPods(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		const path = "/api/v1/namespaces/default/pods"
		show := func(p Pod) (Key, string) {
			if p.Bad != nil {
				t.Error(p.Bad)
			}
			text := fmt.Sprint(p.NodeName, p.HostNetwork, p.Labels, p.Ports)
			if p.Phase != "Pending" {
				text = fmt.Sprint(p.Phase, p.Addresses, p.Started.Unix())
			}
			return Key{p.Namespace, p.Name}, text
		}
		all := follow(t, c.Pods(), FollowOptions{}, show)
		own := follow(t, c.Pods(), FollowOptions{Fields: "spec.nodeName=one"}, show)
		all.is(t, map[Key]string{})
		own.is(t, map[Key]string{})
		others := follow(t, c.Pods(), FollowOptions{Fields: "spec.nodeName!=one,spec.nodeName!=,status.phase!=Running"}, show)
		pod := func(name, node string, host bool) {
			t.Helper()
			containers := func(name, restart string, ports ...map[string]any) []any {
				f := map[string]any{"name": name, "image": "x", "ports": ports}
				if restart != "" {
					f["restartPolicy"] = restart
				}
				return []any{f}
			}
			spec := map[string]any{
				"nodeName": node, "hostNetwork": host, "automountServiceAccountToken": false,
				"containers": containers("c", "",
					map[string]any{"name": "web", "containerPort": 80, "hostPort": 80, "protocol": "TCP"},
					map[string]any{"containerPort": 81, "hostPort": 81, "protocol": "TCP"}),
				"initContainers": append(containers("side", "Always", map[string]any{"name": "dns", "containerPort": 53, "hostPort": 53,
					"protocol": "UDP"}), containers("once", "", map[string]any{"name": "no", "containerPort": 1, "hostPort": 1})...),
			}
			o := object("Pod", "v1", name, map[string]any{"spec": spec, "status": map[string]any{"phase": "Pending"}})
			o["metadata"].(map[string]any)["labels"] = map[string]any{"app": name, "tier": ""}
			must[kubetest.Object](t)(b.admin.Create(t.Context(), path, o))
		}
		pod("a", "one", false)
		pod("b", "two", true)
		text := func(name, node string, host bool) string {
			return fmt.Sprint(node, host, map[string]string{"app": name, "tier": ""}, []PodPort{{"web", 80, "TCP"}, {"dns", 53, "UDP"}})
		}
		a, two := Key{"default", "a"}, Key{"default", "b"}
		all.is(t, map[Key]string{a: text("a", "one", false), two: text("b", "two", true)})
		own.is(t, map[Key]string{a: text("a", "one", false)})
		others.is(t, map[Key]string{two: text("b", "two", true)})
		must[kubetest.Object](t)(b.admin.Patch(t.Context(), path+"/a/status", map[string]any{"status": map[string]any{
			"phase": "Running", "podIP": "10.5.1.2", "podIPs": []any{map[string]any{"ip": "10.5.1.2"}, map[string]any{"ip": "fd00::2"}},
			"startTime": "2026-01-02T03:04:05Z",
		}}))
		own.is(t, map[Key]string{a: "Running[10.5.1.2 fd00::2] 1767323045"})
		must[kubetest.Object](t)(b.admin.Patch(t.Context(), path+"/b/status", map[string]any{"status": map[string]any{
			"phase": "Running",
		}}))
		others.is(t, map[Key]string{})
		if err := b.admin.DeleteAll(t.Context(), path+"?gracePeriodSeconds=0"); err != nil {
			t.Fatal(err)
		}
		all.is(t, map[Key]string{})
		own.is(t, map[Key]string{})
	})
}

// TestFollowRaw: objects in JSON, through a fault, a forgotten history and a restored backup.
func TestFollowRaw(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		c := open(t, b.options)
		policies := Resource{Group: "networking.k8s.io", Version: "v1", Name: "networkpolicies"}
		const path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
		if err := b.admin.DeleteAll(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		f := follow(t, c.Raw(policies), FollowOptions{}, func(o Raw) (Key, string) {
			text := "closed"
			if strings.Contains(string(o.JSON), "10.0.0.0/8") {
				text = "open"
			}
			if o.Bad != nil || o.UID == "" || o.Version == 0 || o.Created.IsZero() {
				t.Errorf("%+v", o.Object)
			}
			return Key{o.Namespace, o.Name}, text
		})
		f.is(t, map[Key]string{})
		policy := func(name, cidr string) {
			t.Helper()
			spec := map[string]any{"podSelector": map[string]any{}, "policyTypes": []string{"Ingress"}}
			if cidr != "" {
				spec["ingress"] = []any{map[string]any{"from": []any{map[string]any{"ipBlock": map[string]any{"cidr": cidr}}}}}
			}
			must[kubetest.Object](t)(b.admin.Create(t.Context(), path, object("NetworkPolicy", "networking.k8s.io/v1", name,
				map[string]any{"spec": spec})))
		}
		policy("a", "")
		policy("b", "10.0.0.0/8")
		want := map[Key]string{{"default", "a"}: "closed", {"default", "b"}: "open"}
		f.is(t, want)
		b.backup(t)
		policy("c", "")
		if err := b.admin.DeleteAll(t.Context(), path+"/a"); err != nil {
			t.Fatal(err)
		}
		f.is(t, map[Key]string{{"default", "b"}: "open", {"default", "c"}: "closed"})
		b.restore(t)
		f.is(t, want)
		b.forget(t)
		policy("d", "")
		want[Key{"default", "d"}] = "closed"
		f.is(t, want)
	})
}

// TestFollowMany: of many objects, the list is not read again after a fault if the history is known, and it is after a
// restore. Nothing is deleted before a list is complete.
func TestFollowMany(t *testing.T) {
	for _, streams := range []bool{true, false} {
		t.Run(fmt.Sprint("streaming lists ", streams), func(t *testing.T) {
			t.Parallel()
			s := standIn(t, kubetest.Options{NoStreamingLists: !streams})
			admin := s.Admin()
			transport := &http.Transport{DisableKeepAlives: true} // the server is restarted
			admin.Client = &http.Client{Transport: transport}
			want := map[Key]string{}
			for i := range followFew + 10 {
				name := fmt.Sprintf("ns-%04d", i)
				o := object("Namespace", "v1", name, nil)
				o["metadata"].(map[string]any)["labels"] = map[string]any{"kubernetes.io/metadata.name": name}
				must[kubetest.Object](t)(admin.Create(t.Context(), "/api/v1/namespaces", o))
				want[Key{Name: name}] = name
			}
			c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir()})
			f := follow(t, c.Labelled(Namespaces), FollowOptions{}, func(o Object) (Key, string) {
				return Key{o.Namespace, o.Name}, o.Labels["kubernetes.io/metadata.name"]
			})
			f.is(t, want)
			saved := s.Backup()
			change := func(name string) {
				t.Helper()
				must[kubetest.Object](t)(admin.Create(t.Context(), "/api/v1/namespaces", object("Namespace", "v1", name, nil)))
			}
			change("late")
			want[Key{Name: "late"}] = ""
			f.is(t, want)
			change("gone") // a deletion leaves nothing to ask for, so another object is
			if err := admin.DeleteAll(t.Context(), "/api/v1/namespaces/gone"); err != nil {
				t.Fatal(err)
			}
			testctx.Eventually(t, func() string {
				f.mu.Lock()
				defer f.mu.Unlock()
				if len(f.deleted) != 1 {
					return "a deletion"
				}
				return ""
			})
			s.Requests()
			s.Stop()
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			change("later")
			want[Key{Name: "later"}] = ""
			f.is(t, want)
			for _, r := range s.Requests() {
				if r.Query.Get("sendInitialEvents") != "" || r.Verb == "LIST" && r.Query.Get("fieldSelector") == "" {
					t.Errorf("all objects were listed again: %s %v", r.Verb, r.Query)
				}
			}
			s.Stop()
			s.Restore(saved)
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			delete(want, Key{Name: "late"})
			delete(want, Key{Name: "later"})
			f.is(t, want)
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.deleted) != 3 {
				t.Errorf("the deletions of %v were reported, want 3", f.deleted)
			}
		})
	}
}

// TestFollowReplaced: an object that has another one's name by now is another object.
func TestFollowReplaced(t *testing.T) {
	s := standIn(t, kubetest.Options{})
	admin := s.Admin()
	admin.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // the server is restarted
	create := func() kubetest.Object {
		t.Helper()
		return must[kubetest.Object](t)(admin.Create(t.Context(), "/api/v1/namespaces", object("Namespace", "v1", "a", nil)))
	}
	before := create()
	saved := s.Backup()
	if err := admin.DeleteAll(t.Context(), "/api/v1/namespaces"); err != nil {
		t.Fatal(err)
	}
	after := create()
	c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir()})
	f := follow(t, c.Labelled(Namespaces), FollowOptions{}, func(o Object) (Key, string) { return Key{o.Namespace, o.Name}, o.UID })
	f.is(t, map[Key]string{{Name: "a"}: after.Metadata.UID})
	s.Stop()
	s.Restore(saved)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	f.is(t, map[Key]string{{Name: "a"}: before.Metadata.UID})
	if !slices.Equal(f.deleted, []string{after.Metadata.UID}) {
		t.Errorf("deleted: %v, want %s", f.deleted, after.Metadata.UID)
	}
}

// TestFollowBetween: a store that is restored from a backup between a list and the watch after it is noticed.
func TestFollowBetween(t *testing.T) {
	for _, names := range [][]string{nil, {"a"}} {
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			t.Parallel()
			s := standIn(t, kubetest.Options{NoStreamingLists: true})
			admin := s.Admin()
			admin.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // the server is restarted
			const path = "/api/v1/namespaces"
			create := func(name string) {
				t.Helper()
				must[kubetest.Object](t)(admin.Create(t.Context(), path, object("Namespace", "v1", name, nil)))
			}
			want := map[Key]string{}
			for _, name := range names {
				create(name)
				want[Key{Name: name}] = ""
			}
			saved := s.Backup()
			for range 5 {
				create("gone")
				if err := admin.DeleteAll(t.Context(), path+"/gone"); err != nil {
					t.Fatal(err)
				}
			}
			c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir()})
			f := followed[Object]{t: t, show: func(o Object) (Key, string) { return Key{o.Namespace, o.Name}, "" }, objects: map[Key]string{}}
			f.first = func() {
				s.Stop()
				s.Restore(saved)
				if err := s.Start(); err != nil {
					t.Error(err)
				}
			}
			f.run(c.Labelled(Namespaces), FollowOptions{})
			testctx.Eventually(t, func() string {
				if f.syncs() < 1 {
					return "no list"
				}
				return ""
			})
			create("late")
			want[Key{Name: "late"}] = ""
			f.is(t, want)
		})
	}
}

// TestFollowAbsent: a resource that the server does not have has no objects, until it has it. With Withdraw, nothing is
// left at the end.
func TestFollowAbsent(t *testing.T) {
	const resource = "clusternetworkpolicies"
	s := standIn(t, kubetest.Options{})
	s.Lack(resource)
	c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir()})
	r := Resource{Group: "policy.networking.k8s.io", Version: "v1beta1", Name: resource}
	f := follow(t, c.Raw(r), FollowOptions{Absent: time.Millisecond, Withdraw: true}, func(o Raw) (Key, string) {
		return Key{o.Namespace, o.Name}, ""
	})
	f.is(t, map[Key]string{})
	s.Lack()
	create := func(name string) {
		t.Helper()
		must[kubetest.Object](t)(s.Admin().Create(t.Context(), r.path(), object("ClusterNetworkPolicy", "v1", name, nil)))
	}
	create("a")
	f.is(t, map[Key]string{{Name: "a"}: ""})
	s.Lack(resource)
	s.EndWatches()
	f.is(t, map[Key]string{})
	s.Lack()
	create("b")
	f.is(t, map[Key]string{{Name: "a"}: "", {Name: "b"}: ""})
	f.end()
	if len(f.synced) != 0 {
		t.Errorf("%v is left", f.synced)
	}
}

// TestFollowSilent: a watch that says nothing any more is replaced.
func TestFollowSilent(t *testing.T) {
	s := standIn(t, kubetest.Options{Bookmarks: patience})
	c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir(), quiet: time.Millisecond})
	follow(t, c.Labelled(Namespaces), FollowOptions{}, func(o Object) (Key, string) { return Key{}, "" })
	watches := 0
	testctx.Eventually(t, func() string {
		for _, r := range s.Requests() { // since the last call
			if r.Verb == "WATCH" {
				watches++
			}
		}
		if watches < 2 {
			return "a second watch"
		}
		return ""
	})
}

// TestJSONMalformed: what is no list, and what is too large, is an error and not more.
func TestJSONMalformed(t *testing.T) {
	t.Parallel()
	read := func(text string) (names []string, version int64, err error) {
		err = jsonCodec{}.list(strings.NewReader(text), "", func(m listMeta) error { version = m.version; return nil },
			func(m message) error {
				o := newDecoder(nil).raw(m)
				names = append(names, o.Name)
				return o.Bad
			})
		return names, version, err
	}
	if names, version, err := read(`{"kind":"XList","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a","resourceVersion":"3"}}]}`); err != nil ||
		version != 7 || !slices.Equal(names, []string{"a"}) {
		t.Errorf("%v at %d, %v", names, version, err)
	}
	if names, version, err := read(`{"items":[{"metadata":{"name":"a","resourceVersion":"3"}}],"metadata":{"resourceVersion":"7"}}`); err != nil ||
		version != 7 || !slices.Equal(names, []string{"a"}) {
		t.Errorf("of a custom resource: %v at %d, %v", names, version, err)
	}
	if names, version, err := read(`{"metadata":{"resourceVersion":"7"},"items":null}`); err != nil || version != 7 || names != nil {
		t.Errorf("without items: %v at %d, %v", names, version, err)
	}
	for _, text := range []string{"", "null", "[]", "{", `{"metadata":{"resourceVersion":"x"}}`, `{"items":[{"metadata":{"name":"a"}}`,
		`{"items":[{}]}`, `{"items":{}}`, `{"items":[{"metadata":{"name":"a","labels":3}}]}`,
		`{"x":"` + strings.Repeat("x", MaxObject+1<<20) + `"}`} {
		if _, _, err := read(text); err == nil {
			t.Errorf("%.40s is accepted", text)
		}
	}
}

// FuzzJSON: no answer in JSON makes the decoder panic.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a","labels":{"a":"b"}}}]}`))
	f.Add([]byte(`{"type":"ADDED","object":{"metadata":{"name":"a"}}}{"type":"ERROR","object":{"code":410}}`))
	d := newDecoder([]string{kept}).labelled()
	f.Fuzz(func(t *testing.T, body []byte) {
		_ = jsonCodec{}.list(strings.NewReader(string(body)), "", func(listMeta) error { return nil }, func(m message) error {
			if o := d.raw(m); len(o.Name) > maxName || len(o.Labels) > maxLabels || o.Version < 0 || o.Name == "" && o.Bad == nil {
				t.Errorf("%+v", o)
			}
			return nil
		})
		for next := (jsonCodec{}).frames(strings.NewReader(string(body))); ; {
			_, m, err := next()
			if err != nil {
				return
			}
			_ = jsonCodec{}.status(m)
			_ = d.raw(m)
		}
	})
}
