package node

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/subnet"
)

func TestJudgeKeyFile(t *testing.T) {
	key, other := []byte("secret 1"), []byte("secret 2")
	for _, tt := range []struct {
		found       []byte
		mode        fs.FileMode
		owner, user uint32
		err         error
		want        keyFileState
	}{
		{key, 0o600, 0, 0, nil, keyFileIntact},
		{key, 0o400, 0, 0, nil, keyFileIntact},
		{key, 0o600, 7, 7, nil, keyFileIntact},
		{key, 0o600, 0, 7, nil, keyFileIntact}, // root reads all files
		{key, 0o640, 0, 0, nil, keyFileOpen},
		{key, 0o602, 7, 7, nil, keyFileOpen},
		{key, 0o600, 7, 0, nil, keyFileOpen},
		{key, 0o000, 8, 7, nil, keyFileOpen},
		{other, 0o600, 0, 0, nil, keyFileOther},
		{nil, 0o644, 7, 0, nil, keyFileOther},
		{nil, 0, 0, 0, fmt.Errorf("read: %w", fs.ErrNotExist), keyFileMissing},
		{nil, 0o600, 0, 7, fmt.Errorf("read: %w", fs.ErrPermission), keyFileUnreadable},
		{nil, 0o600, 0, 0, errors.New("damaged"), keyFileDamaged},
	} {
		open := access{tt.mode, tt.owner}.open(0o077, tt.user)
		if got := judgeKeyFile(key, tt.found, open, tt.err); got != tt.want {
			t.Errorf("%q, mode %#o, owner %d, user %d, %v: %d, want %d", tt.found, tt.mode, tt.owner, tt.user, tt.err,
				got, tt.want)
		}
	}
}

// keyNode is a node with a key in use, which is "secret 1".
type keyNode struct {
	*node
	path string
	log  bytes.Buffer
	now  time.Time
}

func newKeyNode(t *testing.T, named bool) *keyNode {
	t.Helper()
	dir := t.TempDir()
	k := &keyNode{path: filepath.Join(dir, "wireguard.secret"), now: time.Now()}
	log := logrus.New()
	log.SetOutput(&k.log)
	o := Options{StateDir: dir, Log: log}
	if named {
		k.path = filepath.Join(dir, "users", "key")
		o.KeyFiles = map[string]string{"wireguard": k.path}
	}
	k.node = &node{
		Options: o, journal: newJournal(log), identity: &identity{InstanceID: "a"}, secrets: map[string][]byte{},
		cache: &leaseCache{path: filepath.Join(dir, cacheFile)},
	}
	if _, err := k.keep().Secret("wireguard", secretSize, numbered()); err != nil {
		t.Fatal(err)
	}
	return k
}

// follow is what the loop does after a notification of a change, some time after the last one.
func (k *keyNode) follow() (problem string, wake alarm) {
	k.now = k.now.Add(2 * publishBackoff.Max)
	k.keysDue = true
	wake = alarm{now: k.now}
	k.followKeyFiles(&wake)
	return k.journal.open[topicKeyFile].text, wake
}

func (k *keyNode) write(t *testing.T, text string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(k.path), os.WriteFile(k.path, []byte(text), mode), os.Chmod(k.path, mode)); err != nil {
		t.Fatal(err)
	}
}

// secretive checks that no form of a key has been logged.
func (k *keyNode) secretive(t *testing.T) {
	t.Helper()
	for _, key := range []string{"secret 1", "secret 2"} {
		if text := k.log.String(); strings.Contains(text, key) ||
			strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(key))) {
			t.Errorf("the key is logged: %s", text)
		}
	}
}

// TestOwnKeyFile: a file in the state directory is written again with the key in use, and its mode is repaired. One that
// another process has changed is not touched, but reported.
func TestOwnKeyFile(t *testing.T) {
	k := newKeyNode(t, false)
	before, err := os.ReadFile(k.path)
	if err != nil {
		t.Fatal(err)
	}
	intact := func(repairs int) {
		t.Helper()
		if problem, _ := k.follow(); problem != "" {
			t.Errorf("problem %q", problem)
		}
		info, err := os.Stat(k.path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, %v, want 0600", info, err)
		}
		if now, err := os.ReadFile(k.path); err != nil || !bytes.Equal(bytes.TrimSpace(now), bytes.TrimSpace(before)) {
			t.Errorf("the file has %q, %v, want %q", now, err, before)
		}
		if n := len(k.history.repairs.Last); n != repairs {
			t.Errorf("%d repairs are recorded, want %d", n, repairs)
		}
	}
	intact(0)
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	intact(1)
	k.write(t, string(before), 0o644)
	intact(2)
	if text := k.log.String(); strings.Count(text, "key file") < 2 || !strings.Contains(text, "rotate-key") {
		t.Errorf("logged: %s", text)
	}
	for _, x := range []struct{ content, want string }{
		{`{"instanceID":"a","secret":"` + base64.StdEncoding.EncodeToString([]byte("secret 2")) + `"}`, "does not hold the key"},
		{strings.Replace(string(before), `"a"`, `"b"`, 1), "does not hold the key"},
		{"", "holds no key"},
	} {
		k.write(t, x.content, 0o600)
		problem, _ := k.follow()
		if !strings.Contains(problem, x.want) || !strings.Contains(problem, k.path) || !strings.Contains(problem, "rotate-key") {
			t.Errorf("problem %q, want %q", problem, x.want)
		}
		if now, err := os.ReadFile(k.path); err != nil || string(now) != x.content {
			t.Errorf("the file has %q, %v, want that it is left alone", now, err)
		}
	}
	k.write(t, string(before), 0o600)
	intact(2)
	k.secretive(t)
}

