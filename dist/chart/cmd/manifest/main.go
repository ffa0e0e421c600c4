// Command manifest writes the copies that the chart has of other files, and then the plain manifests and the files in
// testdata, which the chart renders. It runs in the folder dist/chart.
package main

import (
	"fmt"
	"os"

	"github.com/selvage-net/selvage/dist/chart"
)

func main() {
	if err := write(); err != nil {
		fmt.Fprintf(os.Stderr, "manifest: %v\n", err)
		os.Exit(1)
	}
}

func write() error {
	for path, source := range chart.Copies() {
		text, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	for _, f := range chart.Files() {
		text, err := f.Render(".")
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.Path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
