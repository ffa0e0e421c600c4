package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const reference = "registry.example/selvage:v1"

// programs are the files of an image of ours, in the directory that it is made from.
func programs() []string {
	names := []string{"selvaged", "selvage"}
	for _, name := range ReferencePlugins() {
		names = append(names, filepath.Join("cni", name))
	}
	return names
}

// sources makes the files that an image of ours is made from, with the given times and modes, in a directory of its own.
func sources(t *testing.T, at time.Time, mode os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range programs() {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, bytes.Repeat([]byte("content of "+name), 1000), 0o600)
		if err := errors.Join(err, os.Chmod(path, mode), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, s Spec) v1.Image {
	t.Helper()
	img, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// archives writes both kinds and returns the files' digests.
func archives(t *testing.T, images ...v1.Image) (sums [2][32]byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	for i, write := range []func(string) error{
		func(f string) error { return WriteOCI(f, reference, images...) },
		func(f string) error { return WriteDocker(f, reference, images[0]) },
	} {
		path := filepath.Join(dir, []string{"oci.tar", "docker.tar"}[i])
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
	}
	return sums, dir
}

// TestReproducible builds from files that are the same in nothing but their content.
func TestReproducible(t *testing.T) {
	first := Selvage("amd64", sources(t, time.Unix(1e9, 0), 0o700), "v1", time.Time{})
	second := Selvage("amd64", sources(t, time.Now(), 0o444), "v1", time.Time{})
	slices.Reverse(second.Files)
	a, dir := archives(t, build(t, first))
	b, _ := archives(t, build(t, second))
	if a != b {
		t.Error("two builds of the same files differ")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %q, %v", left, err)
	}
	for name, change := range map[string]func(*Spec){
		"architecture": func(s *Spec) { s.Arch = "arm64" },
		"version":      func(s *Spec) { s.Labels["org.opencontainers.image.version"] = "v2" },
		"command":      func(s *Spec) { s.Command = []string{Plugin} },
		"time":         func(s *Spec) { s.Created = time.Unix(1, 0) },
		"file":         func(s *Spec) { s.Files = s.Files[:1] },
	} {
		s := Selvage("amd64", sources(t, time.Now(), 0o755), "v1", time.Time{})
		change(&s)
		if other, _ := archives(t, build(t, s)); other == a {
			t.Errorf("another %s makes the same archives", name)
		}
	}
}

// TestContent reads an archive back, with the library's own checks of digests and sizes.
func TestContent(t *testing.T) {
	dir := sources(t, time.Now(), 0o600)
	amd64, arm64 := build(t, Selvage("amd64", dir, "v1", time.Time{})), build(t, Selvage("arm64", dir, "v1", time.Time{}))
	_, out := archives(t, amd64, arm64)
	img, err := tarball.ImageFromPath(filepath.Join(out, "docker.tar"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != "amd64" || !slices.Equal(config.Config.Entrypoint, []string{Daemon}) {
		t.Errorf("configuration %+v", config)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v, want one", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Mode != 0o755 || h.Uid != 0 || h.Uname != "" || h.ModTime.Unix() != 0 {
			t.Errorf("%s: %+v", h.Name, h)
		}
	}
	want := []string{"usr/", "usr/local/", "usr/local/bin/", "usr/local/bin/selvage", "usr/local/bin/selvaged", "usr/local/libexec/",
		"usr/local/libexec/cni/", "usr/local/libexec/cni/bridge", "usr/local/libexec/cni/host-local", "usr/local/libexec/cni/loopback",
		"usr/local/libexec/cni/portmap"}
	if !slices.Equal(names, want) {
		t.Errorf("the layer has %q, want %q", names, want)
	}
	oci, err := os.ReadFile(filepath.Join(out, "oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"oci-layout", "index.json", `"architecture":"arm64"`, `"architecture":"amd64"`, `"` + reference + `"`} {
		if !bytes.Contains(oci, []byte(want)) {
			t.Errorf("the OCI layout has no %s", want)
		}
	}
}

// TestArchitectures packs what the go command builds for two architectures, and looks at what each has in the index.
func TestArchitectures(t *testing.T) {
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	specs := map[string]Spec{}
	var images []v1.Image
	for _, arch := range []string{"amd64", "arm64"} {
		dir := t.TempDir()
		source := filepath.Join(dir, "main.go")
		if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, name := range programs() {
			cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), source)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		specs[arch] = Selvage(arch, dir, "v1", time.Time{})
		images = append(images, build(t, specs[arch]))
	}
	wrong := specs["amd64"]
	wrong.Arch = "arm64"
	if _, err := Build(wrong); err == nil || !strings.Contains(err.Error(), "EM_X86_64") {
		t.Errorf("programs for amd64 in an image for arm64: %v", err)
	}

	file := filepath.Join(t.TempDir(), "oci.tar")
	if err := WriteOCI(file, reference, images...); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xf", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("the layout has %+v, %v, want one index", manifest, err)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	if manifest, err = index.IndexManifest(); err != nil || len(manifest.Manifests) != len(want) {
		t.Fatalf("the index has %+v, %v, want two images", manifest, err)
	}
	for _, m := range manifest.Manifests {
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range files(t, img) {
			f, err := elf.NewFile(bytes.NewReader(data))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if f.Machine != want[m.Platform.Architecture] {
				t.Errorf("%s of the image for %s is for %s", name, m.Platform.Architecture, f.Machine)
			}
			if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
				t.Errorf("%s of the image for %s needs %q, %v", name, m.Platform.Architecture, libraries, err)
			}
		}
	}
}

// files reads the files of an image with one layer.
func files(t *testing.T, img v1.Image) map[string][]byte {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v, want one", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	found := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if found[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	if len(found) != len(programs()) {
		t.Errorf("the layer has %d files, want %d", len(found), len(programs()))
	}
	return found
}

func TestErrors(t *testing.T) {
	dir := sources(t, time.Now(), 0o755)
	from := filepath.Join(dir, "selvage")
	for name, files := range map[string][]File{
		"not absolute": {{Path: "selvage", From: from}},
		"not clean":    {{Path: "/a/../selvage", From: from}},
		"twice":        {{Path: "/selvage", From: from}, {Path: "/selvage", From: from}},
		"dynamic":      {{Path: "/sh", From: "/bin/sh"}},
		"missing":      {{Path: "/selvage", From: filepath.Join(dir, "nothing")}},
	} {
		if _, err := Build(Spec{OS: "linux", Arch: "amd64", Files: files}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	img := build(t, Selvage("amd64", dir, "v1", time.Time{}))
	for _, bad := range []string{"", "selvage", "registry.example/Selvage:v1", "registry.example/selvage@sha256:" + strings.Repeat("0", 64)} {
		if err := WriteDocker(filepath.Join(dir, "x.tar"), bad, img); err == nil {
			t.Errorf("the name %q was taken", bad)
		}
	}
}

// TestLoader packs a program that is linked dynamically together with what loads it.
func TestLoader(t *testing.T) {
	program, err := elf.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	i := slices.IndexFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if i < 0 {
		t.Fatal("/bin/sh is not linked dynamically")
	}
	path := loader(program.Progs[i])
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the loader of /bin/sh: %v", err)
	}
	build(t, Spec{OS: "linux", Arch: runtime.GOARCH, Files: []File{{Path: "/sh", From: "/bin/sh"}, {Path: path, From: path}}})
}
