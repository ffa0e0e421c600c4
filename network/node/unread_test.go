package node

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// unreadStore is a store that cannot read some records.
type unreadStore struct {
	*memStore
	unread subnet.Unread
}

func (s unreadStore) Unread() subnet.Unread { return s.unread }

// TestUnreadLeases: leases that cannot be read, and those that are still to be verified, are a warning each that names
// some of them and counts the others.
func TestUnreadLeases(t *testing.T) {
	n := &node{Options: Options{Store: unreadStore{memStore: newMemStore()}}}
	if all := n.unreadProblems(); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	u := subnet.Unread{
		Since: time.Unix(1, 0), DisputedSince: time.Unix(2, 0), Problem: subnet.Problem{Err: errors.New("forbidden")},
	}
	for i := range 7 {
		u.Names = append(u.Names, fmt.Sprintf("node-%d", i))
	}
	u.Disputed = []string{"x", "y"}
	n.Store = unreadStore{newMemStore(), u}
	want := []status.Problem{
		{Code: status.LeasesUnread, Since: u.Since, Text: "cannot read the subnets of " +
			"node-0, node-1, node-2, node-3, node-4 and 2 more; " +
			"their leases stay as they were, and new ones are not used: forbidden"},
		{Code: status.LeasesDisputed, Since: u.DisputedSince, Text: "the subnets of x, y are disputed " +
			"and not verified yet, because many are; those that were known first are used"},
	}
	for i := range want {
		want[i].Topic, want[i].Warning = "leases", true
	}
	if got := n.unreadProblems(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
