package release

import (
	"regexp"
	"strings"
)

var described = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?)(?:-(\d+)-(g[0-9a-f]+))?$`)

// SemVer converts what `git describe --tags --always --dirty` prints into a semantic version. A commit after a tag has
// the tag's version with build metadata, so that packages of it are newer: v1.2.0-4-gabc is 1.2.0+4.gabc. Without a tag
// the version is 0.0.0, with the commit as metadata: older than any release.
func SemVer(describe string) string {
	name, dirty := strings.CutSuffix(describe, "-dirty")
	version, metadata := "0.0.0", []string{name}
	if m := described.FindStringSubmatch(name); m != nil {
		version, metadata = m[1], nil
		if m[2] != "" {
			metadata = []string{m[2], m[3]}
		}
	}
	if dirty {
		metadata = append(metadata, "dirty")
	}
	if len(metadata) == 0 {
		return version
	}
	return version + "+" + strings.Join(metadata, ".")
}
