package chart

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// Release says what Helm would be told on its command line.
type Release struct {
	Name, Namespace string
	Values          map[string]any // beyond the chart's
}

// renderAll returns all that the chart's templates make, by file name: besides objects, what Helm tells its user at the end.
func renderAll(dir string, r Release) (map[string]string, error) {
	c, err := loader.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	if err := chartutil.ProcessDependencies(c, r.Values); err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	options := chartutil.ReleaseOptions{Name: r.Name, Namespace: r.Namespace, IsInstall: true, Revision: 1}
	values, err := chartutil.ToRenderValues(c, r.Values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	files, err := (engine.Engine{Strict: true}).Render(c, values)
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	return files, nil
}

// Render returns the objects of the chart in a directory, one YAML text for each file of it that has any, by name. Values
// that the chart's schema does not accept are an error.
func Render(dir string, r Release) (map[string]string, error) {
	files, err := renderAll(dir, r)
	maps.DeleteFunc(files, func(name, text string) bool {
		return !strings.HasSuffix(name, ".yaml") || strings.TrimSpace(text) == ""
	})
	return files, err
}

// kinds are in the order in which objects need each other; Helm installs them so as well.
func kinds() []string { return []string{"namespace", "serviceaccount", "configmap", "daemonset"} }

// Manifest is all of a chart's objects in one text, to be given to kubectl.
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
