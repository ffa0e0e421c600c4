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
	"time"

	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// patience is how long goroutines may take to end by themselves. One of net/http sleeps for half a second before it closes
// a connection whose request it has not read to the end (rstAvoidanceDelay).
const patience = 5 * time.Second

// Run returns the exit code.
func Run(m *testing.M) int {
	return sandbox.Run(func() int {
		code := m.Run()
		err := goleak.Find()
		for end := time.Now().Add(patience); err != nil && time.Now().Before(end); {
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	})
}
