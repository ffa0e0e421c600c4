package containerd

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/userspace"
)

// TestSystemdWireGuard: with the drop-in, the unit's daemon serves a WireGuard device in user space, by a process that
// goes on while the daemon is restarted, killed and stopped.
func TestSystemdWireGuard(t *testing.T) {
	m := newMachine(t, "wireguard-userspace.conf")
	if err := m.store.PutConfig(m.ctx, `{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}`); err != nil {
		t.Fatal(err)
	}
	m.systemctl(t, "start", "selvaged.service")
	server := func() (s userspace.Server, err error) {
		err = m.Node.Do(func() error {
			var ok bool
			if s, ok = userspace.At("flannel-wg"); !ok {
				return errors.New("no process serves the device")
			}
			info, err := os.Stat("/var/run/wireguard")
			if err == nil && info.Mode().Perm() != 0o700 {
				err = fmt.Errorf("the directory of the sockets has the mode %s", info.Mode())
			}
			return err
		})
		return s, err
	}
	first, err := server()
	if err != nil || !first.Ours {
		t.Fatalf("%+v, %v, want a process of selvage's", first, err)
	}
	t.Cleanup(func() { _ = unix.Kill(first.PID, unix.SIGKILL) })
	same := func() error {
		s, err := server()
		if err == nil && s != first {
			err = fmt.Errorf("the device is served by %+v, want %+v", s, first)
		}
		return err
	}
	m.systemctl(t, "restart", "selvaged.service")
	if err := same(); err != nil {
		t.Error(err)
	}
	m.systemctl(t, "kill", "--kill-whom=main", "--signal=KILL", "selvaged.service")
	m.systemctl(t, "restart", "selvaged.service")
	if err := same(); err != nil {
		t.Error(err)
	}
	m.systemctl(t, "stop", "selvaged.service")
	if err := same(); err != nil {
		t.Error(err)
	}
}
