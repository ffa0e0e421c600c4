package kubetest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s := New(o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func node(t *testing.T, s *Server, n Node) Object {
	t.Helper()
	o, err := s.Admin().CreateNode(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// get sends a request, as a client without credentials, and returns its answer.
func get(t *testing.T, s *Server, path string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

// names reads a list of Nodes in JSON.
func names(t *testing.T, s *Server, query string) (list []string, next string) {
	t.Helper()
	var l struct {
		Kind     string
		Metadata struct{ Continue, ResourceVersion string }
		Items    []Object
	}
	answer := get(t, s, "/api/v1/nodes"+query)
	if err := json.NewDecoder(answer.Body).Decode(&l); err != nil || l.Kind != "NodeList" || l.Metadata.ResourceVersion == "" {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, o := range l.Items {
		list = append(list, o.Metadata.Name)
	}
	return list, l.Metadata.Continue
}

// TestJSON: lists, pages and watches in JSON, as kubectl and flannel read them.
func TestJSON(t *testing.T) {
	s := start(t, Options{})
	for _, name := range []string{"a", "b", "c"} {
		node(t, s, Node{Name: name, PodCIDRs: []string{"10.5.0.0/24", "fd00::/64"}})
	}
	if all, next := names(t, s, ""); fmt.Sprint(all) != "[a b c]" || next != "" {
		t.Errorf("%v, %q", all, next)
	}
	first, next := names(t, s, "?limit=2")
	if err := s.Admin().DeleteNode(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	second, end := names(t, s, "?limit=2&continue="+next)
	if fmt.Sprint(first, second) != "[a b] [c]" || next == "" || end != "" { // at the version of the first page
		t.Errorf("%v, %v, %q", first, second, end)
	}
	watch := get(t, s, "/api/v1/nodes?watch=true&resourceVersion="+fmt.Sprint(s.Version()))
	o, err := s.Admin().PatchNode(t.Context(), "a", "", map[string]any{"metadata": map[string]any{"labels": map[string]any{"x": "y"}}})
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(watch.Body).ReadBytes('\n')
	var e struct {
		Type   string
		Object Object
	}
	if err != nil || json.Unmarshal(line, &e) != nil || e.Type != "MODIFIED" || e.Object.Metadata.ResourceVersion != o.Metadata.ResourceVersion ||
		fmt.Sprint(e.Object.Spec) != "{10.5.0.0/24 [10.5.0.0/24 fd00::/64]}" {
		t.Errorf("%s, %v", line, err)
	}
}

// TestPodCIDRs: they are set once.
func TestPodCIDRs(t *testing.T) {
	s := start(t, Options{})
	node(t, s, Node{Name: "a"})
	set := func(cidr string) error {
		_, err := s.Admin().PatchNode(t.Context(), "a", "", map[string]any{"spec": map[string]any{"podCIDR": cidr, "podCIDRs": []string{cidr}}})
		return err
	}
	if err := set("10.5.0.0/24"); err != nil {
		t.Fatal(err)
	}
	if err := set("10.5.1.0/24"); err == nil || !strings.Contains(err.Error(), "422") {
		t.Errorf("a podCIDR was changed: %v", err)
	}
	if _, err := s.Admin().CreateNode(t.Context(), Node{Name: "a"}); err == nil || !strings.Contains(err.Error(), "AlreadyExists") {
		t.Errorf("a Node was created twice: %v", err)
	}
	if _, err := s.Admin().Annotate(t.Context(), "a", map[string]any{"x": strings.Repeat("x", maxAnnotations)}); err == nil || !strings.Contains(err.Error(), "Too long") {
		t.Errorf("an annotation without bounds: %v", err)
	}
}

// TestFreeze: a cache that does not follow.
func TestFreeze(t *testing.T) {
	s := start(t, Options{})
	node(t, s, Node{Name: "a"})
	s.Freeze(true)
	node(t, s, Node{Name: "b"})
	old, _ := names(t, s, "?resourceVersion=0")
	now, _ := names(t, s, "")
	if fmt.Sprint(old, now) != "[a] [a b]" {
		t.Errorf("from the cache %v, from the store %v", old, now)
	}
	if answer := get(t, s, fmt.Sprintf("/api/v1/nodes?resourceVersionMatch=NotOlderThan&resourceVersion=%d", s.Version())); answer.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("not older than the store: %s", answer.Status)
	}
	s.Freeze(false)
	if again, _ := names(t, s, "?resourceVersion=0"); fmt.Sprint(again) != "[a b]" {
		t.Errorf("from the cache %v", again)
	}
}

// TestWipe: the store and what its answers name of it.
func TestWipe(t *testing.T) {
	s := start(t, Options{})
	node(t, s, Node{Name: "a"})
	const header = "X-Kubernetes-Pf-Flowschema-Uid"
	before := get(t, s, "/api/v1/nodes").Header.Get(header)
	saved := s.Backup()
	s.Stop()
	s.Wipe()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if all, _ := names(t, s, ""); len(all) != 0 || s.Version() != 1 || get(t, s, "/api/v1/nodes").Header.Get(header) == before {
		t.Errorf("after a wipe: %v at %d", all, s.Version())
	}
	s.Restore(saved)
	if all, _ := names(t, s, ""); fmt.Sprint(all) != "[a]" || get(t, s, "/api/v1/nodes").Header.Get(header) != before {
		t.Errorf("after a restore: %v", all)
	}
}
