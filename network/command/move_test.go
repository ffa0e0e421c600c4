package command

import (
	"slices"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

// TestMoveLines: the status shows how many peers are encrypted, and what a move to another backend waits for.
func TestMoveLines(t *testing.T) {
	all, some := 4, 2
	peers := status.PeerCounts{Programmed: 3, Pending: 1, Grace: 7, Quarantined: 7}
	for name, tt := range map[string]struct {
		backend status.Backend
		want    []string
	}{
		"vxlan":     {status.Backend{}, nil},
		"wireguard": {status.Backend{Encrypted: &all}, []string{"4 of 4 peers encrypted"}},
		"required": {status.Backend{Encrypted: &all, Encryption: status.EncryptionRequired},
			[]string{"4 of 4 peers encrypted, others are rejected"}},
		"to be required": {status.Backend{Encrypted: &some, Encryption: status.EncryptionAwaited},
			[]string{"2 of 4 peers encrypted, others are rejected once all are"}},
		"a move": {
			status.Backend{Encrypted: &some, Move: &status.Move{
				From:    "vxlan",
				Waiting: []status.Waiting{{Key: "10.5.29.0-24", Node: "node3", Why: "it is slow"}, {Key: "10.5.30.0-24", Why: "so is it"}},
				More:    5,
			}},
			[]string{
				"the network moves here from vxlan", "node3 is reached by vxlan: it is slow", "10.5.30.0-24 is reached by vxlan: so is it",
				"5 more are reached by vxlan", "2 of 4 peers encrypted",
			},
		},
	} {
		if got := moveLines(tt.backend, peers); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
