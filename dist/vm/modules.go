package vm

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Modules returns the files of those kernel modules below a directory whose names match one of the patterns
// ([filepath.Match]), and of those that they need, in an order in which they can be loaded. A pattern that matches no module
// is an error. Modules that are built into the kernel have no file, so a dependency always has one.
func Modules(dir string, patterns []string) ([]string, error) {
	files := map[string]string{} // by module name
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, is := strings.CutSuffix(d.Name(), ".ko"); err == nil && is {
			files[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for kernel modules: %w", err)
	}
	names := slices.Sorted(maps.Keys(files))
	var chosen []string
	for _, pattern := range patterns {
		before := len(chosen)
		for _, name := range names {
			if match, err := filepath.Match(pattern, name); err != nil {
				return nil, fmt.Errorf("pattern of kernel modules %q: %w", pattern, err)
			} else if match {
				chosen = append(chosen, name)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("no kernel module in %s matches %q", dir, pattern)
		}
	}
	order, err := loadOrder(chosen, func(name string) ([]string, error) {
		if files[name] == "" {
			return nil, fmt.Errorf("the kernel module %s is not in %s", name, dir)
		}
		return dependencies(files[name])
	})
	for i, name := range order {
		order[i] = files[name]
	}
	return order, err
}

// loadOrder returns the modules and what they need, each after what it needs.
func loadOrder(names []string, needs func(name string) ([]string, error)) (order []string, err error) {
	seen := map[string]bool{}
	var visit func(names []string) error
	visit = func(names []string) error {
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			needed, err := needs(name)
			if err != nil {
				return err
			}
			if err := visit(needed); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			order = append(order, name)
		}
		return nil
	}
	return order, visit(names)
}

// dependencies reads from a module's file which modules it needs: the field "depends" of its section .modinfo, which
// modpost writes (scripts/mod/modpost.c).
func dependencies(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the kernel module %s: %w", file, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s is no kernel module: it has no section .modinfo", file)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read the kernel module %s: %w", file, err)
	}
	return parseDepends(string(info)), nil
}

func parseDepends(info string) (names []string) {
	for field := range strings.SplitSeq(info, "\x00") {
		if list, is := strings.CutPrefix(field, "depends="); is && list != "" {
			for name := range strings.SplitSeq(list, ",") {
				names = append(names, moduleName(name))
			}
		}
	}
	return names
}

// moduleName is the name of a module as the kernel has it: files may have hyphens in their place.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }
