package vm

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Modes of a file, in the notation of the archive format: those of stat(2).
const (
	modeDir  = 0o040755
	modeLink = 0o120777
	modeFile = 0o100755
)

// Archive is the files of an initramfs, by their absolute path. The zero value is empty.
type Archive struct{ entries map[string]entry }

// entry is one file. Its content is that of the file source, or else data; a link's is its target.
type entry struct {
	mode   uint32
	source string
	data   []byte
}

// put adds an entry and the directories above it. What was there is replaced.
func (a *Archive) put(name string, e entry) {
	if a.entries == nil {
		a.entries = map[string]entry{}
	}
	name = path.Clean("/" + name)
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, exists := a.entries[dir]; !exists {
			a.entries[dir] = entry{mode: modeDir}
		}
	}
	a.entries[name] = e
}

// Dir adds a directory.
func (a *Archive) Dir(name string) { a.put(name, entry{mode: modeDir}) }

// Link adds a symbolic link.
func (a *Archive) Link(name, target string) { a.put(name, entry{mode: modeLink, data: []byte(target)}) }

// Data adds a file with the given content.
func (a *Archive) Data(name string, data []byte) { a.put(name, entry{mode: modeFile, data: data}) }

// File adds a file of the machine, which is read when the archive is written.
func (a *Archive) File(name, source string) { a.put(name, entry{mode: modeFile, source: source}) }

// names returns the paths of all files.
func (a *Archive) names() iter.Seq[string] { return maps.Keys(a.entries) }

// Has tells whether the archive has a file.
func (a *Archive) Has(name string) bool { _, has := a.entries[path.Clean("/"+name)]; return has }

// Write writes the archive in the format "newc" of cpio, which the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst). All files belong to root.
func (a *Archive) Write(to io.Writer) error {
	w := &cpioWriter{Writer: bufio.NewWriterSize(to, 1<<20)}
	for _, name := range slices.Sorted(maps.Keys(a.entries)) { // a directory comes before what is in it
		e := a.entries[name]
		data := e.data
		if e.source != "" {
			var err error
			if data, err = os.ReadFile(e.source); err != nil {
				return fmt.Errorf("pack %s: %w", name, err)
			}
		}
		w.entry(strings.TrimPrefix(name, "/"), e.mode, data)
	}
	w.entry("TRAILER!!!", 0, nil)
	return w.Flush() // a bufio.Writer keeps the first error
}

type cpioWriter struct {
	*bufio.Writer
	inode int
}

func (w *cpioWriter) entry(name string, mode uint32, data []byte) {
	w.inode++
	links := 1
	if mode == modeDir {
		links = 2
	}
	// Magic, inode, mode, user, group, links, time, size, device (2), device of a device file (2), length of the name with
	// the NUL at its end, checksum.
	fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		w.inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	const header = 6 + 13*8
	w.WriteString(name)
	w.pad(header+len(name), 1)
	w.Write(data)
	w.pad(len(data), 0)
}

// pad writes at least so many zero bytes, and as many as make the length a multiple of four.
func (w *cpioWriter) pad(length, least int) {
	n := least + (4-(length+least)%4)%4
	w.Write(make([]byte, n))
}
