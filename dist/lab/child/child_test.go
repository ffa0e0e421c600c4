package child

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
)

// TestNoProgram: of a program that cannot be started there is no process, whose end a caller would await for ever.
func TestNoProgram(t *testing.T) {
	dir := t.TempDir()
	p, err := Start(filepath.Join(dir, "log"), filepath.Join(dir, "missing"))
	if p != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process %v, and %v", p, err)
	}
}
