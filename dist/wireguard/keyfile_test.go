package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/testctx"
)

// TestKeyFile: the file of the key in use is written again, its mode is repaired, and a change of it is reported.
func TestKeyFile(t *testing.T) {
	c := healthy(t, "--resync=1s") // modes are not watched
	n := c.Nodes()[0]
	const path = "/var/lib/selvage/wireguard.secret"
	var before []byte
	c.do(t, n, func() (err error) { before, err = os.ReadFile(path); return err })
	key := c.publicKey(t, n, "flannel-wg")
	intact := func() {
		t.Helper()
		testctx.Eventually(t, func() (missing string) {
			c.do(t, n, func() error {
				info, err := os.Stat(path)
				now, _ := os.ReadFile(path)
				if err != nil || info.Mode() != 0o600 || !bytes.Equal(bytes.TrimSpace(now), bytes.TrimSpace(before)) {
					missing = fmt.Sprintf("%v, %v, want the file as it was", info, err)
				}
				return nil
			})
			return missing
		})
	}
	c.do(t, n, func() error { return os.Remove(path) })
	intact()
	c.do(t, n, func() error { return os.Chmod(path, 0o644) })
	intact()
	c.do(t, n, func() error { return os.WriteFile(path, []byte("no key"), 0o600) })
	c.diagnosed(t, n, expected{"daemon", "key file: the key file " + path + " has been changed", "rotate-key"})
	if now := c.publicKey(t, n, "flannel-wg"); now != key {
		t.Errorf("the device has the key %s, want %s", now, key)
	}
	c.do(t, n, func() error { return os.WriteFile(path, before, 0o600) })
	c.diagnosed(t, n)
	if err := errors.Join(n.Restart(c.ctx), n.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	if now := c.publicKey(t, n, "flannel-wg"); now != key {
		t.Errorf("after a restart the device has the key %s, want %s", now, key)
	}
	c.probe(t)
}
