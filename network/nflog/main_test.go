package nflog

import (
	"os"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox/leaks"
)

// TestMain runs the tests where they may make network namespaces.
func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
