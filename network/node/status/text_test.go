package status_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module     = "github.com/selvage-net/selvage"
	statusPath = module + "/network/node/status"
)

// TestNoTextIsParsed type-checks the product's packages that know this one. None of them compares, searches or cuts a
// [Text], or the text of an error: what a program needs is a field. A text is shown by fmt, which takes it as it is.
//
// What is hidden by an assignment in between is not found: a text that fmt made a string of, and that is parsed elsewhere.
func TestNoTextIsParsed(t *testing.T) {
	c := newChecker(t, "./...")
	checked := 0
	for _, p := range c.packages {
		if p.ImportPath == statusPath || !slices.Contains(p.Imports, statusPath) || strings.HasPrefix(p.ImportPath, module+"/dist") {
			continue
		}
		var files []string
		for _, name := range p.GoFiles {
			files = append(files, filepath.Join(p.Dir, name))
		}
		for _, found := range c.check(t, p.ImportPath, files) {
			t.Error(found)
		}
		checked++
	}
	if checked < 5 {
		t.Errorf("%d packages checked, want doctor, command, node and what they are made of", checked)
	}
}

// TestParsingIsFound has one of each kind.
func TestParsingIsFound(t *testing.T) {
	const file = "testdata/parsing.go"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for i, line := range strings.Split(string(data), "\n") {
		if strings.HasSuffix(line, "// want") {
			want = append(want, fmt.Sprintf("%s:%d", file, i+1))
		}
	}
	for _, found := range newChecker(t, "fmt", "regexp", "slices", "strings", statusPath).check(t, "parsing", []string{file}) {
		at := strings.Join(strings.SplitN(found, ":", 4)[:2], ":")
		if !slices.Contains(got, at) {
			got = append(got, at)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("found %q\nwant %q", got, want)
	}
}

type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles, Imports        []string
}

// checker type-checks packages of this module against the export data of what they import.
type checker struct {
	fset     *token.FileSet
	packages map[string]goPackage
	importer types.Importer
}

func newChecker(t *testing.T, patterns ...string) *checker {
	args := append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Imports"}, patterns...)
	list := exec.CommandContext(t.Context(), "go", args...)
	list.Dir = "../../.."
	var errs bytes.Buffer
	list.Stderr = &errs
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &errs)
	}
	c := &checker{fset: token.NewFileSet(), packages: map[string]goPackage{}}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		c.packages[p.ImportPath] = p
	}
	c.importer = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(c.packages[path].Export)
	})
	return c
}

// check returns where a package parses texts.
func (c *checker) check(t *testing.T, path string, names []string) []string {
	t.Helper()
	var files []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(c.fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Instances: map[*ast.Ident]types.Instance{},
		Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
	}
	if _, err := (&types.Config{Importer: c.importer}).Check(path, c.fset, files, info); err != nil {
		t.Fatal(err)
	}
	w := walk{Info: info, fset: c.fset}
	for _, f := range files {
		ast.Inspect(f, w.visit)
	}
	return w.found
}

// walk collects what parses texts in a package.
type walk struct {
	*types.Info
	fset  *token.FileSet
	found []string
}

func (w *walk) report(n ast.Node, what string) {
	w.found = append(w.found, fmt.Sprintf("%s: %s", w.fset.Position(n.Pos()), what))
}

func (w *walk) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		switch n.Op {
		case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
			if (w.isText(n.X) || w.isText(n.Y)) && !w.isEmpty(n.X) && !w.isEmpty(n.Y) {
				w.report(n, "compares a text")
			}
			if w.isErrorText(n.X) && w.isConstant(n.Y) || w.isErrorText(n.Y) && w.isConstant(n.X) {
				w.report(n, "compares the text of an error")
			}
		}
	case *ast.SwitchStmt:
		if n.Tag != nil && (w.isText(n.Tag) || w.isErrorText(n.Tag)) {
			w.report(n, "switches on a text")
		}
	case *ast.IndexExpr:
		if w.isText(n.X) {
			w.report(n, "cuts a text")
		}
	case *ast.SliceExpr:
		if w.isText(n.X) {
			w.report(n, "cuts a text")
		}
	case *ast.RangeStmt:
		if w.isText(n.X) {
			w.report(n, "cuts a text")
		}
	case *ast.MapType:
		if isText(w.Types[n.Key].Type) {
			w.report(n, "looks a text up")
		}
	case *ast.CallExpr:
		w.call(n)
	case *ast.Ident:
		w.instance(n)
	}
	return true
}

// call looks at conversions, and at what is given to packages that search text.
func (w *walk) call(n *ast.CallExpr) {
	if f := w.Types[n.Fun]; f.IsType() {
		if len(n.Args) == 1 && w.isText(n.Args[0]) && !isText(f.Type) {
			w.report(n, "converts a text")
		}
		return
	}
	selector, ok := ast.Unparen(n.Fun).(*ast.SelectorExpr)
	if !ok {
		return
	}
	f := w.Uses[selector.Sel]
	if f == nil || f.Pkg() == nil || !slices.Contains([]string{"strings", "bytes", "regexp"}, f.Pkg().Path()) {
		return
	}
	if f.Name() == "WriteString" || f.Name() == "Join" {
		return
	}
	for _, arg := range n.Args {
		ast.Inspect(arg, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok && (w.isText(e) || w.isErrorText(e)) {
				w.report(e, "searches a text by "+f.Pkg().Path()+"."+f.Name())
				return false
			}
			return true
		})
	}
}

// instance looks at generic functions, such as slices.Contains.
func (w *walk) instance(n *ast.Ident) {
	f := w.Uses[n]
	i, ok := w.Instances[n]
	if !ok || f == nil || f.Pkg() == nil || !slices.Contains([]string{"slices", "maps", "cmp"}, f.Pkg().Path()) {
		return
	}
	if slices.Contains([]string{"Clone", "Clip", "Concat", "Insert", "Or"}, f.Name()) { // Or compares with "" only
		return
	}
	for arg := range i.TypeArgs.Types() {
		if isText(arg) {
			w.report(n, "compares texts by "+f.Pkg().Path()+"."+f.Name())
		}
	}
}

func isText(t types.Type) bool {
	named, ok := types.Unalias(t).(*types.Named)
	return ok && named.Obj().Name() == "Text" && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == statusPath
}

func (w *walk) isText(e ast.Expr) bool { return isText(w.Types[e].Type) }

// isErrorText reports whether an expression is a call of an error's Error.
func (w *walk) isErrorText(e ast.Expr) bool {
	call, ok := ast.Unparen(e).(*ast.CallExpr)
	if !ok || len(call.Args) > 0 {
		return false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != "Error" {
		return false
	}
	s := w.Selections[selector]
	return s != nil && types.Implements(s.Recv(), types.Universe.Lookup("error").Type().Underlying().(*types.Interface))
}

func (w *walk) isConstant(e ast.Expr) bool { return w.Types[e].Value != nil }

func (w *walk) isEmpty(e ast.Expr) bool {
	v := w.Types[e].Value
	return v != nil && v.Kind() == constant.String && constant.StringVal(v) == ""
}
