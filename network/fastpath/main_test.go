package fastpath

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox/leaks"
)

// TestMain runs the tests where they may make network namespaces. Fuzzing needs none, and its processes talk by
// descriptors that a sandbox does not hand on.
func TestMain(m *testing.M) {
	if slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.fuzz") }) {
		os.Exit(m.Run())
	}
	os.Exit(leaks.Run(m))
}

// loadable reports whether the kernel lets this process load programs. In a user namespace, where the tests of an
// ordinary user run, it does not: then Missing has to name that, and no more can be tested.
func loadable(t testing.TB) bool {
	t.Helper()
	missing := Missing("")
	if len(missing) == 0 {
		return true
	}
	p, err := Open(Options{Flows: 128})
	if err == nil {
		t.Errorf("programs can be loaded, although these are missing: %q", missing)
		return p.Close() == nil
	}
	if os.Geteuid() == 0 && !errors.Is(err, unix.EPERM) {
		t.Errorf("programs cannot be loaded, and not for want of permission: %v; missing: %q", err, missing)
	}
	return false
}
