// Command release makes the files of a release from binaries that `make release` has built:
//
//	release --version v1.0.0 --commit HASH --repository . --build bin/release-build --out bin/release --arch amd64
//
// The time of everything is SOURCE_DATE_EPOCH. It prints the files' names and sizes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/selvage-net/selvage/dist/release"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o release.Options
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&o.Version, "version", "", "version, as git describes the commit")
	flags.StringVar(&o.Commit, "commit", "", "commit, in hexadecimal")
	flags.StringVar(&o.Repository, "repository", ".", "root of the source")
	flags.StringVar(&o.Build, "build", "", "directory with the binaries below each architecture, and the image")
	out := flags.String("out", "", "directory to write; what is in it is removed")
	flags.Func("arch", "architecture, once for each", func(s string) error { o.Archs = append(o.Archs, s); return nil })
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.Version == "" || o.Commit == "" || o.Build == "" || *out == "" || len(o.Archs) == 0 {
		return errors.New("want --version, --commit, --build, --out and --arch; make release sets them")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH is no number of seconds; make release sets it: %w", err)
	}
	o.Created = time.Unix(seconds, 0).UTC()
	files, err := release.Make(o)
	if err != nil {
		return err
	}
	if err := release.Write(*out, files); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Printf("%10d  %s\n", len(files[name]), name)
	}
	return nil
}
