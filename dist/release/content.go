package release

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// File is a file of a package or an archive, or a symbolic link.
type File struct {
	Path   string      // absolute in a package, relative in an archive
	Mode   fs.FileMode // permissions
	Data   []byte
	Link   string // target of a symbolic link; then there are no data
	Config bool   // kept at an upgrade if it was edited
}

// Input is what the files of one architecture are made from.
type Input struct {
	Repository string          // root of the source
	Binaries   string          // directory of selvaged, selvage and cni/
	Generated  map[string]File // man pages and completions, by file name: see Generate
}

// Where a package installs the programs. selvaged finds the plugins from its own directory: selvage beside itself, the
// reference plugins in ../libexec/cni. A directory of its own keeps them apart from those of other packages, which own
// files in /usr/libexec/cni.
const (
	libDir     = "/usr/lib/selvage"
	daemonPath = "/usr/bin/selvaged"
	// kubectlPath is what makes the program a plugin of kubectl.
	kubectlPath = "/usr/bin/kubectl-selvage"
	pluginPath  = "/opt/cni/bin/selvage" // where install-cni and the runtimes have it
	shareDir    = "/usr/share/selvage"
	docDir      = "/usr/share/doc/selvage"
	configPath  = "/etc/selvage/selvaged.env"
)

// Formats of packages, as nfpm has them.
const (
	Deb = "deb"
	RPM = "rpm"
)

// Formats returns the formats of packages.
func Formats() []string { return []string{Deb, RPM} }

// ReferencePlugins are the reference plugins that a pod needs, in the directory cni beside the other binaries.
func ReferencePlugins() []string { return []string{"bridge", "host-local", "loopback", "portmap"} }

// optional are the files for nodes with other software, which only their operator can choose: below dist, and where
// packages have them below shareDir.
func optional() []string {
	return []string{
		"systemd/docker.service.d/selvage.conf", "systemd/containerd.service.d/selvage.conf",
		"systemd/selvaged.service.d/fast-path.conf", "systemd/selvaged.service.d/wireguard-userspace.conf",
		"systemd/selvage-podman.tmpfiles",
		"host/NetworkManager/selvage.conf",
		"host/firewalld/selvage.service.xml", "host/firewalld/selvage.zone.xml",
		"host/systemd-networkd/10-selvage.link", "host/systemd-networkd/10-selvage.network",
		"host/systemd-networkd/10-selvage-networkd.conf",
	}
}

// reader reads files and remembers the first error.
type reader struct{ err error }

func (r *reader) file(target string, mode fs.FileMode, source string) File {
	data, err := os.ReadFile(source)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", target, err)
	}
	return File{Path: target, Mode: mode, Data: data}
}

// Package returns the files of a package, in the order of their paths.
func Package(format string, in Input) ([]File, error) {
	var r reader
	source := func(name string) string { return filepath.Join(in.Repository, name) }
	files := []File{
		{Path: daemonPath, Link: "../lib/selvage/bin/selvaged"},
		{Path: kubectlPath, Link: "../lib/selvage/bin/selvaged"},
		{Path: libDir + "/bin/selvage", Link: pluginPath},
		r.file(libDir+"/bin/selvaged", 0o755, filepath.Join(in.Binaries, "selvaged")),
		r.file(pluginPath, 0o755, filepath.Join(in.Binaries, "selvage")),
		r.file(docDir+"/copyright", 0o644, source("LICENSE")),
		r.file(docDir+"/CHANGELOG.md", 0o644, source("CHANGELOG.md")),
		r.file("/usr/lib/tmpfiles.d/selvage.conf", 0o644, source("dist/systemd/selvage.tmpfiles")),
	}
	for _, name := range ReferencePlugins() {
		files = append(files, r.file(libDir+"/libexec/cni/"+name, 0o755, filepath.Join(in.Binaries, "cni", name)))
	}
	for _, name := range optional() {
		files = append(files, r.file(path.Join(shareDir, name), 0o644, source("dist/"+name)))
	}
	env := r.file(configPath, 0o600, source("dist/systemd/selvaged.env"))
	env.Config = true
	unit := r.file("/usr/lib/systemd/system/selvaged.service", 0o644, source("dist/systemd/selvaged.service"))
	if r.err != nil {
		return nil, r.err
	}
	var err error
	if unit.Data, err = packagedUnit(unit.Data); err != nil {
		return nil, err
	}
	tmpfiles := &files[slices.IndexFunc(files, func(f File) bool { return strings.Contains(f.Path, "tmpfiles.d") })]
	if tmpfiles.Data, err = replaceOnce(tmpfiles.Data, "# /etc/tmpfiles.d/", "# /usr/lib/tmpfiles.d/"); err != nil {
		return nil, err
	}
	files = append(files, env, unit)
	zsh := "/usr/share/zsh/vendor-completions/"
	if format == RPM {
		zsh = "/usr/share/zsh/site-functions/"
	}
	for name, f := range in.Generated {
		switch {
		case strings.HasSuffix(name, ".8"):
			f.Path, f.Data = "/usr/share/man/man8/"+name+".gz", compress(f.Data)
		case strings.HasSuffix(name, ".bash"):
			f.Path = "/usr/share/bash-completion/completions/selvaged"
		case strings.HasSuffix(name, ".fish"):
			f.Path = "/usr/share/fish/vendor_completions.d/selvaged.fish"
		case name == "_selvaged":
			f.Path = zsh + name
		default:
			return nil, fmt.Errorf("no place in a package for the generated file %s", name)
		}
		files = append(files, f)
	}
	sortFiles(files)
	return files, nil
}

