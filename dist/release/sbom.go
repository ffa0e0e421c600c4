package release

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// The parts of SPDX 2.3 that an SBOM of Go programs needs (https://spdx.github.io/spdx-spec/v2.3).
type spdxDocument struct {
	Version       string             `json:"spdxVersion"`
	License       string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID           string         `json:"SPDXID"`
	Name         string         `json:"name"`
	Version      string         `json:"versionInfo"`
	File         string         `json:"packageFileName,omitempty"`
	Location     string         `json:"downloadLocation"`
	Analyzed     bool           `json:"filesAnalyzed"`
	Concluded    string         `json:"licenseConcluded"`
	Declared     string         `json:"licenseDeclared"`
	Copyright    string         `json:"copyrightText"`
	Purpose      string         `json:"primaryPackagePurpose"`
	Checksums    []spdxChecksum `json:"checksums,omitempty"`
	ExternalRefs []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	unasserted = "NOASSERTION"
	ownModule  = "github.com/selvage-net/selvage"
)

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// SBOM returns an SPDX document of the programs in a directory: which modules each is built from, as the go command
// recorded it in the program. version is that of the programs of this repository.
func SBOM(name, version, dir string, at time.Time) ([]byte, error) {
	doc := spdxDocument{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Creation: spdxCreation{at.UTC().Format(time.RFC3339), []string{"Tool: selvage dist/release"}},
	}
	modules := map[string]spdxPackage{}
	programs := []string{"selvaged", "selvage"}
	for _, plugin := range ReferencePlugins() {
		programs = append(programs, "cni/"+plugin)
	}
	sums := sha256.New()
	for _, program := range programs {
		data, err := os.ReadFile(filepath.Join(dir, program))
		if err != nil {
			return nil, fmt.Errorf("SBOM: %w", err)
		}
		info, err := buildinfo.ReadFile(filepath.Join(dir, program))
		if err != nil {
			return nil, fmt.Errorf("SBOM: %w", err)
		}
		sum := sha256.Sum256(data)
		sums.Write(sum[:])
		p := module(info.Path, info.Main.Version)
		p.ExternalRefs = nil
		ours := info.Main.Path == ownModule
		if ours { // the go command's version depends on where it finds git
			p.Version, p.Declared = version, license
		}
		p.ID, p.File, p.Purpose = id("Program", program, ""), program, "APPLICATION"
		p.Checksums = []spdxChecksum{{"SHA256", hex.EncodeToString(sum[:])}}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, spdxRelationship{doc.ID, "DESCRIBES", p.ID})
		deps := slices.Clone(info.Deps)
		if !ours {
			deps = append(deps, &info.Main)
		}
		deps = append(deps, &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")})
		for _, m := range deps {
			if m.Replace != nil {
				m = m.Replace
			}
			dep := module(m.Path, m.Version)
			modules[dep.ID] = dep
			doc.Relationships = append(doc.Relationships, spdxRelationship{p.ID, "DEPENDS_ON", dep.ID})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(modules)) {
		doc.Packages = append(doc.Packages, modules[key])
	}
	doc.Namespace = fmt.Sprintf("%s/spdx/%s-%s", homepage, url.PathEscape(name), hex.EncodeToString(sums.Sum(nil))[:16])
	return marshal(doc)
}

func id(kind, name, version string) string {
	return strings.TrimRight("SPDXRef-"+kind+"-"+notInID.ReplaceAllString(name+"-"+version, "-"), "-")
}

// module describes a Go module. Its purl is that of the type golang; stdlib is what scanners call the standard library.
func module(path, version string) spdxPackage {
	return spdxPackage{
		ID: id("Module", path, version), Name: path, Version: version, Location: unasserted, Concluded: unasserted,
		Declared: unasserted, Copyright: unasserted, Purpose: "LIBRARY",
		ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + url.QueryEscape(version)}},
	}
}

func marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return append(data, '\n'), nil
}
