package filewatch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const gone = "gone"

// watch starts a Watch that ends with the test. Each of its calls tells what is in the file then.
func watch(t *testing.T, path string) (seen chan string) {
	t.Helper()
	seen = make(chan string, 100)
	done := make(chan error)
	look := func() {
		data, err := os.ReadFile(path)
		if err != nil {
			data = []byte(gone)
		}
		seen <- string(data)
	}
	go func() { done <- Watch(t.Context(), look, path) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return seen
}

// waitFor waits for a call that found want in the file.
func waitFor(t *testing.T, seen chan string, want, after string) {
	t.Helper()
	timeout := time.After(2 * time.Minute)
	for {
		select {
		case got := <-seen:
			if got == want {
				return
			}
		case <-timeout:
			t.Fatalf("not called after %s", after)
		}
	}
}

func TestWatchTellsOfEachChange(t *testing.T) {
	above := filepath.Join(t.TempDir(), "var")
	if err := os.Mkdir(above, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(above, "run")
	path, other := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "other")
	write := func(path, content string) func() error {
		return func() error { return os.WriteFile(path, []byte(content), 0o644) }
	}
	hold := func() error { // the kernel does not report the removal of a directory with an open file
		f, err := os.Create(filepath.Join(dir, "lock"))
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return err
	}
	seen := watch(t, path)
	remove := func(path string) func() error { return func() error { return os.Remove(path) } }
	open := func() error {
		f, err := os.Open(path)
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return err
	}
	for _, step := range []struct {
		what string
		do   []func() error
		want string
	}{
		{"it was written into a new directory", []func() error{func() error { return os.Mkdir(dir, 0o755) }, write(path, "a")}, "a"},
		{"it was written", []func() error{write(path, "b")}, "b"},
		{"it was replaced", []func() error{write(other, "c"), func() error { return os.Rename(other, path) }}, "c"},
		{"it was moved away", []func() error{func() error { return os.Rename(path, other) }}, gone},
		{"it was moved back", []func() error{func() error { return os.Rename(other, path) }}, "c"},
		{"it was removed", []func() error{func() error { return os.Remove(path) }}, gone},
		{"it was written again", []func() error{write(path, "d")}, "d"},
		{"its directory was removed", []func() error{func() error { return os.RemoveAll(dir) }}, gone},
		{"its directory was made again", []func() error{func() error { return os.Mkdir(dir, 0o755) }, write(path, "e")}, "e"},
		{"its directory was moved away", []func() error{func() error { return os.Rename(dir, dir+".old") }}, gone},
		{"its directory was moved back", []func() error{func() error { return os.Rename(dir+".old", dir) }}, "e"},
		{"its directory was removed while a file in it was open", []func() error{hold, func() error { return os.RemoveAll(dir) }}, gone},
		{"its directory was made once more", []func() error{func() error { return os.Mkdir(dir, 0o755) }, write(path, "f")}, "f"},
		{"it was written into that directory", []func() error{write(path, "g")}, "g"},
		{"it was removed while it was open", []func() error{open, remove(path)}, gone},
		{"its empty directory was replaced", []func() error{
			remove(dir), func() error { return os.Mkdir(dir, 0o755) }, write(path, "h")}, "h"},
		{"the directory above was moved away", []func() error{func() error { return os.Rename(above, above+".old") }}, gone},
		{"the directory above was made again", []func() error{func() error { return os.MkdirAll(dir, 0o755) }, write(path, "i")}, "i"},
	} {
		for _, do := range step.do {
			if err := do(); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, seen, step.want, step.what)
	}
}

// A file of others in the directory is none of our business; what is written to ours after it is the next thing heard.
func TestWatchIsSilentAboutOtherFiles(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "other")
	seen := watch(t, path)
	waitFor(t, seen, gone, "the start")
	for range 100 {
		if err := os.WriteFile(other, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "x" {
		t.Errorf("called when the file was %q, before anything happened to it", got)
	}
}

// TestMinInterval keeps changing the file: the calls are at least minInterval apart.
func TestMinInterval(t *testing.T) {
	const calls = 6
	path := filepath.Join(t.TempDir(), "subnet.env")
	start := time.Now()
	seen := watch(t, path)
	for len(seen) < calls {
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := time.Since(start), (calls-1)*minInterval; got < want {
		t.Errorf("called %d times in %s, want at least %s", calls, got, want)
	}
	waitFor(t, seen, "x", "it was written again and again")
}