// Tarball returns the files of a tarball, below a directory. Unpacked, bin/selvaged finds the plugins.
func Tarball(dir string, in Input) ([]File, error) {
	var r reader
	add := func(target string, mode fs.FileMode, source string) File {
		return r.file(path.Join(dir, target), mode, source)
	}
	files := []File{
		add("bin/selvaged", 0o755, filepath.Join(in.Binaries, "selvaged")),
		add("bin/selvage", 0o755, filepath.Join(in.Binaries, "selvage")),
		{Path: path.Join(dir, "bin/kubectl-selvage"), Link: "selvaged"},
	}
	for _, name := range ReferencePlugins() {
		files = append(files, add("libexec/cni/"+name, 0o755, filepath.Join(in.Binaries, "cni", name)))
	}
	for _, name := range []string{"LICENSE", "CHANGELOG.md", "README.md"} {
		files = append(files, add(name, 0o644, filepath.Join(in.Repository, name)))
	}
	units := []string{"systemd/selvaged.service", "systemd/selvage.tmpfiles", "systemd/selvaged.env"}
	for _, name := range slices.Concat(units, optional()) {
		files = append(files, add(name, 0o644, filepath.Join(in.Repository, "dist", name)))
	}
	for name, f := range in.Generated {
		f.Path = path.Join(dir, "completion", name)
		if strings.HasSuffix(name, ".8") {
			f.Path = path.Join(dir, "man", name)
		}
		files = append(files, f)
	}
	sortFiles(files)
	return files, r.err
}

func sortFiles(files []File) {
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
}

// packagedUnit returns the daemon's unit with the paths of a package.
func packagedUnit(unit []byte) ([]byte, error) {
	unit, err := replaceOnce(unit, "# /etc/systemd/system/", "# /usr/lib/systemd/system/")
	if err != nil {
		return nil, err
	}
	return replaceOnce(unit, "ExecStart=/usr/local/bin/selvaged\n", "ExecStart="+daemonPath+"\n")
}

// replaceOnce replaces a text that must be there exactly once.
func replaceOnce(data []byte, old, with string) ([]byte, error) {
	if n := bytes.Count(data, []byte(old)); n != 1 {
		return nil, fmt.Errorf("want %q once, and it is there %d times", old, n)
	}
	return bytes.Replace(data, []byte(old), []byte(with), 1), nil
}

// compress compresses without a name and a time.
func compress(data []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // a valid level
	_, _ = w.Write(data)                                    // to memory
	_ = w.Close()
	return out.Bytes()
}

// developed is the version in the manifests of the repository.
const developed = "devel"

// Manifest returns a manifest of the repository with a version in place of the developers'.
func Manifest(path, version string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	tag := strings.ReplaceAll(version, "+", "-") // as make release names the image
	set := strings.NewReplacer("localhost/selvage:"+developed, "localhost/selvage:"+tag,
		`version: "`+developed+`"`, `version: "`+tag+`"`).Replace(string(text))
	if strings.Contains(set, developed) || !strings.Contains(set, "localhost/selvage:"+tag) {
		return nil, fmt.Errorf("%s: the version %s is in places that a release does not know", path, developed)
	}
	return []byte(set), nil
}
