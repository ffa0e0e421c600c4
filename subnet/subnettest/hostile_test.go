package subnettest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"{}\n[]\n":               "line 2: json: cannot unmarshal array into Go value of type subnettest.line",
		`{"key64":"not base64"}`: "line 1: illegal base64 data at input byte 3",
	} {
		if _, err := parse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// TestNotInTheProduct: what is built for users knows nothing of tests.
func TestNotInTheProduct(t *testing.T) {
	const module = "github.com/selvage-net/selvage"
	out, err := exec.Command("go", "list", "-deps", module, module+"/cniplugin/selvage").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"/subnet") {
		t.Fatalf("package subnet is not among %d dependencies", len(deps))
	}
	for _, dep := range deps {
		if strings.HasPrefix(dep, module+"/subnet/subnettest") || strings.HasPrefix(dep, module+"/subnet/testdata") {
			t.Errorf("%s is linked into the product", dep)
		}
	}
}
