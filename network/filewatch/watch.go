// Package filewatch notifies its caller of changes to files that selvage keeps.
package filewatch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// minInterval is the shortest time between two calls of a Watch's function, so that a process that keeps changing a
// file does not keep this one busy. It is also the polling interval for a directory that does not exist.
const minInterval = 100 * time.Millisecond

// Watch calls changed whenever one of the files at paths may have been written, moved or removed, until ctx ends; then
// it returns nil. It makes the first call when the watch is set up. A directory that does not exist, or is removed, is
// watched as soon as it exists. A call means "read the files again": it does not say what happened, one call may stand
// for several changes, and changes made by this process count too. A path that ends in a slash stands for all files in
// that directory, but for those whose names begin with a dot.
//
// The error is that of inotify(7), usually that the user has no inotify instances left.
func Watch(ctx context.Context, changed func(), paths ...string) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	watched := make([]string, 0, len(paths))
	for _, p := range paths {
		if dir, all := strings.CutSuffix(p, "/"); all {
			p = filepath.Join(dir, anyFile)
		}
		watched = append(watched, filepath.Clean(p))
	}
	at := time.NewTimer(0) // of the next call, or of the next check for a directory
	defer at.Stop()
	called, due := time.Time{}, true
	dirs := directories{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			gone := e.Has(fsnotify.Remove|fsnotify.Rename) && isDir(watched, e.Name)
			if !due && (gone || concerns(watched, e.Name) && e.Op != fsnotify.Chmod) {
				due = true
				at.Reset(time.Until(called.Add(minInterval)))
			}
		case <-w.Errors: // usually an overflow, which loses events
			due = true
			at.Reset(time.Until(called.Add(minInterval)))
		case <-at.C:
			added, missing, err := dirs.arm(w, watched)
			if err != nil {
				return err
			}
			if due || added {
				due, called = false, time.Now()
				changed()
			}
			if missing {
				at.Reset(minInterval)
			}
		}
	}
}

// anyFile stands for the files of a directory.
const anyFile = "*"

// concerns reports whether name is one of the files.
func concerns(paths []string, name string) bool {
	if slices.Contains(paths, name) {
		return true
	}
	dir, file := filepath.Split(name)
	return !strings.HasPrefix(file, ".") && slices.Contains(paths, filepath.Join(dir, anyFile))
}

// isDir reports whether name is the directory of one of the files.
func isDir(paths []string, name string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return filepath.Dir(p) == name })
}

// directories are the watched directories by name, with what was there when the watch was added.
type directories map[string]os.FileInfo

// arm makes every directory of paths that exists watched. It reports whether it added a watch, and whether a directory
// does not exist.
//
// A watch is on a directory and not on its name. The kernel does not report the removal of a directory (IN_DELETE_SELF)
// as long as a process holds a file open that was in it, so names and directories are compared here.
func (d directories) arm(w *fsnotify.Watcher, paths []string) (added, missing bool, err error) {
	for _, p := range paths {
		dir := filepath.Dir(p)
		now, err := os.Stat(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return added, missing, err
		}
		listed := slices.Contains(w.WatchList(), dir)
		if err == nil && listed && os.SameFile(now, d[dir]) {
			continue
		}
		if listed {
			_ = w.Remove(dir) // the watch may have ended meanwhile
		}
		if err == nil {
			err = w.Add(dir)
		}
		switch {
		case err == nil:
			d[dir], added = now, true
		case errors.Is(err, fs.ErrNotExist):
			missing = true
		default:
			return added, missing, err
		}
	}
	return added, missing, nil
}
