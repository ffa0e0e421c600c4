package release

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

const (
	homepage    = "https://github.com/selvage-net/selvage"
	summary     = "self-healing VXLAN overlay network for containers"
	license     = "Apache-2.0"
	description = "The daemon selvaged connects the containers of all nodes and keeps the kernel's entries for it in " +
		"sync.\nThe CNI plugin selvage attaches containers."
)

var own = regexp.MustCompile(`^/(etc|usr/lib|usr/share|usr/share/doc)/selvage(/|$)`)

// Spec describes a package, besides its files.
type Spec struct {
	Format      string // of Formats
	Arch        string // as Go has it
	Version     string // semantic version
	Repository  string // root of the source, for the scripts
	Temporary   string // directory for temporary files
	Compression string // of the files in the package, as nfpm has it, such as gzip:0; empty for its default
	Created     time.Time
}

// Build returns the conventional file name of a package, and the package.
func Build(s Spec, content []File) (string, []byte, error) {
	scripts := filepath.Join(s.Repository, "dist/release/scripts")
	info := &nfpm.Info{
		Name: "selvage", Arch: s.Arch, Platform: "linux", Version: s.Version, VersionSchema: "semver", Release: "1",
		Section: "net", Priority: "optional", Maintainer: "The selvage authors <noreply@selvage.invalid>",
		Description: summary + "\n" + description, // Debian's first line is the summary
		Homepage:    homepage, License: license, MTime: s.Created, DisableGlobbing: true,
	}
	// The daemon sets its rules without a program where the kernel has nf_tables.
	info.Suggests = []string{"bash-completion", "iptables"}
	if s.Format == RPM {
		info.Description = description
	}
	info.Deb.Compression, info.RPM.Compression = s.Compression, s.Compression
	info.RPM.Summary = summary
	info.RPM.BuildHost = "reproducible" // the name of the machine by default
	info.Scripts.PostInstall = filepath.Join(scripts, "postinst")
	info.Scripts.PreRemove = filepath.Join(scripts, "prerm")
	info.Scripts.PostRemove = filepath.Join(scripts, "postrm")

	tmp, err := os.MkdirTemp(s.Temporary, s.Format+"-")
	if err != nil {
		return "", nil, fmt.Errorf("package %s: %w", s.Format, err)
	}
	defer os.RemoveAll(tmp)
	add := func(c files.Content, mode fs.FileMode) {
		c.FileInfo = &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: s.Created}
		info.Contents = append(info.Contents, &c)
	}
	for _, dir := range ownDirs(content) {
		add(files.Content{Destination: dir, Type: files.TypeDir}, 0o755)
	}
	for i, f := range content {
		c := files.Content{Source: f.Link, Destination: f.Path, Type: files.TypeSymlink}
		if f.Link != "" {
			add(c, 0o777)
			continue
		}
		c.Source, c.Type = filepath.Join(tmp, fmt.Sprint(i)), files.TypeFile
		if err := os.WriteFile(c.Source, f.Data, 0o600); err != nil {
			return "", nil, fmt.Errorf("package %s: %w", s.Format, err)
		}
		if f.Config {
			c.Type = files.TypeConfigNoReplace
		}
		add(c, f.Mode)
	}
	packager, err := nfpm.Get(s.Format)
	if err != nil {
		return "", nil, err
	}
	info = nfpm.WithDefaults(info)
	name := packager.ConventionalFileName(info)
	info.Arch = s.Arch // the call above may have replaced it by the format's own name
	var out bytes.Buffer
	if err := errors.Join(nfpm.Validate(info), packager.Package(info, &out)); err != nil {
		return "", nil, fmt.Errorf("package %s: %w", name, err)
	}
	return name, out.Bytes(), nil
}

// ownDirs returns the directories that no other package has, the top first. RPM removes only directories that a package
// names.
func ownDirs(content []File) []string {
	var dirs []string
	for _, f := range content {
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			if own.MatchString(dir) && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	slices.Sort(dirs)
	return dirs
}
