package attachment

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// maxSize bounds a record: a larger file is not read. A configuration or a result has some kilobytes.
const maxSize = 1 << 20

// Reader reads the records of a directory again and again, and decodes only those that changed since. The zero value
// with a Dir is ready.
type Reader struct {
	Dir   string
	known map[string]entry // by name of the file
}

// entry is what was read of one file.
type entry struct {
	size     int64
	modified time.Time
	record   Record
	err      error
}

// Read returns all records, the oldest first, and an error for each file that is damaged; such a file is skipped.
// changed reports whether anything differs from the last call. A directory that does not exist has no records.
func (r *Reader) Read() (records []Record, damaged []error, changed bool, err error) {
	files, err := os.ReadDir(r.Dir)
	if errors.Is(err, syscall.ENOTDIR) {
		err = fmt.Errorf("%w: a file is in the place of the directory: remove it", err)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, fmt.Errorf("list the attachments of pods: %w", err)
	}
	seen := make(map[string]entry, len(files))
	for _, f := range files {
		key, ok := parseName(f.Name())
		if !ok {
			continue // of another program, or being written
		}
		info, err := f.Info()
		if err != nil {
			continue // removed meanwhile
		}
		e, known := r.known[f.Name()]
		if !known || e.size != info.Size() || !e.modified.Equal(info.ModTime()) {
			e = read(filepath.Join(r.Dir, f.Name()), key, info)
			if errors.Is(e.err, fs.ErrNotExist) {
				continue
			}
			changed = true
		}
		seen[f.Name()] = e
	}
	changed = changed || len(seen) != len(r.known)
	r.known = seen
	for _, e := range seen {
		if e.err != nil {
			damaged = append(damaged, e.err)
		} else {
			records = append(records, e.record)
		}
	}
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(a.Added.Compare(b.Added), cmp.Compare(a.Key.String(), b.Key.String()))
	})
	slices.SortFunc(damaged, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return records, damaged, changed, nil
}

func read(path string, k Key, info fs.FileInfo) entry {
	e := entry{size: info.Size(), modified: info.ModTime()}
	if !info.Mode().IsRegular() || e.size > maxSize {
		e.err = fmt.Errorf("the record of %s is no regular file of at most %d bytes: remove %s", k, maxSize, path)
		return e
	}
	data, err := os.ReadFile(path)
	if err != nil {
		e.err = err
		return e
	}
	e.record, e.err = decode(k, data)
	return e
}