// TestOwnKeyFileLink: where the file is a link that leads nowhere, a volume may not be mounted. It stays.
func TestOwnKeyFileLink(t *testing.T) {
	k := newKeyNode(t, false)
	if err := errors.Join(os.Remove(k.path), os.Symlink("/nowhere/key", k.path)); err != nil {
		t.Fatal(err)
	}
	if problem, _ := k.follow(); !strings.Contains(problem, "is missing") {
		t.Errorf("problem %q", problem)
	}
	if target, err := os.Readlink(k.path); err != nil || target != "/nowhere/key" {
		t.Errorf("%q, %v, want that the link stays", target, err)
	}
}

// TestKeyFileConflict: a process that keeps removing the file does not keep the daemon busy, and a failed repair is
// reported and tried again.
func TestKeyFileConflict(t *testing.T) {
	k := newKeyNode(t, false)
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	k.follow()
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	k.keysDue = true
	wake := alarm{now: k.now}
	k.followKeyFiles(&wake)
	if _, err := os.Stat(k.path); err == nil || !wake.at.After(k.now) || !k.keysDue {
		t.Errorf("%v, alarm at %v, want that the file is written later", err, wake.at.Sub(k.now))
	}
	wake = alarm{now: wake.at}
	k.followKeyFiles(&wake)
	if _, err := os.Stat(k.path); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Remove(k.path), os.RemoveAll(k.StateDir), os.WriteFile(k.StateDir, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	problem, wake := k.follow()
	if problem == "" || wake.at.IsZero() || !k.keysDue {
		t.Errorf("problem %q, alarm %v, want another attempt", problem, wake.at)
	}
	if err := os.Remove(k.StateDir); err != nil {
		t.Fatal(err)
	}
	if problem, _ := k.follow(); problem != "" || k.keysDue {
		t.Errorf("problem %q after a success", problem)
	}
	k.secretive(t)
}

// TestResumedKeyFile: after a restart in the middle of a change of the key, the file of the new key is followed from the
// stage on in which it has been written.
func TestResumedKeyFile(t *testing.T) {
	for stage := backend.Offered; stage <= backend.Ending; stage++ {
		k := newKeyNode(t, false)
		k.config = &subnet.Config{Backend: subnet.Backend{Type: "wireguard"}}
		noted := notedRotation{"a", stage.String(), bytes.Repeat([]byte{1}, keySize), bytes.Repeat([]byte{2}, keySize),
			time.Now(), false}
		clear(k.secrets)
		if err := errors.Join(noted.write(k.StateDir), os.Remove(k.path), k.resumeRotation()); err != nil {
			t.Fatal(err)
		}
		if problem, _ := k.follow(); problem != "" {
			t.Errorf("stage %s: problem %q", stage, problem)
		}
		key, err := k.keep().Secret("wireguard", keySize, func() ([]byte, error) { return nil, errors.New("made anew") })
		if want := stage >= backend.Returning; (err == nil) != want || want && !bytes.Equal(key, noted.New) {
			t.Errorf("stage %s: %v, want the new key: %t", stage, err, want)
		}
		if _, err := os.Stat(k.path); (err == nil) != (stage >= backend.Returning) {
			t.Errorf("stage %s: %v", stage, err)
		}
	}
}

// rotates has the node change its key, and returns the path of the file that holds both keys.
func (k *keyNode) rotates(t *testing.T) string {
	t.Helper()
	k.rotating.noted = notedRotation{"a", backend.Left.String(), []byte("secret 1"), []byte("secret 2"), time.Now(), false}
	if err := k.rotating.noted.write(k.StateDir); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(k.StateDir, rotationFile)
}

// TestRotationFile: the file of a change of the key is written again whatever has become of it, as long as the change is
// under way.
func TestRotationFile(t *testing.T) {
	k := newKeyNode(t, false)
	path := k.rotates(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, harm := range []func() error{
		func() error { return nil },
		func() error { return os.Remove(path) },
		func() error { return os.Chmod(path, 0o644) },
		func() error { return os.WriteFile(path, nil, 0o600) },
		func() error {
			return os.WriteFile(path, bytes.Replace(good, []byte("left"), []byte("offered"), 1), 0o600)
		},
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if problem, _ := k.follow(); problem != "" {
			t.Errorf("%d: problem %q", i, problem)
		}
		info, err := os.Stat(path)
		now, readErr := os.ReadFile(path)
		if err = errors.Join(err, readErr); err != nil || info.Mode() != 0o600 || !bytes.Equal(now, good) {
			t.Errorf("%d: %v, %v, want the file as it was", i, info, err)
		}
		if n := len(k.history.repairs.Last); n != i {
			t.Errorf("%d: %d repairs are recorded", i, n)
		}
	}
	k.rotating.noted = notedRotation{}
	if err := removeRotation(k.StateDir); err != nil {
		t.Fatal(err)
	}
	if problem, _ := k.follow(); problem != "" {
		t.Errorf("problem %q", problem)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that the file is not written after the change", err)
	}
	k.secretive(t)
}

// asUser runs do as another user, without the rights of root.
func asUser(t *testing.T, user int, do func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if _, _, no := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user), uintptr(user), uintptr(user)); no != 0 {
			result <- no
			return
		}
		result <- do()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// TestKeyFileOwner: a file of another user is repaired by root, and by an ordinary user in a directory of its own. An
// ordinary user who runs this test can make no file of another one: modes only are tried then.
func TestKeyFileOwner(t *testing.T) {
	const user, other = 65533, 65532
	k := newKeyNode(t, false)
	paths := []string{k.path, k.rotates(t)}
	right := func(owner int) {
		t.Helper()
		if problem, _ := k.follow(); problem != "" {
			t.Errorf("problem %q", problem)
		}
		for _, path := range paths {
			var s unix.Stat_t
			if err := unix.Stat(path, &s); err != nil || s.Mode != unix.S_IFREG|0o600 || int(s.Uid) != owner {
				t.Errorf("%s: %v, mode %#o, owner %d, want 0600 and %d", path, err, s.Mode, s.Uid, owner)
			}
		}
	}
	all := func(change func(path string) error) {
		t.Helper()
		for _, path := range paths {
			if err := change(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if os.Chown(k.path, user, -1) != nil { // an ordinary user, perhaps as root of a namespace with no other user
		all(func(path string) error { return os.Chmod(path, 0o666) })
		right(os.Geteuid())
		return
	}
	all(func(path string) error { return os.Chown(path, user, -1) })
	right(0)
	all(func(path string) error { return os.Chown(path, other, -1) })
	if err := os.Chown(k.StateDir, user, -1); err != nil {
		t.Fatal(err)
	}
	for dir := k.StateDir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	asUser(t, user, func() error { right(user); return nil })
	all(func(path string) error { return os.Chmod(path, 0o666) })
	asUser(t, user, func() error { right(user); return nil })
	// In a directory of another user it cannot be repaired, and the problem says who can read it.
	all(func(path string) error { return os.Chown(path, other, -1) })
	if err := os.Chown(k.StateDir, other, -1); err != nil {
		t.Fatal(err)
	}
	asUser(t, user, func() error {
		problem, _ := k.follow()
		if strings.Count(problem, "owner 65532") != 2 || strings.Count(problem, "cannot be repaired") != 2 {
			t.Errorf("problem %q", problem)
		}
		return nil
	})
	k.secretive(t)
}

// TestNamedKeyFile: a file that the user names is reported, and never touched.
func TestNamedKeyFile(t *testing.T) {
	k := newKeyNode(t, true)
	text := func(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }
	for _, x := range []struct {
		content string
		mode    fs.FileMode
		want    string
	}{
		{text("secret 1") + "\n", 0o400, ""},
		{text("secret 1"), 0o640, ""}, // for a group, such as the fsGroup of a pod
		{text("secret 1"), 0o644, "other users than that of selvaged can read"},
		{text("secret 2"), 0o600, "does not hold the key"},
		{"no key", 0o600, "holds no key"},
	} {
		k.write(t, x.content, x.mode)
		problem, _ := k.follow()
		if !strings.Contains(problem, x.want) || (problem == "") != (x.want == "") {
			t.Errorf("%#o: problem %q, want %q", x.mode, problem, x.want)
		}
		info, err := os.Stat(k.path)
		now, readErr := os.ReadFile(k.path)
		if err = errors.Join(err, readErr); err != nil || info.Mode() != x.mode || string(now) != x.content {
			t.Errorf("the file has changed: %v, %v", info, err)
		}
	}
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	if problem, _ := k.follow(); !strings.Contains(problem, "is missing") || !strings.Contains(problem, "rotate-key") {
		t.Errorf("problem %q", problem)
	}
	if _, err := os.Stat(k.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that the file is not written", err)
	}
	k.secretive(t)
}
