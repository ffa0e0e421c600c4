package vtepfilter

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNotPermitted calls everything without CAP_NET_ADMIN.
func TestNotPermitted(t *testing.T) {
	ns := newNet(t)
	f := newFilter(t, ns)
	for name, call := range map[string]func() error{
		"Open": func() error {
			f, err := Open(Table)
			if err == nil {
				f.Close()
			}
			return err
		},
		"Ensure":  func() error { _, err := f.Ensure(config(), slices.Values(peers())); return err },
		"Read":    func() error { _, _, err := f.Read(); return err },
		"Apply":   func() error { return f.Apply(peers(), nil) },
		"Remove":  func() error { return f.Remove() },
		"Dropped": func() error { _, err := f.Dropped(); return err },
	} {
		err := ns.Do(func() error { // on a thread that ends with this
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&header, &none[0]); err != nil {
				return err
			}
			return call()
		})
		explained := err != nil && errors.Is(err, ErrUnsupported) && strings.Contains(err.Error(), "needs CAP_NET_ADMIN")
		if !explained && name != "Dropped" || err == nil { // the library's text for Dropped hides the number
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Ensure(config(), slices.Values(peers())); err != nil {
		t.Errorf("with the permission again: %v", err)
	}
}
