// Command image makes the image of selvage from the static binaries, as an OCI layout and as a docker archive:
//
//	image --name registry.example/selvage:v1 --out bin/image --binaries amd64=bin --binaries arm64=bin/arm64
//
// It writes OUT/selvage.oci.tar with all architectures and OUT/selvage-ARCH.tar for each, and prints the digest. The same
// binaries make the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/selvage-net/selvage/dist/image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

// builds are the directories with the binaries, by architecture.
type builds map[string]string

func (b builds) String() string { return fmt.Sprint(map[string]string(b)) }

func (b builds) Set(s string) error {
	arch, dir, ok := strings.Cut(s, "=")
	if !ok || arch == "" || dir == "" || b[arch] != "" {
		return errors.New("want ARCH=DIRECTORY, each architecture once")
	}
	b[arch] = dir
	return nil
}

func run(args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	dirs := builds{}
	flags.Var(dirs, "binaries", "ARCH=DIRECTORY of selvaged, selvage and cni/ with the reference plugins; once for each architecture")
	reference := flags.String("name", "localhost/selvage:devel", "name of the image, with registry and tag")
	version := flags.String("version", "devel", "version to show in the image's labels")
	out := flags.String("out", ".", "directory to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || len(dirs) == 0 {
		return errors.New("which binaries? --binaries ARCH=DIRECTORY")
	}
	created, err := epoch(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	var all []v1.Image
	for _, arch := range sorted(dirs) {
		img, err := image.Build(image.Selvage(arch, dirs[arch], *version, created))
		if err != nil {
			return err
		}
		if err := image.WriteDocker(filepath.Join(*out, "selvage-"+arch+".tar"), *reference, img); err != nil {
			return err
		}
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		fmt.Printf("%s linux/%s %s\n", *reference, arch, digest)
		all = append(all, img)
	}
	return image.WriteOCI(filepath.Join(*out, "selvage.oci.tar"), *reference, all...)
}

func sorted(dirs builds) (list []string) {
	for arch := range dirs {
		list = append(list, arch)
	}
	slices.Sort(list)
	return list
}

// epoch reads SOURCE_DATE_EPOCH, by which a build is told the time of its source (reproducible-builds.org).
func epoch(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", s)
	}
	return time.Unix(seconds, 0), nil
}
