package kube

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestConfigMap follows the network config through the links of a mounted ConfigMap, as kubelet replaces them.
func TestConfigMap(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "net-conf.json")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	publish := func(version, content string) {
		t.Helper()
		data := filepath.Join(dir, version)
		must(os.Mkdir(data, 0o755))
		must(os.WriteFile(filepath.Join(data, "net-conf.json"), []byte(content), 0o644))
		must(os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	publish("..1", "first")
	must(os.Symlink(filepath.Join("..data", "net-conf.json"), path))
	ctx, cancel := context.WithCancel(t.Context())
	c := newNetConf(path)
	ended := make(chan struct{})
	go func() { defer close(ended); c.watch(ctx) }()
	defer func() { cancel(); <-ended }()
	wait := func(want string) {
		t.Helper()
		deadline := time.After(patience)
		for {
			c.read(func(err error) { t.Error(err) })
			if string(c.data) == want {
				return
			}
			select {
			case <-c.changed:
			case <-deadline:
				t.Fatalf("the config is %q, want %q", c.data, want)
			}
		}
	}
	wait("first")
	<-c.changed // the watch is set up
	publish("..2", "second")
	wait("second")
	publish("..3", "")
	wait("")
	if c.data == nil {
		t.Error("an empty file is no file")
	}
}

func TestUnreadableConfig(t *testing.T) {
	dir := t.TempDir()
	c := newNetConf(filepath.Join(dir, "net-conf.json"))
	lines := 0
	log := func(error) { lines++ }
	if !c.read(log) || c.data != nil || c.read(log) {
		t.Errorf("no file is %q", c.data)
	}
	if err := os.WriteFile(c.path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if !c.read(log) || string(c.data) != "{}" || lines != 0 {
		t.Errorf("the file is %q, %d lines", c.data, lines)
	}
	if err := os.Remove(c.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.path, 0o755); err != nil { // root can read every file
		t.Fatal(err)
	}
	for range 3 {
		if c.read(log) || string(c.data) != "{}" {
			t.Errorf("what cannot be read changes the config to %q", c.data)
		}
	}
	if lines != 1 {
		t.Errorf("%d lines", lines)
	}
}
