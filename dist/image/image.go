package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec says what is in an image.
type Spec struct {
	OS, Arch string            // as Go has them
	Files    []File            // in any order
	Command  []string          // the entry point
	Env      []string          // NAME=value
	Labels   map[string]string // see the annotations of the OCI image specification
	Created  time.Time         // shown by tools; the zero value is 1970. It must not be the time of the build
}

// File is a file of an image.
type File struct {
	Path string // in the image, absolute
	From string // on this machine
}

// executable is the mode of every file: what an image of ours holds is programs.
const executable, directory fs.FileMode = 0o755, 0o755

// Build makes an image with one layer.
func Build(s Spec) (v1.Image, error) {
	data, err := layer(s.Files, s.Arch)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("make a layer: %w", err)
	}
	created := s.Created
	if created.IsZero() {
		created = time.Unix(0, 0)
	}
	created = created.UTC()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "selvage dist/image"}})
	if err != nil {
		return nil, fmt.Errorf("append the layer: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make the configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = s.OS, s.Arch, v1.Time{Time: created}
	config.Config.Entrypoint, config.Config.Env, config.Config.Labels = s.Command, s.Env, s.Labels
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, fmt.Errorf("set the configuration: %w", err)
	}
	return img, nil
}

// layer packs files, with the directories that lead to them, in the order of their paths. Everything belongs to root and is
// of 1970.
func layer(files []File, arch string) ([]byte, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{"": true}
	for i, f := range files {
		name, absolute := strings.CutPrefix(f.Path, "/")
		if !absolute || path.Clean(f.Path) != f.Path || name == "" {
			return nil, fmt.Errorf("%q is not the absolute path of a file", f.Path)
		}
		if i > 0 && files[i-1].Path == f.Path {
			return nil, fmt.Errorf("%s is there twice", f.Path)
		}
		if err := addDirectories(w, path.Dir(name), made); err != nil {
			return nil, err
		}
		data, err := os.ReadFile(f.From)
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		if err := checkProgram(data, arch, files); err != nil {
			return nil, fmt.Errorf("pack %s: %s: %w", f.Path, f.From, err)
		}
		if err := add(w, &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(executable), Size: int64(len(data))}, data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return out.Bytes(), nil
}

// machine is what an architecture of Go's is called in the header of a program (ELF specification, e_machine).
func machine(arch string) (m elf.Machine, known bool) {
	m, known = map[string]elf.Machine{
		"386": elf.EM_386, "amd64": elf.EM_X86_64, "arm": elf.EM_ARM, "arm64": elf.EM_AARCH64, "loong64": elf.EM_LOONGARCH,
		"ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
	}[arch]
	return m, known
}

// checkProgram refuses a program of another architecture, and one that needs a loader which is not among the files: an image from
// scratch has none, and "no such file" is all that the kernel would say.
func checkProgram(data []byte, arch string, files []File) error {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil // no program
	}
	if want, known := machine(arch); known && f.Machine != want {
		return fmt.Errorf("it is a program for %s, and the image is for %s (%s)", f.Machine, arch, want)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && !slices.ContainsFunc(files, func(f File) bool { return f.Path == loader(p) }) {
			return errors.New("it is linked dynamically, and the image has no libraries; build it with CGO_ENABLED=0, as make build does")
		}
	}
	return nil
}

// loader is the path that a program names its loader by.
func loader(p *elf.Prog) string {
	path, _ := io.ReadAll(p.Open()) // from memory
	return strings.TrimRight(string(path), "\x00")
}

// addDirectories adds dir and what leads to it, once.
func addDirectories(w *tar.Writer, dir string, made map[string]bool) error {
	if dir == "." || made[dir] {
		return nil
	}
	made[dir] = true
	if err := addDirectories(w, path.Dir(dir), made); err != nil {
		return err
	}
	return add(w, &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: int64(directory)}, nil)
}

func add(w *tar.Writer, h *tar.Header, data []byte) error {
	h.ModTime, h.Format = time.Unix(0, 0), tar.FormatUSTAR
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %s: %w", h.Name, err)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("pack %s: %w", h.Name, err)
	}
	return nil
}
