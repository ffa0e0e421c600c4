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

	"github.com/selvage-net/selvage/backoff"
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
	dirs := directoriesOf(watched)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			name := filepath.Clean(e.Name) // fsnotify writes two slashes for a file in the root directory
			replaced := e.Has(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) && dirs.index(name) >= 0
			if !due && (replaced || concerns(watched, name) && e.Op != fsnotify.Chmod) {
				due = true
				at.Reset(time.Until(called.Add(minInterval)))
			}
		case <-w.Errors: // usually an overflow, which loses events
			due = true
			at.Reset(time.Until(called.Add(minInterval)))
		case <-at.C:
			added, missing, err := dirs.arm(w)
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

// ConfigMapLink is a symbolic link in a directory into which a ConfigMap is mounted. kubelet replaces it to change all
// files at once, which are links through it (k8s.io/kubernetes, pkg/volume/util/atomic_writer.go): watch it too.
const ConfigMapLink = "..data"

// Keep calls changed as [Watch] does until ctx ends, and at least every interval besides: a file may be behind a
// symbolic link that is not watched, or inotify(7) cannot be used. It makes the first call soon in any case.
func Keep(ctx context.Context, interval time.Duration, changed func(), paths ...string) {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		var again backoff.Backoff
		for ctx.Err() == nil {
			if err := Watch(ctx, changed, paths...); err == nil {
				return
			}
			changed()
			select {
			case <-ctx.Done():
			case <-time.After(again.Next(backoff.Policy{Min: time.Second, Max: interval}, time.Now())):
			}
		}
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			<-watching
			return
		case <-tick.C:
			changed()
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

// directory is the directory of a file, or one that leads to it.
type directory struct {
	name   string
	direct bool        // the directory of a file
	there  os.FileInfo // when the watch was added
}

// directories are those of the files and those that lead to them, each before the ones in it.
type directories []*directory

func directoriesOf(paths []string) (all directories) {
	for _, p := range paths {
		var added directories
		for dir, direct := filepath.Dir(p), true; ; dir, direct = filepath.Dir(dir), false {
			if i := all.index(dir); i >= 0 {
				all[i].direct = all[i].direct || direct
			} else {
				added = append(added, &directory{name: dir, direct: direct})
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
		slices.Reverse(added)
		all = append(all, added...)
	}
	return all
}

func (d directories) index(name string) int {
	return slices.IndexFunc(d, func(x *directory) bool { return x.name == name })
}

// arm makes all directories watched that exist. It reports whether it added a watch of a file's directory, and whether
// a directory does not exist.
//
// A watch is on a directory and not on its name. The kernel does not report the removal of a directory (IN_DELETE_SELF)
// as long as a process holds a file open that was in it, nor that one above it was renamed. The directory above reports
// both, so that one is watched too, and names and directories are compared here. The outermost are first: what happens
// between two steps is reported by a directory that is watched already.
func (d directories) arm(w *fsnotify.Watcher) (added, missing bool, err error) {
	watched := w.WatchList()
	for _, x := range d {
		fresh, err := x.watch(w, slices.Contains(watched, x.name))
		switch {
		case err == nil:
			added = added || fresh && x.direct
		case errors.Is(err, fs.ErrNotExist):
			missing = true
		case x.direct || !errors.Is(err, fs.ErrPermission): // who may not read it does not see when it is replaced
			return added, missing, err
		}
	}
	return added, missing, nil
}

// watch makes the directory watched, unless the watch of its name is on it. It reports whether it added one.
func (d *directory) watch(w *fsnotify.Watcher, watched bool) (added bool, err error) {
	now, err := os.Stat(d.name)
	if err == nil && watched && os.SameFile(now, d.there) {
		return false, nil
	}
	if watched {
		_ = w.Remove(d.name) // the watch may have ended meanwhile
	}
	if err == nil {
		err = w.Add(d.name)
	}
	if err != nil {
		return false, err
	}
	d.there = now
	return true, nil
}
