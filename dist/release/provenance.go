package release

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The in-toto statement with the provenance predicate of SLSA (https://slsa.dev/spec/v1.0/provenance,
// https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md). It is not signed: it says what the files were
// built from, so that anyone can build them again and compare.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     predicate  `json:"predicate"`
}

type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

type predicate struct {
	Definition buildDefinition `json:"buildDefinition"`
	Details    runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	BuildType    string         `json:"buildType"`
	Parameters   map[string]any `json:"externalParameters"`
	Dependencies []resource     `json:"resolvedDependencies"`
}

type runDetails struct {
	Builder struct {
		ID string `json:"id"`
	} `json:"builder"`
}

// Source says what a release is built from.
type Source struct {
	Version string // as git describes the commit
	Commit  string // in hexadecimal
	Epoch   int64  // SOURCE_DATE_EPOCH, in seconds
	Go      string // version of the toolchain, such as go1.26.0
	Archs   []string
}

// Provenance returns the statement of what files, by name, were built from.
func Provenance(files map[string][]byte, s Source) ([]byte, error) {
	st := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: "https://slsa.dev/provenance/v1"}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		st.Subject = append(st.Subject, resource{Name: name, Digest: map[string]string{"sha256": digest(files[name])}})
	}
	st.Predicate.Definition = buildDefinition{
		BuildType: homepage + "/dist/release/v1",
		Parameters: map[string]any{"command": "make release", "version": s.Version, "architectures": s.Archs,
			"sourceDateEpoch": s.Epoch},
		Dependencies: []resource{
			{URI: "git+" + homepage, Digest: map[string]string{"gitCommit": s.Commit}},
			{URI: "pkg:golang/toolchain@" + strings.TrimPrefix(s.Go, "go"), Name: s.Go},
		},
	}
	// Where it was built is left out on purpose: it makes no difference.
	st.Predicate.Details.Builder.ID = homepage + "/dist/release"
	return marshal(st)
}

// Checksums returns the checksums of files as `sha256sum --check` reads them.
func Checksums(files map[string][]byte) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%s  %s\n", digest(files[name]), name)
	}
	return []byte(b.String())
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
