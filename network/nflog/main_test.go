package nflog

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// TestMain runs the tests where they may make network namespaces.
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
