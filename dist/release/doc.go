// Package release makes the files of a release from binaries: Debian and RPM packages, tarballs, the chart's archive,
// SBOMs, a provenance statement and checksums. The same commit, version and Go toolchain make the same bytes, in any
// directory: every time is SOURCE_DATE_EPOCH, every owner is root, and lists are sorted.
//
// `make release` builds the binaries and the image (dist/image) and runs cmd/release; `make test-release` does it twice
// and compares. What a package installs is one list, in content.go; what it does at its installation, upgrade and
// removal is in scripts, for dpkg and rpm alike.
//
// It is a separate module, since nfpm, the library that writes packages, has many dependencies.
package release
