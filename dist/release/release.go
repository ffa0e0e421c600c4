package release

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// Options say what a release is made from.
type Options struct {
	Repository string   // root of the source
	Build      string   // directory with the binaries below each architecture, and image/selvage.oci.tar
	Version    string   // as git describes the commit
	Commit     string   // in hexadecimal
	Archs      []string // as Go has them; that of this machine must be among them
	Created    time.Time
}

// Make returns the files of a release by name.
func Make(o Options) (map[string][]byte, error) {
	if !slices.Contains(o.Archs, runtime.GOARCH) {
		return nil, fmt.Errorf("%q lacks the architecture of this machine, %s, whose selvaged prints the man pages",
			o.Archs, runtime.GOARCH)
	}
	version := SemVer(o.Version)
	native := filepath.Join(o.Build, runtime.GOARCH, "selvaged")
	generated, err := Generate(native, o.Version, o.Created)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, arch := range o.Archs {
		in := Input{Repository: o.Repository, Binaries: filepath.Join(o.Build, arch), Generated: generated}
		if err := forArch(files, o, arch, version, in); err != nil {
			return nil, err
		}
	}
	chart, err := Chart(o.Repository, version, o.Version)
	if err != nil {
		return nil, err
	}
	if files["selvage-chart-"+version+".tgz"], err = Archive(chart, o.Created); err != nil {
		return nil, err
	}
	for _, name := range []string{"selvage.yaml", "selvage-etcd.yaml"} {
		if files[name], err = Manifest(filepath.Join(o.Repository, "dist/kubernetes", name), o.Version); err != nil {
			return nil, err
		}
	}
	image := filepath.Join(o.Build, "image/selvage.oci.tar")
	if files["selvage-"+version+".oci.tar"], err = os.ReadFile(image); err != nil {
		return nil, fmt.Errorf("the image: %w", err)
	}
	info, err := buildinfo.ReadFile(native)
	if err != nil {
		return nil, err
	}
	files["provenance.json"], err = Provenance(files, Source{
		Version: o.Version, Commit: o.Commit, Epoch: o.Created.Unix(), Go: info.GoVersion, Archs: o.Archs,
	})
	if err != nil {
		return nil, err
	}
	files["SHA256SUMS"] = Checksums(files)
	return files, nil
}

// forArch adds the files of one architecture.
func forArch(files map[string][]byte, o Options, arch, version string, in Input) error {
	for _, format := range Formats() {
		content, err := Package(format, in)
		if err != nil {
			return err
		}
		name, data, err := Build(Spec{
			Format: format, Arch: arch, Version: version, Repository: o.Repository, Temporary: o.Build,
			Created: o.Created,
		}, content)
		if err != nil {
			return err
		}
		files[name] = data
	}
	name := fmt.Sprintf("selvage-%s-linux-%s", version, arch)
	content, err := Tarball(name, in)
	if err != nil {
		return err
	}
	if files[name+".tar.gz"], err = Archive(content, o.Created); err != nil {
		return err
	}
	files[name+".spdx.json"], err = SBOM(name, o.Version, in.Binaries, o.Created)
	return err
}

// Write replaces a directory by one with these files.
func Write(dir string, files map[string][]byte) error {
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
	for name, data := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	if err != nil {
		return fmt.Errorf("write the release: %w", err)
	}
	return nil
}
