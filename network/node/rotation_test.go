package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/backend"
)

// TestRotationIsNoted: a change of the key that is under way is read as it was written, for its owner alone to read. One
// that is damaged is an error, and one of another identity ends.
func TestRotationIsNoted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, rotationFile)
	noted := notedRotation{"this node", "left", bytes.Repeat([]byte{1}, keySize), bytes.Repeat([]byte{2}, keySize),
		time.Unix(1_700_000_000, 0).UTC(), true}
	if _, ok, err := readRotation(dir, "this node"); ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := noted.write(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v, want the mode 0600", info.Mode(), err)
	}
	got, ok, err := readRotation(dir, "this node")
	r, _ := got.rotation()
	if !ok || err != nil || r.Stage != backend.Left || r.Old[0] != 1 || r.New[0] != 2 || !got.Force || !got.Began.Equal(noted.Began) {
		t.Errorf("%t, %v, stage %s, want what was written", ok, err, r.Stage)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{}", string(good[:len(good)/2]), strings.Replace(string(good), "left", "right", 1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		_, ok, err := readRotation(dir, "this node")
		if ok || err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "AQEB") {
			t.Errorf("%d bytes: %t, %v, want an error that names the file, and no key", len(bad), ok, err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := readRotation(dir, "a clone"); ok || err != nil {
		t.Errorf("%t, %v, want that a clone does not go on with it", ok, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%v, want that the file is removed", err)
	}
	requested := noted
	if requested.Stage = rotationRequested; requested.write(dir) != nil {
		t.Fatal("not written")
	}
	if got, ok, err := readRotation(dir, "this node"); !ok || err != nil || got.Stage != rotationRequested {
		t.Errorf("%v, %t, %v, want a change that is requested", got.Stage, ok, err)
	}
}
