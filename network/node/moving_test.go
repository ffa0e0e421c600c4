package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/subnet"
)

// TestFollowedMove: a change of the backend's type begins a move, another change leaves it alone, and one back turns it
// round; what the lease says of the other backend stays.
func TestFollowedMove(t *testing.T) {
	vxlan, wireguard, hostgw := subnet.Backend{Type: "vxlan"}, subnet.Backend{Type: "wireguard"}, subnet.Backend{Type: "host-gw"}
	lease := subnet.Lease{BackendType: "vxlan"}
	lease.Endpoints[subnet.IPv4].Data = `{"VNI":1}`
	second := subnet.Lease{BackendType: "wireguard"}
	second.Endpoints[subnet.IPv4].Data = `{"Port":51820}`
	both := lease.Add(second, true)

	m := moving{}.followed(vxlan, wireguard, lease)
	want := backend.Levels{First: "vxlan", SendsOld: true}
	if m.old == nil || m.old.Type != "vxlan" || m.levels != want {
		t.Errorf("begun: %+v", m)
	}
	if again := m.followed(wireguard, wireguard, both); again.old != m.old || again.levels != m.levels {
		t.Errorf("other options of the same backend: %+v", again)
	}
	want = backend.Levels{First: "vxlan", Offered: true, SendsOld: true}
	if back := m.followed(wireguard, vxlan, both); back.old.Type != "wireguard" || back.levels != want {
		t.Errorf("turned back: %+v", back)
	}
	if back := m.followed(wireguard, vxlan, lease); back.old != nil {
		t.Errorf("turned back before it has begun: %+v", back)
	}
	for _, types := range [][2]subnet.Backend{{vxlan, hostgw}, {hostgw, wireguard}} {
		if m := (moving{}).followed(types[0], types[1], lease); m.old != nil {
			t.Errorf("from %s to %s: %+v", types[0].Type, types[1].Type, m)
		}
	}
}

// TestEarlierBackend: the earlier backend is read as it was written, for the owner alone, and a damaged file is an
// error.
func TestEarlierBackend(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if b, err := readBackends(dir); b != nil || err != nil {
		t.Errorf("%+v, %v, want none", b, err)
	}
	const options = `{"Type":"wireguard","PSK":"cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="}`
	if err := writeBackends(dir, []notedBackend{
		{Backend: subnet.Backend{Type: "wireguard", Options: []byte(options)}}, {Backend: subnet.Backend{Type: "vxlan"}, Left: true},
	}); err != nil {
		t.Fatal(err)
	}
	b, err := readBackends(dir)
	if err != nil || len(b) != 2 || b[0].Type != "wireguard" || string(b[0].Options) != options || b[1].Type != "vxlan" || b[0].Left || !b[1].Left {
		t.Errorf("%+v, %v", b, err)
	}
	path := filepath.Join(dir, backendFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	for _, content := range []string{"", "{", `[]`, `[{"Options":""}]`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := readBackends(dir); b != nil || err == nil {
			t.Errorf("%q: %+v, want an error", content, b)
		}
	}
}

// TestResume: a restarted node that has left the backend which does not encrypt does not go back to it where encryption
// is required; otherwise it does, until the peers have answered again.
func TestResume(t *testing.T) {
	used := func(left bool) []notedBackend {
		return []notedBackend{
			{Backend: subnet.Backend{Type: "wireguard"}}, {Backend: subnet.Backend{Type: "vxlan"}, Left: left},
		}
	}
	vxlan := subnet.Lease{BackendType: "vxlan"}
	vxlan.Endpoints[subnet.IPv4].Data = `{"VNI":1}`
	wireguard := subnet.Lease{BackendType: "wireguard"}
	wireguard.Endpoints[subnet.IPv4].Data = `{"Port":51820}`
	both := wireguard.Add(vxlan, false)
	for _, tt := range []struct {
		name     string
		noted    []notedBackend
		required bool
		own      *subnet.Lease
		leaving  string // empty: the network does not move
		sendsOld bool
	}{
		{"nothing noted", nil, true, nil, "", false},
		{"sends by it", used(false), true, &both, "vxlan", true},
		{"has left it", used(true), true, &both, "vxlan", false},
		{"has left it, lease not known", used(true), true, nil, "vxlan", false},
		{"not required", used(true), false, &both, "vxlan", true},
		{"has not begun", used(true), true, &vxlan, "vxlan", true},
		{"is through", used(true), true, &wireguard, "", false},
	} {
		n := &node{Options: Options{StateDir: t.TempDir()}, config: &subnet.Config{Encrypted: tt.required}}
		n.config.Backend.Type = "wireguard"
		if tt.noted != nil {
			if err := writeBackends(n.StateDir, tt.noted); err != nil {
				t.Fatal(err)
			}
		}
		n.resume(tt.own)
		if tt.leaving == "" {
			if n.moving.old != nil {
				t.Errorf("%s: %+v", tt.name, n.moving)
			}
		} else if n.moving.old == nil || n.moving.old.Type != tt.leaving || n.moving.levels.SendsOld != tt.sendsOld {
			t.Errorf("%s: %+v", tt.name, n.moving)
		}
	}
}
