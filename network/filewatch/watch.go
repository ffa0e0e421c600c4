// Package filewatch notifies its caller of changes to files that selvage keeps.
package filewatch

import (
	"context"
	"errors"
	"io/fs"
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
			added, missing, err := arm(w, watched)
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

// arm adds watches for the directories that have none. It reports whether it added one, and whether one does not exist.
func arm(w *fsnotify.Watcher, paths []string) (added, missing bool, err error) {
	for _, p := range paths {
		dir := filepath.Dir(p)
		if slices.Contains(w.WatchList(), dir) {
			continue
		}
		switch err := w.Add(dir); {
		case err == nil:
			added = true
		case errors.Is(err, fs.ErrNotExist):
			missing = true
		default:
			return added, missing, err
		}
	}
	return added, missing, nil
}
