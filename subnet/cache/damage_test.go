package cache

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/selvage-net/selvage/subnet/subnettest"
)

// TestDamagedFile: what is in the place of the file is never taken for leases, and the next write replaces it.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	for _, d := range subnettest.Damages() {
		if err := Write(path, Snapshot{Config: []byte(`{"Network":"10.5.0.0/16"}`)}); err != nil {
			t.Fatalf("before %s: %v", d.Name, err)
		}
		if err := d.Apply(path, nil); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EISDIR) {
			t.Errorf("%s: %v", d.Name, err)
		}
		if d.Holds {
			if err := Write(path, Snapshot{}); !errors.Is(err, syscall.EISDIR) {
				t.Errorf("%s: %v", d.Name, err)
			}
			path += "2"
		}
	}
}
