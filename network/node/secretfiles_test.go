package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/mesh/exchange"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/cache"
)

// sharedKey is a preshared key in the files of a test.
const sharedKey = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="

// keepsSecrets has the node write all files that can hold other secrets than its key, and returns what they have.
func (k *keyNode) keepsSecrets(t *testing.T) (files map[string][]byte) {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	key := filepath.Join(k.StateDir, exchange.KeyFile)
	config := []byte(`{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard","PSK":"` + sharedKey + `"}}`)
	k.noted = []notedBackend{{Backend: subnet.Backend{Type: "wireguard", Options: []byte(`{"Type":"wireguard","PSK":"` +
		sharedKey + `"}`)}}}
	err := errors.Join(os.WriteFile(token, []byte("a.b.c"), 0o600), writeBackends(k.StateDir, k.noted),
		cache.Write(k.cache.path, cache.Snapshot{Config: config}),
		os.WriteFile(cache.Aside(k.cache.path), []byte("damaged "+sharedKey), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	k.Mesh, err = exchange.Listen(exchange.Options{
		Address: "127.0.0.1:18473", Tokens: exchange.Tokens{File: token, KeyFile: key}, Log: k.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Mesh.Close() })
	files = map[string][]byte{}
	for _, path := range []string{
		filepath.Join(k.StateDir, backendFile), k.cache.path, cache.Aside(k.cache.path), key,
	} {
		if files[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// forEach changes all files.
func forEach(t *testing.T, files map[string][]byte, change func(path string) error) {
	t.Helper()
	for path := range files {
		if err := change(path); err != nil {
			t.Fatal(err)
		}
	}
}

// intact returns what is wrong with a file of the node; nil: it belongs to the owner, who alone may read it.
func intact(path string, owner int) error {
	var s unix.Stat_t
	if err := unix.Lstat(path, &s); err != nil || s.Mode != unix.S_IFREG|0o600 || int(s.Uid) != owner {
		return fmt.Errorf("%s: %w, mode %#o, owner %d, want 0600 and %d", path, err, s.Mode, s.Uid, owner)
	}
	return nil
}

// TestSecretFiles: mode and owner of files that can hold secrets are repaired, and what they have stays. An ordinary
// user who runs this test can make no file of another one: modes only are tried then.
func TestSecretFiles(t *testing.T) {
	const user, other = 65533, 65532
	k := newKeyNode(t, false)
	files := k.keepsSecrets(t)
	right := func(owner int) {
		t.Helper()
		if problem, _ := k.follow(); problem != "" {
			t.Errorf("problem %q", problem)
		}
		for path, want := range files {
			now, err := os.ReadFile(path)
			if err = errors.Join(err, intact(path, owner)); err != nil || !bytes.Equal(now, want) {
				t.Errorf("%v; %s has %q, want %q", err, path, now, want)
			}
		}
	}
	right(os.Geteuid())
	if n := len(k.history.repairs.Last); n != 0 {
		t.Errorf("%d repairs are recorded, want none", n)
	}
	forEach(t, files, func(path string) error { return os.Chmod(path, 0o666) })
	if err := os.Chmod(k.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	right(os.Geteuid())
	if n := len(k.history.repairs.Last); n != len(files) {
		t.Errorf("%d repairs are recorded, want %d", n, len(files))
	}
	if info, err := os.Stat(k.StateDir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v, want that the mode of the directory stays", info, err)
	}
	for path := range files {
		if !strings.Contains(k.log.String(), "file="+path) {
			t.Errorf("%s is not logged: %s", path, k.log.String())
		}
	}
	if strings.Contains(k.log.String(), sharedKey) {
		t.Errorf("the preshared key is logged: %s", k.log.String())
	}
	chown := func(owner int) func(string) error {
		return func(path string) error { return os.Chown(path, owner, -1) }
	}
	if os.Chown(k.StateDir, user, -1) != nil { // an ordinary user, perhaps as root of a namespace with no other user
		return
	}
	forEach(t, files, chown(user))
	right(0)
	for dir := k.StateDir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(k.path, user, -1); err != nil { // the key in use, which is not tried here
		t.Fatal(err)
	}
	forEach(t, files, chown(other))
	forEach(t, files, func(path string) error { return os.Chmod(path, 0o644) })
	asUser(t, user, func() error { right(user); return nil })
	k.unreadable(t, files, user, other)
	// In a directory of another user it cannot be repaired, and the problem says who can read it.
	forEach(t, files, func(path string) error { return os.WriteFile(path, files[path], 0o600) })
	forEach(t, files, chown(other))
	forEach(t, files, func(path string) error { return os.Chmod(path, 0o644) })
	if err := os.Chown(k.StateDir, other, -1); err != nil {
		t.Fatal(err)
	}
	asUser(t, user, func() error {
		problem, _ := k.follow()
		if strings.Count(problem, "mode 0644, owner 65532") != len(files) ||
			strings.Count(problem, "cannot be repaired") != len(files) {
			t.Errorf("problem %q", problem)
		}
		return nil
	})
}

// unreadable checks what becomes of files that the node's user cannot read any more: those whose content it knows are
// written again, now or soon. Others are reported.
func (k *keyNode) unreadable(t *testing.T, files map[string][]byte, user, other int) {
	t.Helper()
	forEach(t, files, func(path string) error {
		return errors.Join(os.Chown(path, other, -1), os.Chmod(path, 0o600))
	})
	k.cache.stale = false
	asUser(t, user, func() error {
		problem, _ := k.follow()
		if strings.Count(problem, "cannot read") != 1 || !strings.Contains(problem, cache.Aside(k.cache.path)) {
			t.Errorf("problem %q", problem)
		}
		return nil
	})
	for path, want := range files {
		switch now, err := os.ReadFile(path); path {
		case k.cache.path:
			if !errors.Is(err, fs.ErrNotExist) || !k.cache.stale {
				t.Errorf("%v, want that the cached leases are to be written again", err)
			}
		case cache.Aside(k.cache.path):
			if err != nil || !bytes.Equal(now, want) {
				t.Errorf("%v, %q, want that %s stays", err, now, path)
			}
		default:
			if err := errors.Join(err, intact(path, user)); err != nil || !bytes.Equal(now, want) {
				t.Errorf("%v; %s has %q, want %q", err, path, now, want)
			}
		}
	}
}

// TestSecretFileLeft: a link is reported, and what it leads to is not touched; nor is what is no file, and a file that
// is being written.
func TestSecretFileLeft(t *testing.T) {
	k := newKeyNode(t, false)
	k.keepsSecrets(t)
	target := filepath.Join(t.TempDir(), "target")
	path := filepath.Join(k.StateDir, backendFile)
	if err := errors.Join(os.Remove(path), os.WriteFile(target, nil, 0o644), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
	if problem, _ := k.follow(); !strings.Contains(problem, path) || !strings.Contains(problem, "mode 0644") {
		t.Errorf("problem %q", problem)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v, want that the file that the link leads to stays as it is", info, err)
	}
	for _, put := range []func() error{
		func() error { return nil },
		func() error { return os.Symlink("/nowhere", path) },
		func() error { return os.Mkdir(path, 0o755) },
		func() error { return unix.Mkfifo(path, 0o644) },
	} {
		if err := errors.Join(os.RemoveAll(path), put()); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(path)
		if problem, _ := k.follow(); problem != "" {
			t.Errorf("problem %q", problem)
		}
		if after, _ := os.Lstat(path); (before == nil) != (after == nil) || before != nil && after.Mode() != before.Mode() {
			t.Errorf("%v has become %v", before, after)
		}
	}
	k.cache.writing = true
	if err := os.Chmod(k.cache.path, 0o644); err != nil {
		t.Fatal(err)
	}
	if problem, _ := k.follow(); problem != "" {
		t.Errorf("problem %q", problem)
	}
	if info, err := os.Stat(k.cache.path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v, want that the write that is under way replaces the file", info, err)
	}
}

// TestSecretFilesOfNode: a node repairs the modes of its files at its start, and with every resync.
func TestSecretFilesOfNode(t *testing.T) {
	ownUplink(t)
	store, dir := newMemStore(), t.TempDir()
	store.putConfig(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	files := map[string][]byte{filepath.Join(dir, backendFile): nil, filepath.Join(dir, cacheFile): nil}
	written := func() error {
		for path := range files {
			if err := intact(path, os.Geteuid()); err != nil {
				return err
			}
		}
		return nil
	}
	n := startNode(t, expiring{store}, dir)
	n.waitState(t, status.Ready)
	eventually(t, "the files", written)
	n.stop()
	widen := func() {
		t.Helper()
		forEach(t, files, func(path string) error { return os.Chmod(path, 0o644) })
	}
	widen()
	n = startNodeWith(t, expiring{store}, dir, func(o *Options) { o.Resync = 100 * time.Millisecond })
	n.waitState(t, status.Ready)
	eventually(t, "the files", written)
	n.waitLog(t, "repaired mode and owner of a file that can hold the preshared key of the network config")
	widen()
	eventually(t, "the files", written)
}
