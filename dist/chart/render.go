package chart

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// Release holds what Helm takes from its command line.
type Release struct {
	Name, Namespace string
	Values          map[string]any // that differ from the chart's defaults
	Kubernetes      string         // the API server's version; default: that of dist/k8slab
}

// renderAll returns the output of all the chart's templates by file name: the objects, and the notes that Helm prints.
func renderAll(dir string, r Release) (map[string]string, error) {
	c, err := loader.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	if err := chartutil.ProcessDependencies(c, r.Values); err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	options := chartutil.ReleaseOptions{Name: r.Name, Namespace: r.Namespace, IsInstall: true, Revision: 1}
	capabilities := chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion(cmp.Or(r.Kubernetes, "v1.34.4"))
	if err != nil {
		return nil, fmt.Errorf("version of Kubernetes: %w", err)
	}
	capabilities.KubeVersion = *version
	values, err := chartutil.ToRenderValues(c, r.Values, options, capabilities)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	files, err := (engine.Engine{Strict: true}).Render(c, values)
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	return files, nil
}

// Render returns the objects of the chart in a directory as YAML, by the name of the template. Values that the chart's
// schema rejects are an error.
func Render(dir string, r Release) (map[string]string, error) {
	files, err := renderAll(dir, r)
	maps.DeleteFunc(files, func(name, text string) bool {
		return !strings.HasSuffix(name, ".yaml") || strings.TrimSpace(text) == ""
	})
	return files, err
}

// kinds returns the templates' names in the order of the objects' dependencies, as Helm installs them too.
func kinds() []string {
	return []string{
		"namespace", "serviceaccount", "clusterrole", "admissionpolicy", "network", "configmap", "daemonset", "mesh",
		"podmonitor", "prometheusrule", "dashboard",
	}
}

// Manifest returns all objects of a chart as one YAML stream, for kubectl.
func Manifest(dir string, r Release) (string, error) {
	files, err := Render(dir, r)
	if err != nil {
		return "", err
	}
	var all []string
	for _, kind := range kinds() {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if strings.HasSuffix(name, "/"+kind+".yaml") {
				all = append(all, strings.TrimSpace(files[name])+"\n")
			}
		}
	}
	if len(all) != len(files) {
		return "", fmt.Errorf("the chart has %d files with objects, and %d are of a known kind: %v", len(files), len(all), kinds())
	}
	return strings.Join(all, "---\n"), nil
}
