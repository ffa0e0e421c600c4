package cniplugin

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const keptConfig = `{"cniVersion":"1.0.0","name":"cbr0","type":"bridge"}`

func TestStore(t *testing.T) {
	s := store{filepath.Join(t.TempDir(), "lib", "flannel")}
	a := attachment{"cbr0", "c1", "eth0"}
	if st, err := s.load(a); err != nil || st.path != "" || st.config != nil || s.has(a) {
		t.Fatalf("before: %+v, %v", st, err)
	}
	for _, config := range []string{`{"type":"ptp","name":"cbr0"}`, keptConfig} { // the second replaces the first
		if err := s.save(a, []byte(config)); err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.load(a)
	if err != nil || !s.has(a) || string(st.config["type"]) != `"bridge"` {
		t.Fatalf("after save: %+v, %v", st, err)
	}
	wantFiles(t, s.dir, "c1") // flannel's place
	if info, err := os.Stat(st.path); err != nil || info.Mode() != 0o600 {
		t.Errorf("file: %v, %v, want mode 0600", info.Mode(), err)
	}
	if info, err := os.Stat(s.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v, want mode 0700", info.Mode(), err)
	}
	for range 2 { // two DELs at once both succeed
		if err := s.remove(st); err != nil {
			t.Fatal(err)
		}
	}
	wantFiles(t, s.dir)
}

func TestStoreKeepsAttachmentsApart(t *testing.T) {
	s := store{t.TempDir()}
	all := []attachment{
		{"a", "b-c", "d"}, {"a", "b", "c-d"}, {"a-b", "c", "d"}, {"a", "b", "c.d"}, {"a", "b.c", "d"}, {"a.b", "c", "d"}, {"a", "b", "d"},
	}
	for _, a := range all {
		if err := a.check(); err != nil {
			t.Fatal(err)
		}
		if s.has(a) {
			t.Errorf("%v shares a file with another", a)
		}
		if err := s.save(a, []byte(keptConfig)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoreFindsWhatFlannelLeft(t *testing.T) {
	s := store{t.TempDir()}
	write(t, filepath.Join(s.dir, "c1"), keptConfig)
	st, err := s.load(attachment{"cbr0", "c1", "eth0"})
	if err != nil || st.config == nil || st.path != filepath.Join(s.dir, "c1") {
		t.Errorf("got %+v, %v, want flannel's file", st, err)
	}
	if st, err := s.load(attachment{"other", "c1", "eth0"}); err != nil || st.path != "" {
		t.Errorf("got %+v, %v: that file is another network's", st, err)
	}
	if err := s.save(attachment{"cbr0", "c1", "eth0"}, []byte(keptConfig)); err != nil {
		t.Fatal(err)
	}
	if st, err = s.load(attachment{"cbr0", "c1", "eth0"}); err != nil || st.path != filepath.Join(s.dir, "cbr0:c1:eth0") {
		t.Errorf("got %+v, %v, want our own file first", st, err)
	}
	if got := string(read(t, filepath.Join(s.dir, "c1"))); got != keptConfig {
		t.Errorf("flannel's file is now %s", got)
	}
}

// TestStoreInFlannelsPlace: what flannel's plugin finds of a container is the first attachment, until that is removed.
func TestStoreInFlannelsPlace(t *testing.T) {
	s := store{t.TempDir()}
	eth0, net1, other := attachment{"cbr0", "c1", "eth0"}, attachment{"cbr0", "c1", "net1"}, attachment{"other", "c1", "net2"}
	save := func(a attachment, config string) {
		t.Helper()
		if err := s.save(a, []byte(config)); err != nil {
			t.Fatal(err)
		}
	}
	save(eth0, keptConfig)
	save(net1, keptConfig)
	save(other, `{"type":"ptp","name":"other"}`)
	save(eth0, `{"name":"cbr0","type":"macvlan"}`) // replaces the first
	wantFiles(t, s.dir, "c1", "cbr0:c1:net1", "other:c1:net2")
	place := filepath.Join(s.dir, "c1")
	if got := string(read(t, place)); got != `{"name":"cbr0","selvage.io/interface":"eth0","type":"macvlan"}` {
		t.Errorf("in flannel's place is %s", got)
	}
	for a, plugin := range map[attachment]string{eth0: `"macvlan"`, net1: `"bridge"`, other: `"ptp"`} {
		if st, err := s.load(a); err != nil || string(st.config["type"]) != plugin || !s.has(a) {
			t.Errorf("%v: %+v, %v, want %s", a, st, err, plugin)
		}
	}
	for _, a := range []attachment{{"cbr0", "c1", "net3"}, {"other", "c1", "eth0"}} {
		if st, err := s.load(a); err != nil || st.path != "" || s.has(a) {
			t.Errorf("%v: %+v, %v, want nothing: the file in flannel's place is eth0's", a, st, err)
		}
	}
	list, err := s.list("cbr0")
	if err != nil || !slices.Equal(list, []attachment{eth0, net1}) {
		t.Errorf("list: %v, %v", list, err)
	}
	if err := s.drop(eth0); err != nil {
		t.Fatal(err)
	}
	save(net1, keptConfig)
	wantFiles(t, s.dir, "cbr0:c1:net1", "other:c1:net2")
	save(eth0, keptConfig)
	write(t, place, "") // cut short
	save(eth0, keptConfig)
	wantFiles(t, s.dir, "c1", "cbr0:c1:net1", "other:c1:net2")
	if !s.has(eth0) {
		t.Error("a damaged file is not replaced")
	}
}

func TestStoreDamagedFile(t *testing.T) {
	s := store{t.TempDir()}
	a := attachment{"cbr0", "c1", "eth0"}
	for _, damaged := range []string{"", keptConfig[:20], "null", `{"name":"cbr0"}`, `{"name":"cbr0","type":"/bin/sh"}`} {
		for _, path := range []string{s.path(a), s.flannelPath(a)} {
			write(t, path, damaged)
			if st, err := s.load(a); err != nil || st.config != nil || st.path != path {
				t.Errorf("%q: got %+v, %v, want a path without a configuration", damaged, st, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestStoreFails(t *testing.T) {
	a := attachment{"cbr0", "c1", "eth0"}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "content")
	if err := (store{filepath.Join(dir, "file")}).save(a, nil); err == nil {
		t.Error("saved where the directory is a file")
	}
	s := store{filepath.Join(dir, "state")}
	for _, path := range []string{s.path(a), s.flannelPath(a)} {
		if err := os.MkdirAll(filepath.Join(path, "content"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.save(a, []byte(keptConfig)); err == nil {
		t.Error("saved where a directory is")
	}
	wantFiles(t, s.dir, "c1", "cbr0:c1:eth0") // and no temporary file
	if st, err := s.load(a); err != nil || st.path != "" {
		t.Errorf("loaded a directory: %+v, %v", st, err)
	}
	long := attachment{"cbr0", strings.Repeat("c", 250), "eth0"}
	if err := s.save(long, []byte(keptConfig)); err == nil || !strings.Contains(err.Error(), "260 bytes long") {
		t.Errorf("saved under a name of 260 bytes: %v", err)
	}
	if st, err := s.load(long); err != nil || st.path != "" {
		t.Errorf("got %+v, %v for what cannot have been saved", st, err)
	}
}

func TestAttachmentCheck(t *testing.T) {
	for _, bad := range []attachment{
		{"", "c1", "eth0"}, {"../x", "c1", "eth0"}, {"a/b", "c1", "eth0"}, {"a:b", "c1", "eth0"}, {".", "c1", "eth0"},
		{"cbr0", "", "eth0"}, {"cbr0", "../x", "eth0"}, {"cbr0", "..", "eth0"}, {"cbr0", "a:b", "eth0"}, {"cbr0", "a\nb", "eth0"},
		{"cbr0", "c1", ""}, {"cbr0", "c1", "../x"}, {"cbr0", "c1", ".."}, {"cbr0", "c1", "a:b"}, {"cbr0", "c1", "0123456789abcdef"},
	} {
		if err := bad.check(); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := (attachment{"cbr0.7_a-b", "0123.c_d-e", "veth-1.7@x"}).check(); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantFiles fails unless dir holds just the named files.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}
