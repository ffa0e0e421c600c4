package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
}

// MAC implements [backend.Keeper].
func (k keeper) MAC(device string, lease network.MAC) network.MAC {
	return k.identity.mac(device, k.present(device), lease)
}

// Secret implements [backend.Keeper]. A damaged secret is replaced, and so is one of another identity: the machine is a
// clone.
func (k keeper) Secret(name string, generate func() ([]byte, error)) ([]byte, error) {
	path, err := secretPath(k.dir, name)
	if err != nil {
		return nil, err
	}
	_ = wholefile.MakeRoom(path) // else reading it fails, and says why
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("read the node's secret: %w; --state-dir names the directory", err)
		return nil, errno.Explain(errno.File, err)
	}
	var kept secret
	if json.Unmarshal(data, &kept) == nil && kept.InstanceID == k.InstanceID && len(kept.Secret) > 0 {
		return kept.Secret, nil
	}
	return k.identity.newSecret(k.dir, name, generate)
}

// renewer is the [backend.Keeper] of a node whose values another node has, too: it chooses new values and stores them.
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
		return "", fmt.Errorf("the name %q of a secret has something else than lower-case letters, digits and dashes",
			name)
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
	if err := wholefile.Replace(path, append(data, '\n'), 0o600, 0o700); err != nil {
		return nil, fmt.Errorf("save the node's secret: %w; --state-dir names the directory", errno.Written(path, err))
	}
	return made, nil
}
