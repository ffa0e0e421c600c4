package node

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// hiddenSecret stands for a secret of the network config, wherever the config is shown.
const hiddenSecret = "(hidden)"

// isSecret reports whether a key of the Backend object holds a secret.
func isSecret(key string) bool {
	for _, k := range backends() {
		if slices.ContainsFunc(k.Secrets, func(s string) bool { return strings.EqualFold(s, key) }) {
			return true
		}
	}
	return false
}

// withoutSecrets returns a network config in which a text stands for each secret, and all else is as it was. A config
// that is no JSON has none that is in use.
func withoutSecrets(config []byte, text string) []byte {
	replacement, err := json.Marshal(text)
	if err != nil {
		return nil
	}
	var out []byte
	var objects []bool // whether each of the open objects and arrays is an object
	copied, key, secret := int64(0), true, false
	d := json.NewDecoder(bytes.NewReader(config))
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		at, within := d.InputOffset(), len(objects) > 0 && objects[len(objects)-1]
		switch x := token.(type) {
		case json.Delim:
			if x == '{' || x == '[' {
				objects = append(objects, x == '{')
			} else {
				objects = objects[:len(objects)-1]
			}
			key, secret = true, false
			continue
		case string:
			if within && key {
				key, secret = false, isSecret(x)
				if secret {
					out = append(out, config[copied:at]...)
					copied = at
				}
				continue
			}
		}
		if secret {
			out = append(append(out, ':'), replacement...)
			copied = at
		}
		key, secret = true, false
	}
	return append(out, config[copied:]...)
}
