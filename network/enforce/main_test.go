package enforce

import (
	"os"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox/leaks"
)

// TestMain runs the tests in a network namespace, which is the node's.
func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
