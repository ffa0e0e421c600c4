// Command template renders the chart as helm template does, from its directory or its archive:
//
//	template bin/release/selvage-chart-1.0.0.tgz > selvage.yaml
//
// All values have their defaults, but those in a file that a second argument names.
package main

import (
	"errors"
	"fmt"
	"os"

	"helm.sh/helm/v3/pkg/chartutil"

	"github.com/selvage-net/selvage/dist/chart"
)

func main() {
	if err := render(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "template: %v\n", err)
		os.Exit(1)
	}
}

func render(args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("want the chart, and a file of values or none")
	}
	r := chart.Release{Name: "selvage", Namespace: "selvage", Values: map[string]any{}}
	if len(args) == 2 {
		values, err := chartutil.ReadValuesFile(args[1])
		if err != nil {
			return fmt.Errorf("values in %s: %w", args[1], err)
		}
		r.Values = values
	}
	text, err := chart.Manifest(args[0], r)
	if err == nil {
		_, err = fmt.Print(text)
	}
	return err
}
