package kube

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// flannels is what flannel writes on a Node of IPv4.
func flannels(ip string) map[string]any {
	return map[string]any{
		DefaultPrefix + "kube-subnet-manager": "true", DefaultPrefix + "backend-type": "vxlan",
		DefaultPrefix + "backend-data": mac4, DefaultPrefix + "public-ip": ip,
	}
}

// leased adds a Node with a lease as selvage writes it.
func (f *fixture) leased(t *testing.T, name, podCIDR string) subnet.Record {
	t.Helper()
	f.addNode(t, name, podCIDR)
	r, err := f.open(t, name).Claim(t.Context(), nil, wanted(name))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wanted is what a node of IPv4 claims.
func wanted(name string) subnet.Lease {
	l := subnet.Lease{BackendType: "vxlan", InstanceID: "id of " + name, NodeName: name}
	l.Endpoints[subnet.IPv4] = subnet.Endpoint{PublicIP: netip.MustParseAddr("192.0.2.1"), Data: mac4}
	return l
}

// beat has a Node change as its kubelet changes it.
func (f *fixture) beat(t *testing.T, name string) {
	t.Helper()
	now := time.Now()
	_, err := f.admin.PatchNode(t.Context(), name, "status", map[string]any{"status": map[string]any{
		"conditions": []kubetest.Condition{{Type: "Ready", Status: "True", LastHeartbeatTime: now, LastTransitionTime: now,
			Message: now.String()}},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// verbs counts the requests since the last call, by what they are for.
func (f *fixture) verbs() map[string]int {
	count := map[string]int{}
	for _, r := range f.standIn.Requests() {
		what := r.Verb
		switch {
		case r.Query.Get("resourceVersionMatch") == "Exact":
			what += " exact"
		case r.Query.Get("fieldSelector") != "":
			what += " one"
		case r.Query.Get("sendInitialEvents") != "":
			what += " initial"
		case r.Verb == "LIST" && !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata"):
			what += " whole"
		}
		count[what]++
	}
	return count
}

func (f *fixture) expect(t *testing.T, what string, want map[string]int) {
	t.Helper()
	if got := f.verbs(); !maps.Equal(got, want) {
		t.Errorf("%s takes %v, want %v", what, got, want)
	}
}

// TestKubeletsCauseNoEvents: what kubelets write changes no lease. A claim sees its version reached all the same,
// although no revision is reported without a reason.
func TestKubeletsCauseNoEvents(t *testing.T) {
	f := standIn(t, true)
	f.leased(t, "one", "10.244.1.0/24")
	f.leased(t, "two", "10.244.2.0/24")
	f.addNode(t, "three", "10.244.3.0/24")
	s := f.openWith(t, Options{Node: "three", advance: time.Hour})
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	f.verbs()
	for range 20 {
		f.beat(t, "one")
		f.beat(t, "two")
		f.beat(t, "three")
	}
	last, err := f.admin.Node(t.Context(), "three")
	if err != nil {
		t.Fatal(err)
	}
	// While a claim runs, each change of the own Node is reported: it could be the podCIDR that the claim waits for.
	eventually(t, "the last heartbeat to be seen", func() bool {
		return strconv.FormatInt(s.Allocation(), 10) == last.Metadata.ResourceVersion
	})
	r, err := s.Claim(t.Context(), nil, wanted("three"))
	if err != nil {
		t.Fatal(err)
	}
	state := w.Reached(r.Version)
	if len(state.Events) != 3 || state.Changed("three") != 1 { // two of the snapshot
		t.Errorf("the events are %+v", state.Events)
	}
	f.expect(t, "a claim", map[string]int{"GET": 1, "PATCH": 1})
	for range 20 {
		f.beat(t, "one")
		f.beat(t, "three")
	}
	if r, err = s.Claim(t.Context(), nil, wanted("three")); err != nil {
		t.Fatal(err)
	}
	if state = w.Reached(r.Version); state.Changed("three") != 1 {
		t.Errorf("the events are %+v", state.Events)
	}
	f.expect(t, "a claim of what there is", map[string]int{"GET": 1})
}

// TestRequestsAreFew counts what a start takes.
func TestRequestsAreFew(t *testing.T) {
	const n = 1200
	names := func(streaming bool) map[string]int {
		if streaming {
			return map[string]int{"WATCH initial": 1}
		}
		return map[string]int{"WATCH initial": 1, "LIST": 3, "WATCH": 1}
	}
	for _, streaming := range []bool{true, false} {
		f := standIn(t, streaming)
		for i := range n {
			cidr := fmt.Sprintf("10.%d.%d.0/24", 100+i/256, i%256)
			o := f.addNode(t, fmt.Sprintf("node-%04d", i), cidr)
			l := wanted("x")
			l.Endpoints[subnet.IPv4].Subnet = prefix(cidr)
			f.annotate(t, o.Metadata.Name, annotations(t, l, o))
		}
		w := storetest.Watch(t, f.open(t, "one"), nil)
		if got := len(w.Synced(1).Leases); got != n {
			t.Errorf("%d leases", got)
		}
		f.beat(t, "node-0000")
		f.annotate(t, "node-0000", map[string]any{DefaultPrefix + "public-ip": "192.0.2.9"})
		w.Until(func(s storetest.State) string {
			if s.Changed("node-0000") == 0 {
				return "a change"
			}
			return ""
		})
		f.expect(t, fmt.Sprintf("a start with %d Nodes", n), names(streaming))
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestFlannelsNodesAreRead: the specs of flannel's Nodes are read, each once: a few one by one, many as a list.
func TestFlannelsNodesAreRead(t *testing.T) {
	for _, n := range []int{2, manySpecs} {
		f := standIn(t, true)
		for i := range n {
			name := fmt.Sprintf("node-%03d", i)
			f.addNode(t, name, fmt.Sprintf("10.244.%d.0/24", i))
			f.annotate(t, name, flannels(fmt.Sprintf("192.0.2.%d", i+1)))
		}
		f.addNode(t, "plain", "10.244.200.0/24")
		w := storetest.Watch(t, f.open(t, "one"), nil)
		state := w.Synced(1)
		if len(state.Leases) != n {
			t.Errorf("%d leases", len(state.Leases))
		}
		if r := state.Leases["node-001"]; r.Bad != nil || r.Endpoints[subnet.IPv4].Subnet != prefix("10.244.1.0/24") ||
			r.Endpoints[subnet.IPv4].PublicIP != netip.MustParseAddr("192.0.2.2") || r.NodeName != "node-001" {
			t.Errorf("flannel's lease is %+v", r)
		}
		f.annotate(t, "node-001", map[string]any{DefaultPrefix + "public-ip": "198.51.100.1"})
		f.annotate(t, "plain", flannels("192.0.2.250"))
		w.There("plain")
		f.harm.Restart(t)
		f.addNode(t, "last", "10.244.201.0/24")
		f.annotate(t, "last", flannels("192.0.2.251"))
		state = w.There("last")
		if got := state.Leases["node-001"].Endpoints[subnet.IPv4].PublicIP; got != netip.MustParseAddr("198.51.100.1") {
			t.Errorf("its public IP is %s", got)
		}
		got := f.verbs()
		want := map[string]int{"GET": n + 2}
		if n >= manySpecs {
			want = map[string]int{"GET": 2, "LIST whole": 1}
		}
		for _, verb := range []string{"GET", "LIST whole"} {
			if got[verb] != want[verb] {
				t.Errorf("of %d Nodes, %v, want %v", n, got, want)
			}
		}
	}
}

// TestPodCIDRThatComesLater: a Node of flannel's without a podCIDR has no lease until it has one.
func TestPodCIDRThatComesLater(t *testing.T) {
	for _, before := range []bool{true, false} {
		f := standIn(t, true)
		s := f.open(t, "one")
		add := func() {
			f.addNode(t, "late")
			f.annotate(t, "late", flannels("192.0.2.1"))
			for range 5 {
				f.beat(t, "late")
			}
		}
		if before {
			add()
		}
		w := storetest.Watch(t, s, nil)
		w.Synced(1)
		if !before {
			add()
		}
		f.addNode(t, "other", "10.244.2.0/24")
		f.annotate(t, "other", flannels("192.0.2.2"))
		if got := w.There("other").Names(); !slices.Equal(got, []string{"other"}) {
			t.Errorf("there is %q", got)
		}
		if got := f.verbs()["GET"]; got > 3 {
			t.Errorf("%d Nodes were read", got)
		}
		_, err := f.admin.PatchNode(t.Context(), "late", "", map[string]any{
			"spec": map[string]any{"podCIDR": "10.244.1.0/24", "podCIDRs": []string{"10.244.1.0/24"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := w.There("late").Leases["late"]; r.Bad != nil || r.Endpoints[subnet.IPv4].Subnet != prefix("10.244.1.0/24") {
			t.Errorf("the lease is %+v", r)
		}
	}
}

// TestSpecThatCannotBeRead: a Node keeps its lease while the API server does not answer what its subnets are.
func TestSpecThatCannotBeRead(t *testing.T) {
	f := standIn(t, true)
	f.leased(t, "one", "10.244.1.0/24")
	w := storetest.Watch(t, f.open(t, "one"), nil)
	w.Synced(1)
	three := wanted("three")
	three.Endpoints[subnet.IPv4].Subnet = prefix("10.244.3.0/24")
	f.standIn.Deny("get nodes")
	// As flannel writes it.
	f.annotate(t, "one", map[string]any{
		LeaseAnnotation: nil, PodCIDRsAnnotation: nil, DefaultPrefix + "public-ip": "192.0.2.9",
	})
	f.annotate(t, "three", annotations(t, three, f.addNode(t, "three", "10.244.3.0/24")))
	state := w.There("three")
	if got := state.Leases["one"].Endpoints[subnet.IPv4].Subnet; got != prefix("10.244.1.0/24") {
		t.Errorf("the subnet of a Node whose spec cannot be read is %s", got)
	}
	f.standIn.Deny()
	w.Until(func(s storetest.State) string {
		e := s.Leases["one"].Endpoints[subnet.IPv4]
		if e.PublicIP != netip.MustParseAddr("192.0.2.9") || e.Subnet != prefix("10.244.1.0/24") {
			return fmt.Sprintf("what flannel has written; it is %+v", e)
		}
		return ""
	})
}

// TestCopiedAnnotations: what was copied from another Node, or from an earlier one of the name, is believed no more than
// what flannel writes: the subnet is that of the spec.
func TestCopiedAnnotations(t *testing.T) {
	f := standIn(t, true)
	r := f.leased(t, "one", "10.244.1.0/24")
	o, err := f.admin.Node(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	w := storetest.Watch(t, f.open(t, "one"), nil)
	w.There("one")
	copied := map[string]any{}
	for name, value := range o.Metadata.Annotations {
		copied[name] = value
	}
	f.addNode(t, "two", "10.244.2.0/24")
	f.annotate(t, "two", copied)
	two := w.There("two").Leases["two"]
	if two.Endpoints[subnet.IPv4].Subnet != prefix("10.244.2.0/24") || two.InstanceID != "" || two.NodeName != "two" {
		t.Errorf("the copy is %+v", two)
	}
	if err := f.admin.DeleteNode(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	f.addNode(t, "one", "10.244.9.0/24")
	f.annotate(t, "one", copied)
	w.Until(func(s storetest.State) string {
		now, ok := s.Leases["one"]
		if !ok || now.Endpoints[subnet.IPv4].Subnet != prefix("10.244.9.0/24") || now.InstanceID != "" ||
			now.Version <= r.Version {
			return fmt.Sprintf("the subnet of the spec; it is %+v", now)
		}
		return ""
	})
}

// TestAFewRequestsAfterAFault: a server that comes back with its history costs small reads and a watch, and no event.
func TestAFewRequestsAfterAFault(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		f := standIn(t, streaming)
		f.leased(t, "one", "10.244.1.0/24")
		w := storetest.Watch(t, f.open(t, "one"), nil)
		w.Synced(1)
		f.leased(t, "zero", "10.244.0.0/24")
		w.There("zero") // so it follows
		f.verbs()
		f.standIn.Stop()
		f.start(t)
		f.leased(t, "two", "10.244.2.0/24")
		state := w.There("two")
		if state.Synced != 1 || state.Changed("one") != 0 {
			t.Errorf("the events are %+v", state.Events)
		}
		got := f.verbs()
		if got["LIST"]+got["WATCH initial"] > 0 || got["LIST exact"] != 2 || got["WATCH"] != 1 {
			t.Errorf("it took %v", got)
		}
	}
}

// TestRestoredAndAhead: a store that was restored, and has passed the version that was seen before anybody looks, is
// another one.
func TestRestoredAndAhead(t *testing.T) {
	f := standIn(t, true)
	f.leased(t, "one", "10.244.1.0/24")
	s := f.open(t, "one")
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	saved := f.standIn.Backup()
	f.leased(t, "two", "10.244.2.0/24")
	seen := w.There("two").Revision
	f.standIn.Stop()
	f.standIn.Restore(saved)
	f.standIn.Reject(1000, 503, 0)
	f.start(t)
	for f.standIn.Version() <= seen {
		f.beat(t, "one")
	}
	f.standIn.Accept()
	state := w.Synced(2)
	if got := state.Names(); !slices.Equal(got, []string{"one"}) || state.Regressed != 1 {
		t.Errorf("there is %q, %d snapshots are of another history", got, state.Regressed)
	}
}

// turn makes n changes of objects that are no Nodes.
func (f *fixture) turn(t *testing.T, n int) {
	t.Helper()
	for range n {
		name := fmt.Sprintf("pod-%d", f.standIn.Version())
		_, err := f.admin.Create(t.Context(), "/api/v1/namespaces/default/pods", map[string]any{
			"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{"name": name, "namespace": "default"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestRestoredBeforeANodeChanged: a store can be restored from a backup after which no Node had changed, and pass the
// version that was seen before anybody looks. It is another one all the same if a Node has changed there.
func TestRestoredBeforeANodeChanged(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, f *fixture){
		"deleted": func(t *testing.T, f *fixture) {
			if err := f.admin.DeleteNode(t.Context(), "two"); err != nil {
				t.Fatal(err)
			}
		},
		"added": func(t *testing.T, f *fixture) { f.addNode(t, "three", "10.244.3.0/24") },
		"changed": func(t *testing.T, f *fixture) {
			f.annotate(t, "two", map[string]any{DefaultPrefix + "public-ip": "192.0.2.9"})
		},
	} {
		f := standIn(t, true)
		f.leased(t, "two", "10.244.2.0/24")
		f.leased(t, "one", "10.244.1.0/24") // changed last
		s := f.openWith(t, Options{Node: "one", advance: time.Millisecond})
		w := storetest.Watch(t, s, nil)
		w.Synced(1)
		saved := f.standIn.Backup()
		f.turn(t, 10)
		seen := f.standIn.Version()
		w.Reached(seen) // by a bookmark
		f.standIn.Stop()
		f.standIn.Restore(saved)
		f.standIn.Reject(1000, 503, 0)
		f.start(t)
		harm(t, f)
		f.turn(t, int(seen-f.standIn.Version()))
		if got := f.standIn.Version(); got != seen {
			t.Fatalf("it is at version %d, and was at %d", got, seen)
		}
		f.standIn.Accept()
		state := w.Synced(2)
		leases := map[string]int{"deleted": 1, "added": 2, "changed": 2}[name]
		ip := state.Leases["two"].Endpoints[subnet.IPv4].PublicIP
		if state.Regressed != 1 || len(state.Leases) != leases ||
			name == "changed" && ip != netip.MustParseAddr("192.0.2.9") {
			t.Errorf("%s: there is %q, %d snapshots are of another history", name, state.Names(), state.Regressed)
		}
	}
}

// TestSpecOfAnotherHistory: a Node that had no podCIDR in the backup is given another one after the store was restored.
func TestSpecOfAnotherHistory(t *testing.T) {
	f := standIn(t, true)
	f.addNode(t, "one")
	f.annotate(t, "one", flannels("192.0.2.1"))
	w := storetest.Watch(t, f.open(t, "one"), nil)
	w.Synced(1)
	saved := f.standIn.Backup()
	give := func(cidr string) {
		t.Helper()
		spec := map[string]any{"podCIDR": cidr, "podCIDRs": []string{cidr}}
		if _, err := f.admin.PatchNode(t.Context(), "one", "", map[string]any{"spec": spec}); err != nil {
			t.Fatal(err)
		}
		w.Until(func(s storetest.State) string {
			if got := s.Leases["one"].Endpoints[subnet.IPv4].Subnet; got != prefix(cidr) {
				return fmt.Sprintf("the subnet %s; it is %s", cidr, got)
			}
			return ""
		})
	}
	f.beat(t, "one") // so that no version of the one history is also in the other
	give("10.244.1.0/24")
	f.standIn.Stop()
	f.standIn.Restore(saved)
	f.start(t)
	give("10.244.2.0/24")
}

// TestAdviceOfANode follows the annotations that a person writes on this node's Node.
func TestAdviceOfANode(t *testing.T) {
	f := standIn(t, true)
	f.addNode(t, "one", "10.244.1.0/24")
	f.addNode(t, "two", "10.244.2.0/24")
	f.annotate(t, "two", map[string]any{DefaultPrefix + "node-public-ip": "192.0.2.2"})
	f.annotate(t, "one", map[string]any{DefaultPrefix + "node-public-ip": "192.0.2.1"})
	s := f.openWith(t, Options{Node: "one", advance: time.Hour})
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	want := subnet.NodeAdvice{
		PublicIP: [2]netip.Addr{netip.MustParseAddr("192.0.2.1")},
		PublicIPSource: [2]string{
			"annotation " + DefaultPrefix + "node-public-ip", "annotation " + DefaultPrefix + "node-public-ipv6",
		},
		AnnouncedSource: [2]string{
			"annotation " + DefaultPrefix + "public-ip-overwrite", "annotation " + DefaultPrefix + "public-ipv6-overwrite",
		},
	}
	if got := s.Advice(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	change := func(annotations map[string]any) {
		t.Helper()
		n := len(w.Now().Events)
		f.annotate(t, "one", annotations)
		w.Until(func(s storetest.State) string {
			if len(s.Events) == n {
				return "an event"
			}
			return ""
		})
		if got := s.Advice(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	want.PublicIP = [2]netip.Addr{}
	want.Announced = [2]netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}
	change(map[string]any{
		DefaultPrefix + "node-public-ip": nil, DefaultPrefix + "public-ip-overwrite": "203.0.113.1",
		DefaultPrefix + "public-ipv6-overwrite": "2001:db8::1",
	})
	if _, err := f.admin.PatchNode(t.Context(), "one", "", map[string]any{"metadata": map[string]any{"labels": map[string]any{
		"topology.kubernetes.io/zone": "eu-1a", "topology.kubernetes.io/region": "eu-1"}}}); err != nil {
		t.Fatal(err)
	}
	want.Zone = "eu-1a"
	w.Until(func(storetest.State) string {
		if got := s.Advice(); got != want {
			return fmt.Sprintf("%+v, not %+v", want, got)
		}
		return ""
	})
	want.Announced = [2]netip.Addr{}
	want.Bad = "annotation " + DefaultPrefix + `public-ip-overwrite is "2001:db8::1", want an IPv4 address; annotation ` +
		DefaultPrefix + `public-ipv6-overwrite is "x", want an IPv6 address`
	change(map[string]any{
		DefaultPrefix + "public-ip-overwrite": "2001:db8::1", DefaultPrefix + "public-ipv6-overwrite": "x",
	})
}

// TestNameOfThePod: the Node of this node can be that of its Pod.
func TestNameOfThePod(t *testing.T) {
	f := standIn(t, true)
	f.addNode(t, "one", "10.244.1.0/24")
	s := f.openWith(t, Options{Pod: Pod{Namespace: "kube-flannel", Name: "selvage-x"}})
	if _, err := s.Claim(t.Context(), nil, wanted("one")); err == nil || !strings.Contains(err.Error(), "POD_NAME") {
		t.Errorf("without the Pod, the claim gives %v", err)
	}
	_, err := f.admin.Create(t.Context(), "/api/v1/namespaces/kube-flannel/pods", map[string]any{
		"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{"name": "selvage-x", "namespace": "kube-flannel"},
		"spec": map[string]any{"nodeName": "one"},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.verbs()
	for range 2 {
		if r, err := s.Claim(t.Context(), nil, wanted("one")); err != nil || r.Name != "one" {
			t.Errorf("the claim gives %+v, %v", r, err)
		}
	}
	f.expect(t, "two claims", map[string]int{"GET": 3, "PATCH": 1})
	if s.Access().Node != "one" || s.Access().Prefix != DefaultPrefix || s.Access().Config != f.conf {
		t.Errorf("it is reached by %+v", s.Access())
	}
}

func TestIdentityOf(t *testing.T) {
	for name, x := range map[string]struct {
		env  map[string]string
		node string
		pod  Pod
		bad  bool
	}{
		"NODE_NAME":     {map[string]string{"NODE_NAME": "one", "POD_NAME": "p", "POD_NAMESPACE": "n"}, "one", Pod{}, false},
		"the Pod":       {map[string]string{"POD_NAME": "p", "POD_NAMESPACE": "n"}, "", Pod{"n", "p"}, false},
		"nothing":       {nil, "", Pod{}, true},
		"no namespace":  {map[string]string{"POD_NAME": "p"}, "", Pod{Name: "p"}, true},
		"no Pod's name": {map[string]string{"POD_NAMESPACE": "n"}, "", Pod{Namespace: "n"}, true},
	} {
		node, pod, err := IdentityOf(func(name string) (string, bool) { v, ok := x.env[name]; return v, ok })
		if node != x.node || pod != x.pod || (err != nil) != x.bad {
			t.Errorf("%s: %q, %+v, %v", name, node, pod, err)
		}
	}
	if _, err := New(Options{API: apiserver.Options{URL: "http://127.0.0.1:1"}}); err == nil {
		t.Error("a store without a node is made")
	}
}

// TestExamine names what is wrong.
func TestExamine(t *testing.T) {
	f := standIn(t, true)
	s := f.open(t, "one")
	look := func(want subnet.Reason, text string) {
		t.Helper()
		x := s.Examine(t.Context())
		if len(x.Endpoints) != 1 || x.Endpoints[0].Problem.Err != nil || x.Rights.Err != nil || x.Endpoints[0].Version == "" {
			t.Fatalf("%+v", x)
		}
		alarms := x.Endpoints[0].Alarms
		if want == "" && len(alarms) > 0 || want != "" &&
			(len(alarms) != 1 || alarms[0].Reason != want || !strings.Contains(alarms[0].Err.Error(), text)) {
			t.Errorf("%+v, want %s", alarms, want)
		}
	}
	look(subnet.ReasonNoNode, "no Node one")
	f.addNode(t, "one")
	look(subnet.ReasonNoSubnets, "--allocate-node-cidrs")
	f.addNode(t, "two", "10.244.2.0/24")
	look(subnet.ReasonNoSubnet, "node one has no podCIDR")
	if err := f.admin.DeleteNode(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	f.addNode(t, "one", "10.244.1.0/24")
	look("", "")
	f.standIn.Deny("create tokenreviews")
	look("", "") // it reviews none
	s.Reviewer("nodes")
	x := s.Examine(t.Context())
	if !x.Rights.Reason.AboutUser() || !strings.Contains(x.Rights.Err.Error(), "missing: create tokenreviews: ") {
		t.Errorf("%+v", x.Rights)
	}
	if err := f.admin.DeleteNode(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if x = s.Examine(t.Context()); len(x.Endpoints[0].Alarms) != 1 || x.Endpoints[0].Alarms[0].Reason != subnet.ReasonNoNode {
		t.Errorf("%+v, want that this is examined all the same", x)
	}
	f.standIn.Deny("patch nodes/status", "list nodes")
	x = s.Examine(t.Context())
	if !x.Rights.Reason.AboutUser() || !strings.Contains(x.Rights.Err.Error(), "list nodes, patch nodes/status") {
		t.Errorf("%+v", x.Rights)
	}
	f.standIn.Stop()
	if x := s.Examine(t.Context()); x.Endpoints[0].Problem.Reason != subnet.ReasonRefused || x.Rights.Err == nil {
		t.Errorf("%+v", x)
	}
}

// TestOutage is reported, with its reason, and ends.
func TestOutage(t *testing.T) {
	f := standIn(t, true)
	log, kept := logger(t)
	s := f.openWith(t, Options{Node: "one", Log: log})
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	f.standIn.Stop()
	eventually(t, "a logged outage", func() bool {
		o := s.Outage()
		return o.Problem.Reason == subnet.ReasonRefused && len(kept.lines()) > 0
	})
	f.start(t)
	eventually(t, "its end", func() bool { return s.Outage().Since.IsZero() && len(kept.lines()) == 2 })
	f.leased(t, "two", "10.244.2.0/24")
	if state := w.There("two"); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
	if s.Health().LastEvent.IsZero() || s.Health().LastContact.IsZero() {
		t.Errorf("%+v", s.Health())
	}
}
