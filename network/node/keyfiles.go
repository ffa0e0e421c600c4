package node

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// keyFiles are the files of secrets outside of the state directory, by the names of [backend.Keeper.Secret]. Such a
// file holds the secret in base64 and nothing else, as flannel writes it.
type keyFiles struct {
	named   map[string]string // by the user: the secret is there, and not in the state directory
	flannel map[string]string // flannel's: the first secret of the node, if there is one
}

// keyFiles returns the files of secrets outside of the state directory.
func (o Options) keyFiles() keyFiles {
	files := keyFiles{named: o.KeyFiles, flannel: map[string]string{}}
	for _, k := range backends() {
		maps.Copy(files.flannel, k.Kept)
	}
	return files
}

// SecretFiles returns the names of the files in the state directory in which backends keep secrets.
func SecretFiles() (names []string) {
	for _, k := range backends() {
		for name := range k.Kept {
			names = append(names, name+secretSuffix)
		}
	}
	return append(names, rotationFile)
}

// adopting returns generate, or what takes over flannel's secret: other nodes know this node by that.
func (k keyFiles) adopting(name string, size int, generate func() ([]byte, error)) func() ([]byte, error) {
	path := k.flannel[name]
	if path == "" {
		return generate
	}
	return func() ([]byte, error) {
		kept, err := readSecret(path, size)
		if errors.Is(err, fs.ErrNotExist) {
			return generate()
		}
		return kept, err
	}
}

// secretAt returns the secret in a file, which it makes if there is none.
func secretAt(path string, size int, generate func() ([]byte, error)) ([]byte, error) {
	kept, err := readSecret(path, size)
	if !errors.Is(err, fs.ErrNotExist) {
		return kept, err
	}
	made, err := generate()
	if err != nil {
		return nil, fmt.Errorf("generate the secret for %s: %w", path, err)
	}
	return made, writeSecret(path, made)
}

// writeSecret writes such a file.
func writeSecret(path string, secret []byte) error {
	text := base64.StdEncoding.EncodeToString(secret)
	if err := wholefile.Replace(path, []byte(text), 0o600, 0o700); err != nil {
		return fmt.Errorf("save the node's secret: %w", errno.Written(path, err))
	}
	return nil
}

// readSecret reads such a file.
func readSecret(path string, size int) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errno.Explain(errno.File, fmt.Errorf("read the node's secret: %w", err))
	}
	kept, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(kept) != size {
		return nil, damagedSecret(path)
	}
	return kept, nil
}
