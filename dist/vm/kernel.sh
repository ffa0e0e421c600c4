#!/bin/sh
# kernel.sh PACKAGE DIR unpacks the Debian kernel that the metapackage PACKAGE depends on into DIR. Nothing is installed.
set -eu

dir=$2
image=$(apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
if [ -z "$image" ]; then
	echo "apt does not know the package $1. On Debian, as root: apt-get update. On other systems, unpack Debian's" \
		"linux-image-*-cloud-amd64, with boot/vmlinuz-* and lib/modules, into $dir." >&2
	exit 1
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp" # apt downloads as a user of its own
(cd "$tmp" && apt-get download -qq "$image" 2>"$tmp/apt.log") || { cat "$tmp/apt.log" >&2; exit 1; }
rm -rf "$dir.tmp"
dpkg-deb -x "$tmp"/*.deb "$dir.tmp"
rm -rf "$dir"
mv "$dir.tmp" "$dir"
