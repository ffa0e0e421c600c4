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
	values, err := chartutil.ReadValuesFile(filepath.Join(root, "plain.yaml"))
	if err != nil {
		return "", fmt.Errorf("values of the plain manifest: %w", err)
	}
	text, err := Manifest(filepath.Join(root, "selvage"), Release{Name: "selvage", Namespace: "selvage", Values: values})
	return Header + text, err
}
