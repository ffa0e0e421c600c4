package filter

import (
	"os"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox/leaks"
)

// TestMain runs the tests where they may make network namespaces and have a /run, with its xtables.lock, of their own.
func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
