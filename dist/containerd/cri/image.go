package cri

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/selvage-net/selvage/dist/image"
)

// Reference names the image that [Image] makes.
const Reference = "localhost/pod:lab"

// PodProgram is where the pods' program is in the image.
const PodProgram = "/pod"

// Image builds the pods' program and packs it into dir, as an archive of Docker's kind. It is the sandboxes' image
// as well as the containers'.
func Image(dir string) (string, error) {
	binary := filepath.Join(dir, "pod")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "github.com/selvage-net/selvage/dist/containerd/cmd/pod")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the pods' program: %w: %s", err, out)
	}
	img, err := image.Build(image.Spec{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Command: []string{PodProgram}, Files: []image.File{{Path: PodProgram, From: binary}},
	})
	if err != nil {
		return "", err
	}
	archive := filepath.Join(dir, "pod.tar")
	return archive, image.WriteDocker(archive, Reference, img)
}
