// Package sandboxtest makes network namespaces for tests.
package sandboxtest

import (
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// NewNet makes a network namespace that is closed at the end of the test. It ends the test if it cannot.
func NewNet(t testing.TB) *sandbox.Net {
	t.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}
