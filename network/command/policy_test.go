package command

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// runPolicy runs selvaged policy, and returns what it prints and its exit code.
func runPolicy(t *testing.T, stdin io.Reader, args ...string) (out, notes string, code int) {
	t.Helper()
	root := &cobra.Command{Use: "selvaged", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Policy())
	ExplainUsage(root)
	var o, e bytes.Buffer
	root.SetIn(stdin)
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetArgs(append([]string{"policy"}, args...))
	code = exitCode(root.Execute(), &e)
	return o.String(), e.String(), code
}

// exitCode returns the exit code for an error of a command, as main has it. It writes the error.
func exitCode(err error, to io.Writer) int {
	var exit Exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	default:
		fmt.Fprintln(to, "selvaged:", err)
		return 1
	}
}

const (
	shopFile     = "testdata/policy/shop.yaml"
	expectedFile = "testdata/policy/expected.yaml"
)

// TestPolicyCommands shows each command's text for the files of testdata.
func TestPolicyCommands(t *testing.T) {
	var all strings.Builder
	for _, tt := range []struct {
		line string
		code int
	}{
		{"list -f " + shopFile, 0},
		{"explain -f " + shopFile + " shop/web shop/cart:8000", 0},
		{"explain -f " + shopFile + " shop/web shop/db:5432", 2},
		{"explain -f " + shopFile + " shop/cart shop/db", 2},
		{"explain -f " + shopFile + " ops/monitor shop/web:9090/TCP", 0},
		{"explain -f " + shopFile + " shop/web 192.0.2.7:443", 2},
		{"explain -f " + shopFile + " --pod-network 10.5.0.0/16,fd00:5::/64 shop/web shop/cart:ICMP", 2},
		{"test " + shopFile + " " + expectedFile, 0},
		{"test testdata/policy", 0},
	} {
		out, notes, code := runPolicy(t, nil, strings.Fields(tt.line)...)
		all.WriteString("$ selvaged policy " + tt.line + "\n" + notes + out + "\n")
		if code != tt.code {
			t.Errorf("%s: exit code %d, want %d", tt.line, code, tt.code)
		}
	}
	golden(t, "policy.txt", all.String())
}

// differing are expectations that are not met.
const differing = `
apiVersion: selvage.io/v1
kind: PolicyTest
metadata: {name: '"wrong" & <odd>'}
connections:
- {from: shop/cart, to: shop/db, ports: 5432, expect: allow, by: shop/catch-all}
- {name: "nothing <reaches> cart", from: "shop/*", to: shop/cart, ports: [8000, 80], expect: deny}
- {from: shop/cart, to: shop/db, ports: 5432, expect: allow, by: monitoring}
`

// TestPolicyDifferences: what differs is shown as text, JSON and JUnit's XML, and is in the exit code.
func TestPolicyDifferences(t *testing.T) {
	for _, format := range []string{"table", "json", "junit"} {
		out, _, code := runPolicy(t, strings.NewReader(differing), "test", shopFile, "-", "-o", format)
		if code != ExitDegraded {
			t.Errorf("%s: exit code %d, want %d", format, code, ExitDegraded)
		}
		golden(t, "policy-differences."+format, out)
		if format != "junit" {
			continue
		}
		for d := xml.NewDecoder(strings.NewReader(out)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("not XML: %v\n%s", err, out)
			}
		}
	}
}

// TestPolicyNotUnderstood: a policy of which a part was not understood is not as expected.
func TestPolicyNotUnderstood(t *testing.T) {
	text := strings.Replace(readFile(t, shopFile), "podSelector: {}", "podSelektor: {}", 1)
	file := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, notes, code := runPolicy(t, strings.NewReader(strings.Split(differing, "- {name")[0]), "test", file, "-", "-o", "junit")
	if code != ExitDegraded || !strings.Contains(notes, "podSelektor") || !strings.Contains(out, `name="shop/catch-all"><failure`) {
		t.Errorf("exit code %d, notes %q, output\n%s", code, notes, out)
	}
	out, _, code = runPolicy(t, nil, "list", "--file", file)
	if code != 0 || !strings.Contains(out, "shop/catch-all: not understood, and allows nothing: spec: has the field") {
		t.Errorf("list: exit code %d, output\n%s", code, out)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPolicyBadInput: what cannot be read is named.
func TestPolicyBadInput(t *testing.T) {
	empty := t.TempDir()
	for _, tt := range []struct{ line, want string }{
		{"", "which command? Usage: selvaged policy COMMAND"},
		{"tset", `unknown command "tset": did you mean test?`},
		{"test", "FILE... is missing"},
		{"test --flie a", "unknown flag: --flie"},
		{"test /nowhere", "/nowhere"},
		{"test " + empty, "has no file *.yaml, *.yml or *.json"},
		{"test " + shopFile, "no file has expectations"},
		{"test " + shopFile + " -o xml", `--output: "xml", want table, json, junit`},
		{"list -f " + shopFile + " -o xml", `--output: "xml", want table or json`},
		{"list -f " + shopFile + " --pod-network 10.0.0.1/8", `--pod-network: "10.0.0.1/8" is not a prefix`},
		{"list -f " + shopFile + " --pod-network 10.0.0.0/8,11.0.0.0/8", "the second IPv4 network"},
		{"list -f " + shopFile + " --pod-network 10.0.0.0/31", "has too few addresses for 3 pods"},
		{"explain -f " + shopFile + " shop/web", "DST[:PORT] is missing"},
		{"explain -f " + shopFile + " shop/web shop/dbb", "did you mean shop/db or shop/web?"},
		{"explain -f " + shopFile + " shop/webb shop/db", "did you mean shop/web"},
		{"explain -f " + shopFile + " shop/web shop/db:0", `port "0": want a port`},
		{"explain -f " + shopFile + " shop/web shop/db:http", "shop/db has no port with the name http"},
		{"explain -f testdata/status.txt shop/web shop/db", "want objects of Kubernetes"},
	} {
		_, notes, code := runPolicy(t, nil, strings.Fields(tt.line)...)
		if code != 1 || !strings.HasPrefix(notes, "selvaged: ") || !strings.Contains(notes, tt.want) {
			t.Errorf("%s: exit code %d, %q; want 1, %q", tt.line, code, notes, tt.want)
		}
	}
}

// TestPolicyPage: the example of the documentation is met, and prints what the page shows.
func TestPolicyPage(t *testing.T) {
	page := readFile(t, "../../Documentation/network-policy.md")
	var example strings.Builder
	for _, block := range strings.Split(page, "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		example.WriteString(text + "---\n")
	}
	for _, line := range []string{"test -", "explain --file - shop/web shop/db"} {
		out, _, _ := runPolicy(t, strings.NewReader(example.String()), strings.Fields(line)...)
		if out == "" || !strings.Contains(page, out) {
			t.Errorf("%s: the page does not show\n%s", line, out)
		}
	}
}
