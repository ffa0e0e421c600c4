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

// TestSecretIsKept: a secret stays the same across restarts, and is replaced where the node has another identity, where
// the file is damaged, and where the node has to give it up.
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
		{"damaged file", clone, func() error { return os.WriteFile(path, []byte(`{"instanceID":"clone"`), 0o600) }, "secret 3"},
		{"empty secret", clone, func() error { return os.WriteFile(path, []byte(`{"instanceID":"clone"}`), 0o600) }, "secret 4"},
		{"shared with another node", clone, func() error {
			_, err := renewer{clone, dir}.Secret("wireguard", generate)
			return err
		}, "secret 5"},
	} {
		if step.do != nil {
			if err := step.do(); err != nil {
				t.Fatal(step.name, err)
			}
		}
		got, err := keeper{step.id, dir, nil}.Secret("wireguard", generate)
		if err != nil || string(got) != step.want {
			t.Errorf("%s: %q, %v, want %q", step.name, got, err, step.want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the file has mode %v (%v), want 0600", step.name, info.Mode(), err)
		}
	}
}

// TestSecretErrors: no error repeats a secret, and no name leads out of the state directory.
func TestSecretErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "taken.secret", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	k := keeper{&identity{InstanceID: "a"}, dir, nil}
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
		secret, err := k.Secret(tt.name, tt.generate)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret 1") || len(secret) != 0 {
			t.Errorf("%q: %q, %v, want an error with %q", tt.name, secret, err, tt.want)
		}
	}
}

// TestRenewedMAC: a node that shares its MAC address takes another, and keeps that.
func TestRenewedMAC(t *testing.T) {
	id := &identity{}
	k := keeper{id, t.TempDir(), func(string) network.MAC { return network.MAC{} }}
	first := k.MAC("flannel.1", network.MAC{})
	second := renewer{id, ""}.MAC("flannel.1", first)
	if second == first || !second.IsUnicast() || k.MAC("flannel.1", network.MAC{}) != second {
		t.Errorf("first %s, then %s, and kept %s", first, second, k.MAC("flannel.1", network.MAC{}))
	}
}
