package uplink

import (
	"os"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// TestMain runs the tests where they may make network namespaces.
func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }
