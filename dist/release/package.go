package release

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

const (
	homepage = "https://github.com/selvage-net/selvage"
	summary  = "self-healing VXLAN overlay network for containers"
)

// Build writes a package and returns its conventional file name. dir is a directory for temporary files.
func Build(format, arch, version, repository, dir string, content []File, at time.Time) (string, []byte, error) {
	scripts := filepath.Join(repository, "dist/release/scripts")
	info := &nfpm.Info{
		Name: "selvage", Arch: arch, Platform: "linux", Version: version, VersionSchema: "semver", Release: "1",
		Section: "net", Priority: "optional", Maintainer: "The selvage authors <noreply@selvage.invalid>",
		Description: summary + "\nThe daemon selvaged connects the containers of all nodes and keeps the kernel's " +
			"entries for it in sync.\nThe CNI plugin selvage attaches containers.",
		Homepage: homepage, License: "Apache-2.0", MTime: at, DisableGlobbing: true,
	}
	// The scripts use ip, and the daemon sets its rules without a program where the kernel has nf_tables.
	info.Recommends, info.Suggests = []string{"iproute2"}, []string{"bash-completion", "iptables"}
	if format == RPM {
		info.Recommends = []string{"iproute"}
	}
	info.RPM.Summary = summary
	info.RPM.BuildHost = "reproducible" // the name of the machine by default
	info.Scripts.PostInstall = filepath.Join(scripts, "postinst")
	info.Scripts.PreRemove = filepath.Join(scripts, "prerm")
	info.Scripts.PostRemove = filepath.Join(scripts, "postrm")

	tmp, err := os.MkdirTemp(dir, format+"-")
	if err != nil {
		return "", nil, fmt.Errorf("package %s: %w", format, err)
	}
	defer os.RemoveAll(tmp)
	for i, f := range content {
		c := &files.Content{Source: f.Link, Destination: f.Path, Type: files.TypeSymlink,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", MTime: at}}
		if f.Link == "" {
			c.Source, c.Type, c.FileInfo.Mode = filepath.Join(tmp, fmt.Sprint(i)), files.TypeFile, f.Mode
			if err := os.WriteFile(c.Source, f.Data, 0o600); err != nil {
				return "", nil, fmt.Errorf("package %s: %w", format, err)
			}
		}
		if f.Config {
			c.Type = files.TypeConfigNoReplace
		}
		info.Contents = append(info.Contents, c)
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", nil, err
	}
	info = nfpm.WithDefaults(info)
	name := packager.ConventionalFileName(info)
	info.Arch = arch // the call above may have replaced it by the format's own name
	var out bytes.Buffer
	if err := errors.Join(nfpm.Validate(info), packager.Package(info, &out)); err != nil {
		return "", nil, fmt.Errorf("package %s: %w", name, err)
	}
	return name, out.Bytes(), nil
}
