package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network"
)

// numbered generates the secrets "secret 1", "secret 2" and so on.
func numbered() func() ([]byte, error) {
	n := 0
	return func() ([]byte, error) { n++; return fmt.Appendf(nil, "secret %d", n), nil }
}

// secretSize is the size of the secrets of [numbered].
const secretSize = len("secret 1")

// TestSecretIsRemembered: a file that is removed or changed under a running daemon gives the node no other secret.
func TestSecretIsRemembered(t *testing.T) {
	dir := t.TempDir()
	k := remembering{keeper{&identity{InstanceID: "one"}, dir, nil, keyFiles{}}, map[string][]byte{}}
	generate := numbered()
	for range 2 {
		if got, err := k.Secret("wireguard", secretSize, generate); err != nil || string(got) != "secret 1" {
			t.Fatalf("%q, %v, want secret 1", got, err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "wireguard.secret")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSecretIsKept: a secret stays the same across restarts, and is replaced where the node has another identity, and
// where the node has to give it up.
func TestSecretIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "wireguard.secret")
	generate := numbered()
	original, clone := &identity{InstanceID: "original"}, &identity{InstanceID: "clone"}
	for _, step := range []struct {
		name string
		id   *identity
		do   func() error
		want string
	}{
		{"first start", original, nil, "secret 1"},
		{"restart", original, nil, "secret 1"},
		{"clone", clone, nil, "secret 2"},
		{"restart of the clone", clone, nil, "secret 2"},
		{"shared with another node", clone, func() error {
			_, err := renewer{clone, dir, keyFiles{}}.Secret("wireguard", secretSize, generate)
			return err
		}, "secret 3"},
	} {
		if step.do != nil {
			if err := step.do(); err != nil {
				t.Fatal(step.name, err)
			}
		}
		got, err := keeper{step.id, dir, nil, keyFiles{}}.Secret("wireguard", secretSize, generate)
		if err != nil || string(got) != step.want {
			t.Errorf("%s: %q, %v, want %q", step.name, got, err, step.want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the file has mode %v (%v), want 0600", step.name, info.Mode(), err)
		}
	}
}

// TestUnusableSecret: a secret of another form is not replaced, and the error names the file.
func TestUnusableSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "wireguard.secret")
	k := keeper{&identity{InstanceID: "a"}, dir, nil, keyFiles{}}
	for _, content := range []string{"", `{"instanceID":"a"`, `{"instanceID":"a"}`, `{"instanceID":"a","secret":"c2hvcnQ="}`, `{"secret":"c2VjcmV0IDE="}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := k.Secret("wireguard", secretSize, numbered())
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "delete it") {
			t.Errorf("%q: %v, want an error with the file and what to do", content, err)
		}
		if kept, err := os.ReadFile(path); err != nil || string(kept) != content {
			t.Errorf("%q was replaced by %q, %v", content, kept, err)
		}
	}
}

// TestKeyFiles: flannel's key is taken over once; a file that the user names is used, and made if there is none.
func TestKeyFiles(t *testing.T) {
	if got := (Options{}).keyFiles().flannel["wireguard"]; got != "/run/flannel/wgkey" {
		t.Errorf("flannel's key is looked for at %q", got)
	}
	dir := t.TempDir()
	flannel, named := filepath.Join(dir, "wgkey"), filepath.Join(dir, "own", "key")
	write := func(text string) {
		if err := os.WriteFile(flannel, []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	adopting := keeper{&identity{InstanceID: "a"}, dir, nil, keyFiles{flannel: map[string]string{"wireguard": flannel}}}
	write("bm90IGEga2V5")
	if _, err := adopting.Secret("wireguard", secretSize, numbered()); err == nil || !strings.Contains(err.Error(), flannel) {
		t.Errorf("%v, want an error about %s", err, flannel)
	}
	if err := os.Remove(flannel); err != nil {
		t.Fatal(err)
	}
	write("c2VjcmV0IDk=\n")
	for range 2 { // the second time from the state directory
		if got, err := adopting.Secret("wireguard", secretSize, numbered()); err != nil || string(got) != "secret 9" {
			t.Errorf("%q, %v, want flannel's", got, err)
		}
		_ = os.Remove(flannel)
	}
	k := keeper{&identity{InstanceID: "a"}, dir, nil, keyFiles{named: map[string]string{"wireguard": named}}}
	for range 2 {
		if got, err := k.Secret("wireguard", secretSize, numbered()); err != nil || string(got) != "secret 1" {
			t.Errorf("%q, %v, want the one in %s", got, err, named)
		}
	}
	if data, err := os.ReadFile(named); err != nil || string(data) != "c2VjcmV0IDE=" {
		t.Errorf("%q, %v, want base64 and nothing else", data, err)
	}
	r := renewer{&identity{InstanceID: "a"}, dir, k.keys}
	if _, err := r.Secret("wireguard", secretSize, numbered()); err == nil || !strings.Contains(err.Error(), named) {
		t.Errorf("%v, want an error about %s", err, named)
	}
}

// TestSecretErrors: no error repeats a secret, and no name leads out of the state directory.
func TestSecretErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "taken.secret", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	k := keeper{&identity{InstanceID: "a"}, dir, nil, keyFiles{}}
	refused := errors.New("no entropy")
	for _, tt := range []struct {
		name     string
		generate func() ([]byte, error)
		want     string
	}{
		{"taken", numbered(), "--state-dir"},
		{"../node", numbered(), "lower-case"},
		{"", numbered(), "lower-case"},
		{"other", func() ([]byte, error) { return []byte("secret 1"), refused }, "no entropy"},
	} {
		secret, err := k.Secret(tt.name, secretSize, tt.generate)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret 1") || len(secret) != 0 {
			t.Errorf("%q: %q, %v, want an error with %q", tt.name, secret, err, tt.want)
		}
	}
}

// TestRenewedMAC: a node that shares its MAC address takes another, and keeps that.
func TestRenewedMAC(t *testing.T) {
	id := &identity{}
	k := keeper{id, t.TempDir(), func(string) network.MAC { return network.MAC{} }, keyFiles{}}
	first := k.MAC("flannel.1", network.MAC{})
	second := renewer{id, "", keyFiles{}}.MAC("flannel.1", first)
	if second == first || !second.IsUnicast() || k.MAC("flannel.1", network.MAC{}) != second {
		t.Errorf("first %s, then %s, and kept %s", first, second, k.MAC("flannel.1", network.MAC{}))
	}
}
