// Package leaks runs the tests of a package in a sandbox, and fails them if goroutines are left:
//
//	func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
//
// It is a package of its own because programs that use a sandbox need no goleak.
package leaks

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// Run returns the exit code.
func Run(m *testing.M) int {
	return sandbox.Run(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	})
}
