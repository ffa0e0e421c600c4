package subnetfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStatusRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flannel", "subnet.env")
	if s, err := ReadStatus(path); err != nil || s != (Status{Usable: true}) {
		t.Errorf("without a file: %+v, %v, want usable", s, err)
	}
	for _, want := range []Status{
		{Reason: "etcd was never reached"},
		{Reason: "etcd was never reached"}, // the same again
		{Limited: true, Reason: "flannel.1 cannot be made: \"exists\"\nelsewhere"},
		{},
		{Usable: true, PolicySocket: "/run/selvage/selvaged.sock"},
		{Reason: "no lease", PolicySocket: "/run/selvage/selvaged.sock"},
		{Usable: true},
		{Usable: true}, // already gone
	} {
		if err := WriteStatus(path, want); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadStatus(path); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestStatusFormat holds what is on disk: others read it too.
func TestStatusFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	if err := WriteStatus(path, Status{Limited: true, Reason: "no uplink"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path + ".status")
	const want = `{"version":1,"usable":false,"limited":true,"reason":"no uplink"}` + "\n"
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if err := WriteStatus(path, Status{Usable: true, PolicySocket: "/run/x.sock"}); err != nil {
		t.Fatal(err)
	}
	got, err = os.ReadFile(path + ".status")
	if err != nil || string(got) != `{"version":1,"usable":true,"policy_socket":"/run/x.sock"}`+"\n" {
		t.Errorf("with network policies: %s, %v", got, err)
	}
	if info, err := os.Stat(path + ".status"); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v, want mode 0644", info.Mode(), err)
	}
}

func TestReadStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	for content, want := range map[string]Status{
		`{"version":1,"usable":true}`:                               {Usable: true},
		`{"version":1,"usable":true,"limited":true,"reason":"old"}`: {Usable: true},
		`{"version":1,"usable":false}`:                              {},
		`{"version":2,"usable":false,"reason":"x","since":"today"}`: {Reason: "x"},
		`{"version":1,"usable":true,"policy_socket":"/run/x.sock"}`: {Usable: true, PolicySocket: "/run/x.sock"},
	} {
		if err := os.WriteFile(StatusPath(path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadStatus(path); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", content, got, err, want)
		}
	}
	for content, want := range map[string]string{
		``:                               "was not written by selvaged",
		`{"version":1,"usable":"no"}`:    "was not written by selvaged",
		`[]`:                             "was not written by selvaged",
		`{"usable":false}`:               "lacks a version",
		`{"version":1}`:                  `lacks a version or "usable"`,
		`{"version":0,"usable":true}`:    "lacks a version",
		`{"version":1,"usable":false}{}`: "was not written by selvaged",
	} {
		if err := os.WriteFile(StatusPath(path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := ReadStatus(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path+".status") {
			t.Errorf("%s: got %+v, %v, want an error that says %q and where", content, s, err, want)
		}
	}
}

func TestStatusFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "subnet.env")
	if err := os.MkdirAll(filepath.Join(StatusPath(path), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadStatus(path); err == nil || !strings.Contains(err.Error(), "read status file") {
		t.Errorf("read a directory: %v", err)
	}
	if err := WriteStatus(path, Status{Usable: true}); err == nil || !strings.Contains(err.Error(), "remove status file") {
		t.Errorf("removed a directory that is not empty: %v", err)
	}
	if err := WriteStatus(path, Status{}); err == nil || !strings.Contains(err.Error(), "write status file") {
		t.Errorf("wrote over a directory: %v", err)
	}
}
