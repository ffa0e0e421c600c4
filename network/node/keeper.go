package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// keeper is the [backend.Keeper] of a node. MAC addresses are kept in the identity, which is saved with it; each secret
// is kept in a file of its own in the state directory.
type keeper struct {
	*identity
	dir     string
	present func(device string) network.MAC // the MAC address that a device has now, or zero
	keys    keyFiles
}

// MAC implements [backend.Keeper].
func (k keeper) MAC(device string, lease network.MAC) network.MAC {
	return k.identity.mac(device, k.present(device), lease)
}

// Secret implements [backend.Keeper]. A secret of another identity is replaced: the machine is a clone.
func (k keeper) Secret(name string, size int, generate func() ([]byte, error)) ([]byte, error) {
	if path := k.keys.named[name]; path != "" {
		return secretAt(path, size, generate)
	}
	path, err := secretPath(k.dir, name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err == nil { // a link, perhaps to a volume that is not mounted
			return nil, damagedSecret(path)
		}
		return k.identity.newSecret(k.dir, name, k.keys.adopting(name, size, generate))
	}
	if err != nil {
		err = fmt.Errorf("read the node's secret: %w; --state-dir names the directory", err)
		return nil, errno.Explain(errno.File, err)
	}
	kept, ok := parseSecret(data, size)
	switch {
	case !ok:
		return nil, damagedSecret(path)
	case kept.InstanceID != k.InstanceID:
		return k.identity.newSecret(k.dir, name, generate)
	}
	return kept.Secret, nil
}

// parseSecret reads the content of the file of a secret; ok is false if the file is damaged.
func parseSecret(data []byte, size int) (kept secret, ok bool) {
	ok = json.Unmarshal(data, &kept) == nil && kept.InstanceID != "" && len(kept.Secret) == size
	return kept, ok
}

// remembering is a [backend.Keeper] that reads each secret once in a run: peers know the node by it, whatever happens
// to the file.
type remembering struct {
	backend.Keeper
	known map[string][]byte
}

// Secret implements [backend.Keeper].
func (r remembering) Secret(name string, size int, generate func() ([]byte, error)) ([]byte, error) {
	if secret := r.known[name]; len(secret) == size {
		return secret, nil
	}
	secret, err := r.Keeper.Secret(name, size, generate)
	if err == nil {
		r.known[name] = secret
	}
	return secret, err
}

// damagedSecret is the error for a file that holds no usable secret.
func damagedSecret(path string) error {
	return fmt.Errorf("the secret in %s is damaged, and is not replaced, since other nodes know this node by it: "+
		"restore the file from a backup; or delete it, then the node makes a new secret and tells the others", path)
}

// renewer is the [backend.Keeper] of a node whose values another node has, too: it chooses new values and stores them.
type renewer struct {
	*identity
	dir  string
	keys keyFiles
}

// MAC implements [backend.Keeper].
func (r renewer) MAC(device string, _ network.MAC) network.MAC { return r.identity.another(device) }

// Secret implements [backend.Keeper].
func (r renewer) Secret(name string, _ int, generate func() ([]byte, error)) ([]byte, error) {
	if path := r.keys.named[name]; path != "" {
		return nil, fmt.Errorf("another node has the key in %s: give each node a file of its own, or delete this "+
			"one and restart selvaged", path)
	}
	return r.identity.newSecret(r.dir, name, generate)
}

// secret is the content of the file of a secret.
type secret struct {
	InstanceID string `json:"instanceID"` // of the identity that it belongs to
	Secret     []byte `json:"secret"`     // base64
}

// secretSuffix ends the names of the files of secrets in the state directory.
const secretSuffix = ".secret"

// secretPath returns the path of the file of a secret: "wireguard.secret" in the state directory. The names that a
// backend can give it leave the other files there alone.
func secretPath(dir, name string) (string, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", fmt.Errorf("the name %q of a secret has something else than lower-case letters, digits and dashes",
			name)
	}
	return filepath.Join(dir, name+secretSuffix), nil
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
	if err := wholefile.Replace(path, append(data, '\n'), 0o600, 0o700); err != nil {
		return nil, fmt.Errorf("save the node's secret: %w; --state-dir names the directory", errno.Written(path, err))
	}
	return made, nil
}
