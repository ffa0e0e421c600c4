// Command manifest writes the plain manifests and the files in testdata, which the chart renders. It runs in the folder
// dist/chart.
package main

import (
	"fmt"
	"os"

	"github.com/selvage-net/selvage/dist/chart"
)

func main() {
	for _, f := range chart.Files() {
		text, err := f.Render(".")
		if err == nil {
			err = os.WriteFile(f.Path, []byte(text), 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "manifest: %v\n", err)
			os.Exit(1)
		}
	}
}
