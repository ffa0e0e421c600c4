package etcd

import (
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/selvage-net/selvage/subnet"
)

func TestOfAKeyThatChangedMoreThanOnceTheLastStateCounts(t *testing.T) {
	put := func(key string, revision int64) *mvccpb.Event {
		return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{
			Key: []byte(key), Value: fmt.Append(nil, revision), CreateRevision: 1, ModRevision: revision, Lease: 7}}
	}
	del := func(key string, revision int64) *mvccpb.Event {
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
	}
	for _, c := range []struct {
		events  []*mvccpb.Event
		put     []string // name=version
		deleted []string
	}{
		{},
		{[]*mvccpb.Event{put("/n/subnets/a", 2)}, []string{"a=2"}, nil},
		{[]*mvccpb.Event{del("/n/subnets/a", 2)}, nil, []string{"a"}},
		{[]*mvccpb.Event{put("/n/subnets/a", 2), put("/n/subnets/b", 2), put("/n/subnets/a", 3)}, []string{"b=2", "a=3"}, nil},
		{[]*mvccpb.Event{put("/n/subnets/a", 2), del("/n/subnets/a", 3), put("/n/subnets/b", 4)}, []string{"b=4"}, []string{"a"}},
		{[]*mvccpb.Event{del("/n/subnets/a", 2), put("/n/subnets/a", 3), del("/n/subnets/b", 4), del("/n/subnets/c", 5)}, []string{"a=3"}, []string{"b", "c"}},
		{[]*mvccpb.Event{put("/n/config", 2), put("/n/subnets", 3), put("/n/subnets/", 4), put("/n/subnets/x/y", 5)}, []string{"=4", "x/y=5"}, nil},
	} {
		e := newKeyspace("/n").changes(c.events)
		var got []string
		for _, r := range e.Put {
			got = append(got, fmt.Sprintf("%s=%d", r.Name, r.Version))
			if r.LeaseID != 7 || r.Order != 1 || r.Bad == nil {
				t.Errorf("%+v", r)
			}
		}
		if e.Type != subnet.Changed || !slices.Equal(got, c.put) || !slices.Equal(e.Deleted, c.deleted) {
			t.Errorf("%v\n gives put %q, deleted %q\n want  put %q, deleted %q", c.events, got, e.Deleted, c.put, c.deleted)
		}
	}
}

func TestFragmentsAreHandedOverInWholeRevisions(t *testing.T) {
	for _, c := range []struct {
		revisions   []int64
		fragment    bool
		whole, rest int
	}{
		{[]int64{1, 2, 2}, false, 3, 0},
		{[]int64{1, 2, 2}, true, 1, 2},
		{[]int64{1, 1, 2}, true, 2, 1},
		{[]int64{3, 3}, true, 0, 2},
		{[]int64{3}, true, 0, 1},
	} {
		var events []*mvccpb.Event
		for _, r := range c.revisions {
			events = append(events, &mvccpb.Event{Kv: &mvccpb.KeyValue{ModRevision: r}})
		}
		whole, rest := settled(events, c.fragment)
		if len(whole) != c.whole || len(rest) != c.rest {
			t.Errorf("%v, fragment %t: %d and %d", c.revisions, c.fragment, len(whole), len(rest))
		}
	}
}
