package chart

import (
	"fmt"
	"path/filepath"

	"helm.sh/helm/v3/pkg/chartutil"
)

// header is the comment at the top of a plain manifest; its argument is what to set first.
const header = `# selvage on Kubernetes, for kubectl apply -f: see Documentation/kubernetes.md. First set %s.
# Generated from the chart in dist/chart/selvage by go generate in dist/chart.
`

// A File is one that is rendered from the chart.
type File struct {
	Path    string // from this folder
	values  string // file of values in this folder
	comment string
}

// Files are the plain manifests, and the chart with no value at its default, one with each store, for tests of the result.
func Files() []File {
	const test = "# Generated from everything.yaml by go generate in dist/chart.\n"
	return []File{
		{"../kubernetes/selvage.yaml", "plain.yaml", fmt.Sprintf(header, "the image, and Network in net-conf.json")},
		{"../kubernetes/selvage-etcd.yaml", "plain-etcd.yaml", fmt.Sprintf(header, "the image and etcd's endpoints")},
		{"testdata/everything.yaml", "everything.yaml", test},
		{"testdata/everything-kubernetes.yaml", "everything-kubernetes.yaml", test},
	}
}

// Render renders a file. root is the path of this folder.
func (f File) Render(root string) (string, error) {
	values, err := chartutil.ReadValuesFile(filepath.Join(root, f.values))
	if err != nil {
		return "", fmt.Errorf("values in %s: %w", f.values, err)
	}
	text, err := Manifest(filepath.Join(root, "selvage"), Release{Name: "selvage", Namespace: "selvage", Values: values})
	return f.comment + text, err
}
