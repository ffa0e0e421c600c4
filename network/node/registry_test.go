package node

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRegistry: only registry.go imports backends, and it has nothing but the map of them: a new backend is one line
// there.
func TestRegistry(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(path, "/backend/") && name != "registry.go" {
				t.Errorf("%s imports %s; backends are for registry.go alone", name, path)
			}
		}
		if name != "registry.go" {
			continue
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.IMPORT {
				continue
			}
			if fn, ok := d.(*ast.FuncDecl); !ok || fn.Name.Name != "backends" {
				t.Errorf("registry.go has more than the map of backends: %T", d)
			}
		}
	}
}
