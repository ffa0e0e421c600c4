package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/image"
)

// program is what runs in the containers: package main of dist/containerd/cmd/pod.
const program = "/pod"

// Image builds the containers' program and packs it, as an archive that `docker load` and `podman load` take. It returns the
// program's path, and the archive's.
func Image(dir string) (binary, archive string, err error) {
	binary, archive = filepath.Join(dir, "pod"), filepath.Join(dir, "pod.tar")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "github.com/selvage-net/selvage/dist/containerd/cmd/pod")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build the containers' program: %w: %s", err, out)
	}
	img, err := image.Build(image.Spec{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Command: []string{program}, Files: []image.File{{Path: program, From: binary}},
	})
	if err != nil {
		return "", "", err
	}
	return binary, archive, image.WriteDocker(archive, containerd.Reference, img)
}
