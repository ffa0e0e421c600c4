package enforce

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// TestMain runs the tests in a network namespace, which is the node's.
func TestMain(m *testing.M) {
	os.Exit(sandbox.Run(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}
