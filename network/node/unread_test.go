package node

import (
	"errors"
	"fmt"
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

// TestUnreadLeases: leases that cannot be read are a warning that names some of them.
func TestUnreadLeases(t *testing.T) {
	n := &node{Options: Options{Store: unreadStore{memStore: newMemStore()}}}
	if p := n.unread(); p != nil {
		t.Errorf("%+v", p)
	}
	u := subnet.Unread{Since: time.Unix(1, 0), Problem: subnet.Problem{Err: errors.New("forbidden")}}
	for i := range 7 {
		u.Names = append(u.Names, fmt.Sprintf("node-%d", i))
	}
	n.Store = unreadStore{newMemStore(), u}
	p := n.unread()
	const want = "cannot read the subnets of node-0, node-1, node-2, node-3, node-4 and 2 more; " +
		"their leases stay as they were, and new ones are not used: forbidden"
	if p == nil || p.Code != status.LeasesUnread || !p.Warning || p.Since != u.Since || p.Text != want {
		t.Errorf("%+v", p)
	}
}
