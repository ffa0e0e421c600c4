package wholefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet/subnettest"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// TestReplace: a file gets its content whatever is in its place, unless that holds something.
func TestReplace(t *testing.T) {
	for _, d := range subnettest.Damages() {
		path := filepath.Join(t.TempDir(), "a", "file")
		if err := d.Apply(path, []byte("old content")); err != nil {
			t.Fatal(err)
		}
		for name, replace := range map[string]func() error{
			"Replace": func() error { return wholefile.Replace(path, []byte("new"), 0o640, 0o700) },
			"ReplaceUnsynced": func() error {
				return errors.Join(wholefile.ReplaceUnsynced(path, []byte("new"), 0o700), os.Chmod(path, 0o640))
			},
			"Rename": func() error {
				return errors.Join(os.WriteFile(path+".1", []byte("new"), 0o640), wholefile.Rename(path+".1", path))
			},
		} {
			err := replace()
			if d.Holds {
				if !errors.Is(err, syscall.EISDIR) || !strings.HasSuffix(err.Error(), path+": is a directory") {
					t.Errorf("%s, %s: %v", d.Name, name, err)
				}
				continue
			}
			data, readErr := os.ReadFile(path)
			info, statErr := os.Lstat(path)
			if err := errors.Join(err, readErr, statErr); err != nil || string(data) != "new" || info.Mode() != 0o640 {
				t.Errorf("%s, %s: %q, %v", d.Name, name, data, err)
			}
		}
	}
}

// TestSweep: only old temporary files are removed.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".1", ".2", ".note", "3", ".4"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Unix(1, 0)
	for _, name := range []string{".1", ".note", "3"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	wholefile.Sweep(dir, time.Unix(2, 0))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 4 || slices.Contains(left, filepath.Join(dir, ".1")) {
		t.Errorf("left %q, %v", left, err)
	}
}

// TestMakeDir: only what holds nothing gives way to a directory.
func TestMakeDir(t *testing.T) {
	for _, d := range subnettest.Damages() {
		path := filepath.Join(t.TempDir(), "a")
		if err := d.Apply(path, []byte("content")); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		gives := before.IsDir() || before.Mode()&fs.ModeSymlink != 0 || before.Size() == 0
		if err := wholefile.MakeDir(path, 0o700); gives != (err == nil) {
			t.Errorf("%s: %v", d.Name, err)
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() != gives {
			t.Errorf("%s: %v, %v", d.Name, info, err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(wholefile.MakeRoom(link), wholefile.MakeDir(link, 0o700)); err != nil || wholefile.Dangling(link) {
		t.Errorf("a link to a directory: %v", err)
	}
	if _, err := os.Readlink(link); err != nil {
		t.Error(err)
	}
}
