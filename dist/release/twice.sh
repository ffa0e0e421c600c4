#!/bin/sh
# twice.sh builds a release from two copies of the source, in directories with names of different length, and compares
# all files. make test-release sets its variables. The copies are no git repositories, and the go command may download
# nothing. With COLD=1 each build has a build cache of its own; otherwise the second finds what the first compiled, and
# the difference that is looked for is that of the directories.
set -eu
export GOPROXY=off GOFLAGS=-mod=readonly

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
for dir in "$tmp/a" "$tmp/another/directory"; do
	mkdir -p "$dir"
	# A file that was deleted but is still in the index is none of the source.
	git ls-files -co --exclude-standard | while read -r file; do [ ! -e "$file" ] || echo "$file"; done |
		tar -cf - -T - | tar -xf - -C "$dir"
	[ -z "${COLD-}" ] || export GOCACHE="$dir.cache"
	umask "$([ "$dir" = "$tmp/a" ] && echo 022 || echo 077)"
	$MAKE --no-print-directory -C "$dir" release VERSION="$VERSION" COMMIT="$COMMIT" \
		SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" RELEASE_ARCH="$RELEASE_ARCH" RELEASE_OUT="$dir.release" \
		>"$dir.log" 2>&1 || {
		cat "$dir.log" >&2
		exit 1
	}
	(cd "$dir.release" && sha256sum --check --quiet SHA256SUMS)
done
diff -r "$tmp/a.release" "$tmp/another/directory.release"
echo "two builds have the same $(find "$tmp/a.release" -type f | wc -l) files:"
cat "$tmp/a.release/SHA256SUMS"
