package k8slab

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

func TestFocus(t *testing.T) {
	if !(Conformance{}).focused("a") || (Conformance{Focus: regexp.MustCompile("b")}).focused("a") {
		t.Error("without a focus each case counts, and with one only what it matches")
	}
}

func TestImagesIn(t *testing.T) {
	const manifests = `
- name: a
  image: localhost/a:1
- image: "localhost/b:2"
  name: b
- image: localhost/a:1
# image: no
`
	if got, want := imagesIn(manifests), []string{"localhost/a:1", "localhost/b:2"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithPolicies(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("../..", Manifest(subnet.StoreKubernetes)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := withPolicies(string(data), "on")
	if err != nil || strings.Count(got, "\n  SELVAGED_NETWORK_POLICY: \"on\"\n") != 1 {
		t.Errorf("the flag is not in the manifest: %v", err)
	}
	if _, err := withPolicies("", "on"); err == nil {
		t.Error("a manifest without the flag is taken")
	}
}
