package chart

import (
	"fmt"
	"path/filepath"

	"helm.sh/helm/v3/pkg/chartutil"
)

// Header is the comment at the top of the plain manifest.
const Header = `# selvage on Kubernetes, for kubectl apply -f: see Documentation/kubernetes.md. First set the image and etcd's endpoints.
# Generated from the chart in dist/chart/selvage by go generate in dist/chart.
`

// Plain returns the plain manifest. root is the path of this folder.
func Plain(root string) (string, error) {
	text, err := withFile(root, "plain.yaml")
	return Header + text, err
}

// Everything returns the chart rendered with no value at its default, for tests of the result. root is as for Plain.
func Everything(root string) (string, error) {
	text, err := withFile(root, "everything.yaml")
	return "# Generated from everything.yaml by go generate in dist/chart.\n" + text, err
}

// withFile renders the chart with the values in a file of this folder.
func withFile(root, name string) (string, error) {
	values, err := chartutil.ReadValuesFile(filepath.Join(root, name))
	if err != nil {
		return "", fmt.Errorf("values in %s: %w", name, err)
	}
	return Manifest(filepath.Join(root, "selvage"), Release{Name: "selvage", Namespace: "selvage", Values: values})
}
