// Command manifest writes the plain manifest, rendered from the chart. It runs in the folder dist/chart.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/selvage-net/selvage/dist/chart"
)

func main() {
	out := flag.String("o", "/dev/stdout", "file to write")
	flag.Parse()
	text, err := chart.Plain(".")
	if err == nil {
		err = os.WriteFile(*out, []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "manifest: %v\n", err)
		os.Exit(1)
	}
}
