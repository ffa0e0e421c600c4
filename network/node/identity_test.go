package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network"
)

const uplinkMAC = "02:00:00:00:00:01"

func TestIdentityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	id, fresh, err := loadIdentity(dir, uplinkMAC)
	if err != nil || fresh == "" {
		t.Fatalf("first start: fresh %q, error %v, want a new identity", fresh, err)
	}
	mac := id.mac("flannel.1", network.MAC{}, network.MAC{})
	if !mac.IsUnicast() || mac[0]&2 == 0 {
		t.Errorf("random MAC %s is not a locally administered unicast address", mac)
	}
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	again, fresh, err := loadIdentity(dir, uplinkMAC)
	if err != nil || fresh != "" {
		t.Fatalf("second start: fresh %q, error %v, want the same identity", fresh, err)
	}
	if again.InstanceID != id.InstanceID || again.mac("flannel.1", network.MAC{}, network.MAC{}) != mac {
		t.Errorf("second start: %+v, want %+v", again, id)
	}
	other, _, err := loadIdentity(filepath.Join(t.TempDir(), "state"), uplinkMAC)
	if err != nil || other.InstanceID == id.InstanceID || other.mac("flannel.1", network.MAC{}, network.MAC{}) == mac {
		t.Errorf("another node has the same identity: %+v, %v", other, err)
	}
}

func TestIdentityIsRenewed(t *testing.T) {
	tests := []struct {
		name string
		do   func(path string) error
		mac  string
		want string // in the reason
	}{
		{"clone with another uplink", func(string) error { return nil }, "02:00:00:00:00:02", "was written on another machine"},
		{"damaged file", func(path string) error { return os.WriteFile(path, []byte(`{"instanceID":`), 0o600) }, uplinkMAC, "is damaged"},
		{"file without an id", func(path string) error { return os.WriteFile(path, []byte(`{}`), 0o600) }, uplinkMAC, "is damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			first, _, err := loadIdentity(dir, uplinkMAC)
			if err != nil {
				t.Fatal(err)
			}
			mac := first.mac("flannel.1", network.MAC{}, network.MAC{})
			if err := first.save(dir); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(filepath.Join(dir, identityFile)); err != nil {
				t.Fatal(err)
			}
			id, fresh, err := loadIdentity(dir, tt.mac)
			if err != nil || !strings.Contains(fresh, tt.want) {
				t.Fatalf("fresh %q, error %v, want a reason with %q", fresh, err, tt.want)
			}
			if id.InstanceID == first.InstanceID || id.mac("flannel.1", network.MAC{}, network.MAC{}) == mac {
				t.Errorf("identity %+v is still the first, %+v", id, first)
			}
		})
	}
}

func TestMACOrder(t *testing.T) {
	present, kept, lease := network.MAC{2, 1}, network.MAC{2, 2}, network.MAC{2, 3}
	group := network.MAC{1, 1}
	for _, tt := range []struct{ present, kept, lease, want network.MAC }{
		{present, kept, lease, lease},
		{present, kept, network.MAC{}, present},
		{network.MAC{}, kept, network.MAC{}, kept},
		{group, kept, group, kept},
		{present, kept, group, present},
	} {
		id := &identity{MACs: map[string]string{"flannel.1": tt.kept.String()}}
		if got := id.mac("flannel.1", tt.present, tt.lease); got != tt.want {
			t.Errorf("present %s, kept %s, lease %s: %s, want %s", tt.present, tt.kept, tt.lease, got, tt.want)
		}
		if id.MACs["flannel.1"] != tt.want.String() {
			t.Errorf("%s is not remembered", tt.want)
		}
	}
}
