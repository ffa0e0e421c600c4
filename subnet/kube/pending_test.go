package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// waitUnread waits until a store cannot read these Nodes and no others.
func waitUnread(t *testing.T, s *Store, names ...string) (u subnet.Unread) {
	t.Helper()
	eventually(t, fmt.Sprintf("unread %q", names), func() bool {
		u = s.Unread()
		return slices.Equal(u.Names, names)
	})
	return u
}

// TestPostponed: the status names the disputed Nodes that are to be read and were not, and since when.
func TestPostponed(t *testing.T) {
	w, _ := idleWatcher(t)
	var b batch
	w.pending, w.nodes = map[string]*pendingNode{}, map[string]*knownNode{}
	for i := range disputeReads + 2 {
		o := objectOf(t, fmt.Sprintf("node-%02d", i), "1", "10.244.1.0/24", 5)
		n := newKnownNode(&o)
		w.nodes[o.Name] = n
		w.readUntil = time.Now().Add(time.Minute)
		w.verify(t.Context(), o.Name, n, &b) // no read succeeds
	}
	if !w.reportUnread() {
		t.Error("no change is reported")
	}
	u := w.Unread()
	want := []string{"node-32", "node-33"}
	if len(u.Names) != disputeReads || !slices.Equal(u.Disputed, want) || u.DisputedSince.IsZero() {
		t.Errorf("%d cannot be read, and %q are disputed since %s; want %d, and %q",
			len(u.Names), u.Disputed, u.DisputedSince, disputeReads, want)
	}
	if w.reportUnread() {
		t.Error("a change is reported again")
	}
	w.settled("node-32")
	w.settled("node-33")
	if !w.reportUnread() {
		t.Error("no change is reported")
	}
	if u = w.Unread(); len(u.Disputed) > 0 || !u.DisputedSince.IsZero() {
		t.Errorf("still disputed: %+v", u)
	}
}

// TestNoTimeToRead: so does it those for which there was no time left, until they were tried.
func TestNoTimeToRead(t *testing.T) {
	w, _ := idleWatcher(t)
	var b batch
	o := objectOf(t, "one", "1", "10.244.1.0/24", 5)
	n := newKnownNode(&o)
	w.pending, w.nodes = map[string]*pendingNode{}, map[string]*knownNode{"one": n}
	w.verify(t.Context(), "one", n, &b)
	if got := w.client.Health().Requests["GET"]; !w.reportUnread() || got != 0 {
		t.Errorf("it was read %d times, or not reported", got)
	}
	if u := w.Unread(); !slices.Equal(u.Disputed, []string{"one"}) || len(u.Names) > 0 {
		t.Errorf("before: %+v", u)
	}
	w.readUntil = time.Now().Add(time.Minute)
	w.verify(t.Context(), "one", n, &b)
	w.reportUnread()
	if u := w.Unread(); !slices.Equal(u.Names, []string{"one"}) || len(u.Disputed) > 0 {
		t.Errorf("after: %+v", u)
	}
}

// TestOneNodeThatCannotBeRead: a Node of flannel's whose spec the API server does not show keeps no other away, at the
// first list and after a fault. It is named, and a peer as soon as it can be read.
func TestOneNodeThatCannotBeRead(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		f := standIn(t, streaming)
		f.leased(t, "ours", "10.244.1.0/24")
		for i, name := range []string{"bad", "flannel-1", "flannel-2"} {
			f.addNode(t, name, fmt.Sprintf("10.244.1%d.0/24", i))
			f.annotate(t, name, flannels(fmt.Sprintf("192.0.2.%d", i+10)))
		}
		f.standIn.Deny("get nodes bad")
		s := f.open(t, "one")
		w := storetest.Watch(t, s, nil)
		if got := w.Synced(1).Names(); !slices.Equal(got, []string{"flannel-1", "flannel-2", "ours"}) {
			t.Errorf("there is %q", got)
		}
		if u := waitUnread(t, s, "bad"); u.Since.IsZero() || !u.Problem.Reason.AboutUser() {
			t.Errorf("%+v", u)
		}
		f.standIn.Deny()
		if got := w.There("bad").Leases["bad"].Endpoints[subnet.IPv4].Subnet; got != prefix("10.244.10.0/24") {
			t.Errorf("its subnet is %s", got)
		}
		waitUnread(t, s)
		// The daemon of ours was replaced by flannel while nobody looked.
		f.standIn.Stop()
		f.start(t)
		f.standIn.Deny("get nodes ours")
		f.annotate(t, "ours", map[string]any{
			LeaseAnnotation: nil, PodCIDRsAnnotation: nil, DefaultPrefix + "public-ip": "192.0.2.9",
		})
		f.standIn.Compact()
		state := w.Until(func(s storetest.State) string {
			if e := s.Leases["ours"].Endpoints[subnet.IPv4]; e.PublicIP != netip.MustParseAddr("192.0.2.9") {
				return fmt.Sprintf("what flannel has written; it is %+v", e)
			}
			return ""
		})
		if got := state.Leases["ours"].Endpoints[subnet.IPv4].Subnet; got != prefix("10.244.1.0/24") {
			t.Errorf("its subnet is %s", got)
		}
		waitUnread(t, s, "ours")
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestListWithoutAServer: if nothing can be read, it is not the Node.
func TestListWithoutAServer(t *testing.T) {
	w, _ := idleWatcher(t)
	l := newListing()
	o := objectOf(t, "one", "1", "10.244.1.0/24", 5)
	delete(o.Annotations, PodCIDRsAnnotation)
	l.add(w, o)
	l.p.seen = 5
	if err := w.finish(t.Context(), l); apiserver.ProblemOf(err).Reason != subnet.ReasonRefused || w.synced {
		t.Errorf("the list is handed over (%v)", err)
	}
}

// TestReadsAreBounded: a watch does not stand still for the reads of Nodes that take long.
func TestReadsAreBounded(t *testing.T) {
	w, _ := idleWatcher(t)
	w.pending = map[string]*pendingNode{}
	o := objectOf(t, "one", "1", "10.244.1.0/24", 5)
	delete(o.Annotations, PodCIDRsAnnotation)
	var b batch
	w.judge(t.Context(), &o, &knownNode{uid: uidOf(&o)}, &b)
	wait := w.pending["one"]
	if wait == nil || !wait.again || wait.err != nil || w.client.Health().Requests["GET"] != 0 {
		t.Errorf("the Node is pending as %+v", wait)
	}
	w.readUntil = time.Now().Add(time.Minute)
	w.judge(t.Context(), &o, &knownNode{uid: uidOf(&o)}, &b)
	if wait.err == nil || w.client.Health().Requests["GET"] == 0 || len(b.puts) > 0 {
		t.Errorf("the Node is pending as %+v", wait)
	}
}
