// Command manifest writes the plain manifest and testdata/everything.yaml, the chart with every value set. It runs in the
// folder dist/chart.
package main

import (
	"fmt"
	"os"

	"github.com/selvage-net/selvage/dist/chart"
)

func main() {
	for file, render := range map[string]func(root string) (string, error){
		"../kubernetes/selvage.yaml": chart.Plain,
		"testdata/everything.yaml":   chart.Everything,
	} {
		text, err := render(".")
		if err == nil {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "manifest: %v\n", err)
			os.Exit(1)
		}
	}
}
