package node

import (
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network"
)

// TestRenewals: of two nodes that both have reason to begin a handshake one begins at once, the other later; and only a
// few handshakes begin at the same time.
func TestRenewals(t *testing.T) {
	key := func(i int) network.PeerKey {
		return network.PeerKey{Link: "flannel-wg", PublicKey: network.PublicKey{byte(i), byte(i >> 8)}}
	}
	first := func(k network.PeerKey) bool { return k.PublicKey[0]%2 == 0 }
	var r renewals
	now := time.Unix(1_000_000, 0)
	if peers, again := r.due(now); len(peers) > 0 || !again.IsZero() {
		t.Fatalf("%v, again at %s, without any", peers, again)
	}
	r.add([]network.PeerKey{key(1), key(2), key(3)}, first, now)
	if peers, again := r.due(now); !slices.Equal(peers, []network.PeerKey{key(2)}) || again != now.Add(renewalDelay) {
		t.Errorf("at once: %v, again at %s", peers, again)
	}
	now = now.Add(renewalDelay)
	if peers, again := r.due(now); !slices.Equal(peers, []network.PeerKey{key(1), key(3)}) || !again.IsZero() {
		t.Errorf("later: %v, again at %s", peers, again)
	}
	const count = 2*trialBurst + 10
	var all []network.PeerKey
	for i := range count {
		all = append(all, key(2*i))
	}
	r.add(all, first, now)
	var got []network.PeerKey
	for range 3 {
		peers, again := r.due(now)
		if got = append(got, peers...); len(got) < count && again != now.Add(trialPause) {
			t.Errorf("after %d: again at %s, want after a pause", len(got), again)
		}
		if more, _ := r.due(now.Add(trialPause - 1)); len(got) < count && len(more) > 0 {
			t.Errorf("%d more within the pause", len(more))
		}
		now = now.Add(trialPause)
	}
	if !slices.Equal(got, all) {
		t.Errorf("got %d peers, want all %d, in their order", len(got), count)
	}
	r = renewals{}
	at := r.retry([]network.PeerKey{key(1)}, now)
	if peers, again := r.due(now); len(peers) > 0 || again != at {
		t.Errorf("after a failure: %v, again at %s, want none before %s", peers, again, at)
	}
	if peers, _ := r.due(at); !slices.Equal(peers, []network.PeerKey{key(1)}) {
		t.Errorf("%v at %s, want what has failed", peers, at)
	}
}
