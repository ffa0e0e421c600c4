// Package filewatch tells when somebody changes files that selvage keeps.
package filewatch

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// rest is the shortest time between two calls of a Watch's function: who keeps changing a file is not to keep us busy. It
// is also how often a directory that is gone is looked for.
const rest = 100 * time.Millisecond

// Watch calls changed each time that somebody may have written, moved or removed one of the files at paths, until ctx
// ends, and returns nil then. The first call comes when the watch is there; a directory that is not there yet, or is removed,
// is watched as soon as it is there again. A call says that it is time to look, not what happened: changes that follow
// each other closely make one, and a process's own changes are among them.
//
// The error is that of inotify(7), as a rule that the user's inotify instances are used up.
func Watch(ctx context.Context, changed func(), paths ...string) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	watched := make([]string, 0, len(paths))
	for _, p := range paths {
		watched = append(watched, filepath.Clean(p))
	}
	at := time.NewTimer(0) // of the next call, or of the next look for a directory
	defer at.Stop()
	called, due := time.Time{}, true
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			gone := e.Has(fsnotify.Remove|fsnotify.Rename) && isDir(watched, e.Name)
			if !due && (gone || slices.Contains(watched, e.Name) && e.Op != fsnotify.Chmod) {
				due = true
				at.Reset(time.Until(called.Add(rest)))
			}
		case <-w.Errors: // an overflow as a rule: something was missed
			due = true
			at.Reset(time.Until(called.Add(rest)))
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
				at.Reset(rest)
			}
		}
	}
}

// isDir reports whether one of the files is in the directory called name.
func isDir(paths []string, name string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return filepath.Dir(p) == name })
}

// arm watches the directories of paths that are not watched, and says whether one was added, and whether one is missing.
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
