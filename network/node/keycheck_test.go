package node

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/subnet"
)

func TestJudgeKeyFile(t *testing.T) {
	key, other := []byte("secret 1"), []byte("secret 2")
	for _, tt := range []struct {
		found []byte
		mode  fs.FileMode
		err   error
		want  keyFileState
	}{
		{key, 0o600, nil, keyFileIntact},
		{key, 0o400, nil, keyFileIntact},
		{key, 0o640, nil, keyFileOpen},
		{key, 0o602, nil, keyFileOpen},
		{other, 0o600, nil, keyFileOther},
		{nil, 0o644, nil, keyFileOther},
		{nil, 0, fmt.Errorf("read: %w", fs.ErrNotExist), keyFileMissing},
		{nil, 0o600, errors.New("damaged"), keyFileDamaged},
	} {
		if got := judgeKeyFile(key, tt.found, tt.mode, 0o077, tt.err); got != tt.want {
			t.Errorf("%q, mode %#o, %v: %d, want %d", tt.found, tt.mode, tt.err, got, tt.want)
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
	if problem == "" || wake.at.IsZero() {
		t.Errorf("problem %q, alarm %v, want another attempt", problem, wake.at)
	}
	if err := os.Remove(k.StateDir); err != nil {
		t.Fatal(err)
	}
	if problem, _ := k.follow(); problem != "" {
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
		{text("secret 1"), 0o644, "users other than the owner"},
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
