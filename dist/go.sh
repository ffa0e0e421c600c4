#!/bin/sh
# go.sh ARGUMENT… runs the go command, and leaves nothing of it in /tmp: interrupted at the wrong moment, it would itself.
set -eu

tmp=$(mktemp -d)
trap 'rm -rf "$tmp" || rm -rf "$tmp"' EXIT # a compiler that is just ending may still write
trap 'exit 130' INT TERM HUP
GOTMPDIR=$tmp "${GO:-go}" "$@"
