// Package wholefile replaces files as a whole: a reader sees the old content or the new. It also replaces an empty
// directory, as container runtimes create for a bind mount whose source is missing, and a symbolic link that leads
// nowhere. Anything else in the place of a file stays, and is an error.
package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// Replace replaces the file at path with one of that content and mode, and creates its directory, with the mode dir, if
// needed. The file is synced to disk: a power cut does not truncate it. A directory that is in the place of the file
// is an [fs.PathError] with EISDIR.
func Replace(path string, content []byte, mode, dir fs.FileMode) (err error) {
	if err := MakeDir(filepath.Dir(path), dir); err != nil {
		return err
	}
	if err := MakeRoom(path); err != nil {
		return err
	}
	// The temporary file has to be in the same directory: a rename does not cross file systems. Not with
	// renameio.WriteFile, which gives the file the mode of the one that it replaces.
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)),
		renameio.WithPermissions(mode), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Cleanup()) }() // nothing is left to be done if all went well
	if _, err := file.Write(content); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

// ReplaceUnsynced does the same for a file of mode 0600, and does not sync it: a power cut can truncate it. It costs a
// few system calls, where a sync takes milliseconds. A process that is killed leaves a temporary file, see [Sweep].
func ReplaceUnsynced(path string, content []byte, dir fs.FileMode) (err error) {
	t, err := os.CreateTemp(filepath.Dir(path), ".*")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		if err = MakeDir(filepath.Dir(path), dir); err == nil {
			t, err = os.CreateTemp(filepath.Dir(path), ".*")
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(t.Name()) // the first error is returned
		}
	}()
	_, err = t.Write(content)
	if closeErr := t.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = Rename(t.Name(), path)
	}
	return err
}

// Temporary reports whether a file is one of [ReplaceUnsynced], by its name.
func Temporary(e fs.DirEntry) bool {
	number, is := strings.CutPrefix(e.Name(), ".")
	return is && number != "" && strings.Trim(number, "0123456789") == "" && e.Type().IsRegular()
}

// Sweep removes the temporary files of [ReplaceUnsynced] that were last written before a time. It ignores errors: what
// it cannot remove does no harm.
func Sweep(dir string, before time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !Temporary(e) {
			continue
		}
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// MakeRoom removes an empty directory, or a link that leads nowhere, in the place of the file at path. The error says
// that the directory is not empty.
func MakeRoom(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil: // there is none, as a rule; else the file's user finds out
	case Dangling(path):
		_ = os.Remove(path) // else the file's user finds out
	case info.IsDir() && os.Remove(path) != nil: // rmdir(2)
		return &fs.PathError{Op: "write", Path: path, Err: syscall.EISDIR}
	}
	return nil
}

// Dangling reports whether path is a symbolic link that leads nowhere.
func Dangling(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return false
	}
	_, err = os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Rename renames a temporary file to path. It costs no more than [os.Rename] unless something is in the way.
func Rename(temporary, path string) error {
	err := os.Rename(temporary, path)
	if errors.Is(err, fs.ErrExist) { // of os.Rename: a directory
		if err = MakeRoom(path); err == nil {
			err = os.Rename(temporary, path)
		}
	}
	return err
}

// MakeDir creates a directory and those above it, unless it exists. An empty file in its place is replaced.
func MakeDir(path string, mode fs.FileMode) error {
	err := os.MkdirAll(path, mode)
	if err == nil {
		return nil
	}
	info, statErr := os.Lstat(path)
	if statErr != nil {
		return err
	}
	if !Dangling(path) && (!info.Mode().IsRegular() || info.Size() > 0) {
		return err
	}
	if os.Remove(path) != nil {
		return err
	}
	return os.MkdirAll(path, mode)
}
