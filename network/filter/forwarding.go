package filter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// EnsureForwarding has the kernel forward packets of the given families, without which no pod gets anywhere. It returns
// the sysctls that it had to set, such as "net.ipv4.ip_forward=1"; where forwarding is on already nothing is written, so
// that a read-only /proc/sys is fine then.
//
// A host that forwards IPv6 is a router, and a router takes no default route from router advertisements: with
// accept_ra=1 the kernel drops the one it has at the moment forwarding comes on. On the interface uplink, which may be
// empty, accept_ra=2 (take them all the same) is set first.
func EnsureForwarding(families []subnet.Family, uplink string) (switchedOn []string, err error) {
	return ensureForwarding("/proc/sys", families, uplink)
}

func ensureForwarding(root string, families []subnet.Family, uplink string) (switchedOn []string, err error) {
	var errs []error
	for _, f := range families {
		forwarding := [...]string{
			subnet.IPv4: "net/ipv4/ip_forward",
			subnet.IPv6: "net/ipv6/conf/all/forwarding",
		}[f]
		value, err := readSysctl(root, forwarding)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("switch on %s forwarding: %w (is /proc mounted? was the kernel booted with ipv6.disable=1?)", f, err))
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("switch on %s forwarding: %w", f, err))
			continue
		case value != "0":
			continue
		}
		set := []sysctl{{forwarding, "1"}}
		if f == subnet.IPv6 && uplink != "" {
			acceptRA := filepath.Join("net/ipv6/conf", uplink, "accept_ra")
			if v, err := readSysctl(root, acceptRA); err == nil && v == "1" {
				set = []sysctl{{acceptRA, "2"}, {forwarding, "1"}}
			}
		}
		for _, s := range set {
			if err := s.write(root); err != nil {
				errs = append(errs, fmt.Errorf("switch on %s forwarding: %w (run as root with a writable /proc/sys, or set it on the host: sysctl -w %s)",
					f, err, s))
				break
			}
			switchedOn = append(switchedOn, s.String())
		}
	}
	return switchedOn, errors.Join(errs...)
}

// sysctl is a setting: its path below /proc/sys, and a value.
type sysctl struct{ path, value string }

// String writes s as sysctl(8) does and takes it: a dot in an interface's name becomes a slash.
func (s sysctl) String() string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(s.path) + "=" + s.value
}

func (s sysctl) write(root string) error {
	f, err := os.OpenFile(filepath.Join(root, s.path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.value + "\n")
	return errors.Join(err, f.Close())
}

func readSysctl(root, path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, path))
	return strings.TrimSpace(string(b)), err
}
