package command

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// TestConfigOfDaemon: what config show says of this node's daemon.
func TestConfigOfDaemon(t *testing.T) {
	const stored = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	another := json.RawMessage(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}`)
	for _, tt := range []struct {
		name   string
		daemon *status.Status // nil: it does not run
		want   string
	}{
		{"none", nil, "the daemon does not run"},
		{"starting", &status.Status{}, "the daemon uses no config yet"},
		{"same", &status.Status{Prefix: "/net", Config: json.RawMessage(stored)}, "the daemon uses it"},
		{"another config", &status.Status{Prefix: "/net", Config: another}, "the daemon uses another config; from that one"},
		{"another network", &status.Status{Prefix: "/second", Config: another}, "is of another network, /second; set --socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var notes strings.Builder
			o := config{store: StoreOptions{Etcd: etcd.Options{Prefix: "/net/"}}, socket: filepath.Join(t.TempDir(), "none"), notes: &notes}
			if tt.daemon != nil {
				o.socket = serveStatus(t, *tt.daemon, nil)
			}
			o.noteDaemon(t.Context(), etcd.StoredConfig{Data: []byte(stored)})
			if got := notes.String(); !strings.HasPrefix(got, "this node: ") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
