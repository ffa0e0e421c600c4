package attachment

import (
	"os"
	"path/filepath"
	"strings"
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
