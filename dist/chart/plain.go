package chart

import (
	"fmt"
	"path/filepath"

	"helm.sh/helm/v3/pkg/chartutil"
)

// Header stands above the plain manifest.
const Header = `# selvage on Kubernetes, for kubectl apply -f: see Documentation/kubernetes.md. Change the image and etcd's endpoints first.
# Generated from the chart in dist/chart/selvage; go generate in dist/chart writes it anew.
`

// Plain is the plain manifest. root is this folder.
func Plain(root string) (string, error) {
	text, err := withFile(root, "plain.yaml")
	return Header + text, err
}

// Everything is the chart with every value set to another than it has, for who checks what comes out.
func Everything(root string) (string, error) {
	text, err := withFile(root, "everything.yaml")
	return "# Generated from everything.yaml; go generate in dist/chart writes it anew.\n" + text, err
}

// withFile renders the chart with the values in a file of this folder.
func withFile(root, name string) (string, error) {
	values, err := chartutil.ReadValuesFile(filepath.Join(root, name))
	if err != nil {
		return "", fmt.Errorf("values in %s: %w", name, err)
	}
	return Manifest(filepath.Join(root, "selvage"), Release{Name: "selvage", Namespace: "selvage", Values: values})
}
