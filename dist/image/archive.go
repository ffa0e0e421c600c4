package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// refName is the annotation that names an image in an OCI layout (OCI image specification, annotations).
const refName = "org.opencontainers.image.ref.name"

// containerdName is what containerd's import looks for, a full reference, before refName.
const containerdName = "io.containerd.image.name"

// WriteDocker writes an archive of one image as `docker load` and `ctr images import` take it.
func WriteDocker(file, reference string, img v1.Image) error {
	tag, err := parse(reference)
	if err != nil {
		return err
	}
	return replace(file, func(f *os.File) error { return tarball.Write(tag, img, f) })
}

// WriteOCI writes an OCI layout with an index of the images, one a platform, as a tar archive.
func WriteOCI(file, reference string, images ...v1.Image) error {
	tag, err := parse(reference)
	if err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		config, err := img.ConfigFile()
		if err != nil {
			return fmt.Errorf("read an image's configuration: %w", err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}},
		})
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".oci-")
	if err != nil {
		return fmt.Errorf("write an OCI layout: %w", err)
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err == nil {
		err = l.AppendIndex(index, layout.WithAnnotations(map[string]string{refName: tag.TagStr(), containerdName: tag.Name()}))
	}
	if err != nil {
		return fmt.Errorf("write an OCI layout: %w", err)
	}
	return replace(file, func(f *os.File) error { return pack(f, dir) })
}

// parse takes a reference with a registry and a tag. One without would be completed with a registry's name that nobody asked for.
func parse(reference string) (name.Tag, error) {
	tag, err := name.NewTag(reference, name.StrictValidation)
	if err != nil {
		return tag, fmt.Errorf("%q is not the name of an image such as registry.example/selvage:v1: %w", reference, err)
	}
	return tag, nil
}

// pack writes a directory's files, in the order of their paths, as a tar archive without times and owners.
func pack(f *os.File, dir string) error {
	w := tar.NewWriter(f)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { // in lexical order
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return add(w, &tar.Header{Typeflag: tar.TypeDir, Name: rel + "/", Mode: int64(directory)}, nil)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return add(w, &tar.Header{Typeflag: tar.TypeReg, Name: rel, Mode: 0o644, Size: int64(len(data))}, data)
	})
	return errors.Join(err, w.Close())
}

// replace writes a file as a whole: who reads it sees the old one or the new one.
func replace(file string, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".image-")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	err = errors.Join(write(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
