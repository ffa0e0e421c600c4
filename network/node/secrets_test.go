package node

import (
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
