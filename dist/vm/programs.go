package vm

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// libraryDirs are where the dynamic linker of Debian, for this processor, looks for libraries.
var libraryDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// Merge adds the links of a system whose /bin, /sbin and /lib are those of /usr.
func (a *Archive) Merge() {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		a.Dir("/usr/" + dir)
		a.Link("/"+dir, "usr/"+dir)
	}
}

// Program adds a program of the machine that is in PATH, under the path where it is found, with the links that lead to it
// and the libraries that it is linked with.
func (a *Archive) Program(name string) error {
	found, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("pack the program %s: %w", name, err)
	}
	return a.linked(found)
}

// linked adds a file of the machine, the links that lead to it, and the libraries that it is linked with.
func (a *Archive) linked(name string) error {
	for {
		// Links of directories are those that Merge adds.
		dir, err := filepath.EvalSymlinks(filepath.Dir(name))
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		name = filepath.Join(dir, filepath.Base(name))
		if a.Has(name) {
			return nil
		}
		target, err := os.Readlink(name)
		if err != nil {
			break // no link
		}
		a.Link(name, target)
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		name = target
	}
	a.File(name, name)
	return a.Libraries(name)
}

// Libraries adds the libraries that a program or library is linked with, and the dynamic linker. Of a static program, or of
// a script, there are none.
func (a *Archive) Libraries(file string) error {
	f, err := elf.Open(file)
	var format *elf.FormatError
	if errors.As(err, &format) {
		return nil
	} else if err != nil {
		return fmt.Errorf("pack the libraries of %s: %w", file, err)
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			linker := make([]byte, segment.Filesz)
			if _, err := segment.ReadAt(linker, 0); err != nil {
				return fmt.Errorf("read which dynamic linker %s has: %w", file, err)
			}
			if err := a.linked(strings.TrimRight(string(linker), "\x00")); err != nil {
				return err
			}
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read which libraries %s has: %w", file, err)
	}
	for _, library := range needed {
		if err := a.library(library); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func (a *Archive) library(name string) error {
	for _, dir := range libraryDirs {
		switch _, err := os.Stat(filepath.Join(dir, name)); {
		case err == nil:
			return a.linked(filepath.Join(dir, name))
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return fmt.Errorf("the library %s is in none of %s", name, strings.Join(libraryDirs, ", "))
}

// Plugins adds the libraries in a directory that programs load by name, as iptables does.
func (a *Archive) Plugins(pattern string) error {
	files, err := filepath.Glob(pattern)
	if err == nil && len(files) == 0 {
		err = fs.ErrNotExist
	}
	for _, file := range files {
		err = errors.Join(err, a.linked(file))
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", pattern, err)
	}
	return nil
}
