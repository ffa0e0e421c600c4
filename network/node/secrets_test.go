package node

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// TestSecretsAreHidden: a config is shown without its secrets, and otherwise as it was written.
func TestSecretsAreHidden(t *testing.T) {
	for config, want := range map[string]string{
		`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"abc"}}`:            `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"(hidden)"}}`,
		`{"Backend": {"psk" : "abc" , "MTU" : 5, "x": [1, {"PSK": "d\"e"}]}, "y": "PSK"}`: `{"Backend": {"psk":"(hidden)" , "MTU" : 5, "x": [1, {"PSK":"(hidden)"}]}, "y": "PSK"}`,
		`{"Backend":{"PSK":"abc","\u0050SK":"def","PSK":5,"PSK":null}}`:                   `{"Backend":{"PSK":"(hidden)","\u0050SK":"(hidden)","PSK":"(hidden)","PSK":"(hidden)"}}`,
		`{"Network":"10.5.0.0/16"}`: `{"Network":"10.5.0.0/16"}`,
		`no JSON`:                   `no JSON`,
		``:                          ``,
	} {
		if got := string(withoutSecrets([]byte(config), hiddenSecret)); got != want {
			t.Errorf("%s: %s, want %s", config, got, want)
		}
	}
}

// TestStatusHidesSecrets: what a node shows of its network config has no preshared key.
func TestStatusHidesSecrets(t *testing.T) {
	const psk = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="
	ownUplink(t)
	store := newMemStore()
	store.putConfig(`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"` + psk + `"}}`)
	n := startNode(t, expiring{store}, t.TempDir())
	eventually(t, "the network config in the status", func() error {
		s, err := n.Status(context.Background())
		if text := string(s.Config); err != nil || !strings.Contains(text, hiddenSecret) {
			return fmt.Errorf("%s, %w", text, err)
		} else if strings.Contains(text, psk) {
			t.Errorf("the status has the preshared key: %s", text)
		}
		return nil
	})
	n.stop()
	if text := n.log.String(); strings.Contains(text, psk) {
		t.Errorf("the log has the preshared key:\n%s", text)
	}
}

// TestCompareHidesSecrets: another preshared key is a change, and is not shown.
func TestCompareHidesSecrets(t *testing.T) {
	const one, other = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA=", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
	config := func(psk string) []byte {
		return []byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"` + psk + `"}}`)
	}
	for _, tt := range []struct{ before, after, want string }{
		{one, one, ""}, {hiddenSecret, one, ""}, {one, other, "Backend.PSK: another one, which is not shown"},
	} {
		c, err := Compare(subnet.StoreEtcd, config(tt.before), config(tt.after), nil)
		if got := strings.Join(c.Changes, "\n"); err != nil || got != tt.want || c.Restart != nil {
			t.Errorf("%s, %s: %q, %v, %v, want %q", tt.before, tt.after, got, err, c.Restart, tt.want)
		}
	}
}
