package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fieldsOf returns what a struct type of the source has as keys in JSON. Where a struct has no name, within is the function it is in.
func fieldsOf(t *testing.T, path, name string) (keys []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			if s, ok := n.Type.(*ast.StructType); ok && n.Name.Name == name {
				keys = append(keys, keysOf(s)...)
			}
		case *ast.FuncDecl:
			if n.Name.Name == name {
				ast.Inspect(n, func(n ast.Node) bool {
					if s, ok := n.(*ast.StructType); ok {
						keys = append(keys, keysOf(s)...)
					}
					return true
				})
			}
		}
		return true
	})
	if len(keys) == 0 {
		t.Fatalf("%s has no %s with fields", path, name)
	}
	return keys
}

func keysOf(s *ast.StructType) (keys []string) {
	for _, f := range s.Fields.List {
		for _, name := range f.Names {
			key := name.Name
			if f.Tag != nil {
				key, _, _ = strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
			}
			if f.Tag != nil || name.IsExported() {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// section is what stands below a heading.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(read(t, page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", page, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// rows are the cells of a table, the first two of each row.
func rows(text string) (all [][2]string) {
	for _, m := range regexp.MustCompile("(?m)^\\| (`.*?) \\| (.*?) ?\\|").FindAllStringSubmatch(text, -1) {
		all = append(all, [2]string{m[1], m[2]})
	}
	return all
}

// TestNetworkConfigIsDocumented: configuration.md has each key that the network config takes, and no other.
func TestNetworkConfigIsDocumented(t *testing.T) {
	var want, got []string
	for _, key := range fieldsOf(t, "subnet/config.go", "configJSON") {
		if key != "Backend" {
			want = append(want, key)
		}
	}
	keys := append(fieldsOf(t, "backend/vxlan/options.go", "optionsJSON"), "Type")
	for _, key := range append(keys, fieldsOf(t, "backend/wireguard/options.go", "optionsJSON")...) {
		if key = "Backend." + key; !slices.Contains(want, key) { // both have MTU
			want = append(want, key)
		}
	}
	for _, row := range rows(section(t, "Documentation/configuration.md", "Network config")) {
		got = append(got, firsts(inline, row[0])...)
	}
	same(t, "the network config", got, want)
}

// TestPluginConfigIsDocumented: the same for the CNI plugin's. What the specification has in every plugin's is left to that.
func TestPluginConfigIsDocumented(t *testing.T) {
	var want, got []string
	for _, key := range fieldsOf(t, "cniplugin/config.go", "netConf") {
		if !slices.Contains([]string{"cniVersion", "name", "args", "prevResult", "cni.dev/valid-attachments", "cni.dev/attachments"}, key) {
			want = append(want, key)
		}
	}
	for _, row := range rows(section(t, "Documentation/configuration.md", "The CNI plugin's configuration")) {
		if row[0] != "`type`" { // the runtime reads it
			got = append(got, firsts(inline, row[0])...)
		}
	}
	same(t, "the CNI plugin's configuration", got, want)
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("of %s the documentation has\n%q, and the code\n%q", what, got, want)
	}
}

// TestFlagsHaveTheirDefaults: configuration.md has each of the daemon's flags, and says of its default what --help does.
func TestFlagsHaveTheirDefaults(t *testing.T) {
	table := rows(section(t, "Documentation/configuration.md", "The daemon's flags"))
	_, text, _ := strings.Cut(help(t), "\nFlags:")
	defaults := regexp.MustCompile(`\(default \[?"?(.*?)"?\]?\)$`)
	for line := range strings.Lines(text) {
		m := flagLine.FindStringSubmatch(line)
		if m == nil || m[1] == "help" || m[1] == "node-name" { // whose default is the host's name
			continue
		}
		i := slices.IndexFunc(table, func(row [2]string) bool { return slices.Contains(firsts(inline, row[0]), "--"+m[1]) })
		if i < 0 {
			t.Errorf("the table of flags has no --%s", m[1])
			continue
		}
		said := defaults.FindStringSubmatch(strings.TrimSpace(line))
		if said == nil {
			continue
		}
		want := strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(said[1])
		if !strings.Contains(strings.ReplaceAll(table[i][1], "`", ""), want) {
			t.Errorf("--%s: the table says %q of its default, and --help %q", m[1], table[i][1], want)
		}
	}
}
