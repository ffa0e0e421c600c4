package attachment

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRecords(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "subnet.env"))
	r := &Reader{Dir: dir}
	if all, damaged, changed, err := r.Read(); len(all)+len(damaged) != 0 || changed || err != nil {
		t.Errorf("no directory: %v, %v, %v, %v", all, damaged, changed, err)
	}
	a := Record{Key: Key{"cbr0", "c1", "eth0"}, Added: time.Unix(2, 0), Delegate: "bridge", Config: []byte(`{}`), Result: []byte(`{}`)}
	b := a
	b.Container, b.Added = "c2", time.Unix(1, 0)
	for _, x := range []Record{a, b} {
		if err := Save(dir, x); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{ // one after a power cut, one cut short, one of another file's, ours not at all
		"cbr0:empty:eth0": "", "cbr0:half:eth0": `{"version":1,`, "cbr0:moved:eth0": `{"version":1,"network":"cbr0","container":"c1","interface":"eth0","delegate":"bridge"}`,
		"notes": "x", ".tmp": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, damaged, changed, err := r.Read()
	if err != nil || !changed || len(all) != 2 || all[0].Container != "c2" || len(damaged) != 3 {
		t.Errorf("%+v, %v, %v, %v, want c2 before c1, and three damaged ones", all, damaged, changed, err)
	}
	for _, d := range damaged {
		if !strings.Contains(d.Error(), "cbr0:") {
			t.Errorf("%v does not name the record", d)
		}
	}
	if _, _, changed, _ := r.Read(); changed {
		t.Error("changed, and nothing was")
	}
	if err := Remove(dir, a.Key); err != nil {
		t.Error(err)
	}
	if err := Remove(dir, Key{"cbr0", strings.Repeat("x", 300), "eth0"}); err != nil {
		t.Errorf("a name that no file can have: %v", err)
	}
	if all, _, changed, _ := r.Read(); !changed || len(all) != 1 {
		t.Errorf("after a removal: %v, %v", all, changed)
	}
	if keys, err := Keys(dir, "cbr0"); err != nil || len(keys) != 4 {
		t.Errorf("keys %v, %v, want 4", keys, err)
	}
}

// TestClear: what no pod uses is removed, and the directory with it.
func TestClear(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "subnet.env"))
	if err := Clear(dir); err != nil {
		t.Errorf("no directory: %v", err)
	}
	runs := Record{Key: Key{"cbr0", "c1", "eth0"}, Delegate: "bridge", NetNS: "/proc/self/ns/net", Config: []byte(`{}`), Result: []byte(`{}`)}
	ended := runs
	ended.Container, ended.NetNS = "c2", "/proc/version" // not a namespace any more
	for _, err := range []error{Save(dir, runs), Save(dir, ended), os.WriteFile(filepath.Join(dir, "cbr0:c3:eth0"), nil, 0o600),
		os.Mkdir(filepath.Join(dir, "cbr0:c4:eth0"), 0o700), os.WriteFile(filepath.Join(dir, ".123"), nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := InUse(dir); n != 1 || err != nil {
		t.Errorf("in use %d, %v", n, err)
	}
	if err := Clear(dir); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != runs.Key.String() {
		t.Errorf("left %v, %v", left, err)
	}
	theirs := filepath.Join(dir, "theirs")
	if err := errors.Join(Remove(dir, runs.Key), os.WriteFile(theirs, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Clear(dir); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("with another program's file: %v", err)
	}
	if err := errors.Join(os.Remove(theirs), Clear(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is still there")
	}
}
