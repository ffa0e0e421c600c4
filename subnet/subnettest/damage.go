package subnettest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Damage is one way in which a file that a program stored can be found: after a power cut, on a failing disk, or after
// a mistake of an operator.
type Damage struct {
	Name  string
	Holds bool // an operator has to look at it first: no process may remove it unasked
	do    func(path string, content []byte) error
}

// Damages returns every kind of damage.
func Damages() []Damage {
	write := func(path string, content []byte) error { return os.WriteFile(path, content, 0o600) }
	return []Damage{
		{"empty", false, func(path string, _ []byte) error { return write(path, nil) }},
		{"cut", false, func(path string, content []byte) error { return write(path, content[:len(content)/2]) }},
		{"zeros", false, func(path string, content []byte) error { return write(path, make([]byte, len(content))) }},
		{"garbage", false, func(path string, _ []byte) error {
			return write(path, bytes.Repeat([]byte{0xff, 0xfe, '\n', '{', 0, '='}, 1000))
		}},
		{"directory", false, func(path string, _ []byte) error { return os.Mkdir(path, 0o700) }},
		{"full directory", true, func(path string, _ []byte) error {
			return errors.Join(os.Mkdir(path, 0o700), write(filepath.Join(path, "file"), []byte("x")))
		}},
		{"dangling link", false, func(path string, _ []byte) error {
			return os.Symlink(filepath.Join(filepath.Dir(path), "no", "such"), path)
		}},
	}
}

// Apply damages the file at path, which exists or would have had that content.
func (d Damage) Apply(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil {
		content = old
	}
	dir := filepath.Dir(path)
	made := filepath.Join(dir, ".damage")
	if err := errors.Join(os.MkdirAll(dir, 0o700), d.do(made, content)); err != nil {
		return err
	}
	for { // the owner of the file may be writing it again at this moment
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Rename(made, path); !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
}
