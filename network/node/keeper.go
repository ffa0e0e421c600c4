package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/selvage-net/selvage/network"
)

// keeper is the [backend.Keeper] of a node. MAC addresses are kept in the identity, which is saved with it; each secret
// is kept in a file of its own in the state directory.
type keeper struct {
	*identity
	dir     string
	present func(device string) network.MAC // the MAC address that a device has now, or zero
}

// MAC implements [backend.Keeper].
func (k keeper) MAC(device string, lease network.MAC) network.MAC {
	return k.identity.mac(device, k.present(device), lease)
}

// Secret implements [backend.Keeper]. A secret that was kept for another identity is replaced, as the machine is a
// clone; so is one that is damaged.
func (k keeper) Secret(name string, generate func() ([]byte, error)) ([]byte, error) {
	path, err := secretPath(k.dir, name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the node's secret: %w; --state-dir names the directory", err)
	}
	var kept secret
	if json.Unmarshal(data, &kept) == nil && kept.InstanceID == k.InstanceID && len(kept.Secret) > 0 {
		return kept.Secret, nil
	}
	return k.identity.newSecret(k.dir, name, generate)
}

// renewer is the [backend.Keeper] of a node that shares what it kept with another node: it chooses new values, and
// keeps these.
type renewer struct {
	*identity
	dir string
}

// MAC implements [backend.Keeper].
func (r renewer) MAC(device string, _ network.MAC) network.MAC { return r.identity.another(device) }

// Secret implements [backend.Keeper].
func (r renewer) Secret(name string, generate func() ([]byte, error)) ([]byte, error) {
	return r.identity.newSecret(r.dir, name, generate)
}

// secret is the content of the file of a secret.
type secret struct {
	InstanceID string `json:"instanceID"` // of the identity that it belongs to
	Secret     []byte `json:"secret"`     // base64
}

// secretPath returns the path of the file of a secret: "wireguard.secret" in the state directory. The names that a
// backend can give it leave the other files there alone.
func secretPath(dir, name string) (string, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", fmt.Errorf("the name %q of a secret has something else than lower-case letters, digits and dashes", name)
	}
	return filepath.Join(dir, name+".secret"), nil
}

// newSecret generates a secret and keeps it. No error repeats it.
func (id *identity) newSecret(dir, name string, generate func() ([]byte, error)) ([]byte, error) {
	path, err := secretPath(dir, name)
	if err != nil {
		return nil, err
	}
	made, err := generate()
	if err != nil {
		return nil, fmt.Errorf("generate the secret %s: %w", name, err)
	}
	data, err := json.Marshal(secret{id.InstanceID, made})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the state directory: %w; --state-dir names it", err)
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
		return nil, fmt.Errorf("save the node's secret: %w; --state-dir names the directory", err)
	}
	return made, nil
}
