#!/bin/sh
# bpf.sh build compiles the eBPF programs of network/fastpath; bpf.sh check checks that what is committed was compiled
# from the sources that are there: by their hash, and by compiling them again where the same version of clang is.
set -eu
cd "$(dirname "$0")/../network/fastpath"

record=bpf/built.txt # what the programs were compiled from, and by what
compiler() { clang --version | head -n 1; }
sources() { cat bpf/fastpath.c bpf/kernel.h ../../dist/bpf.sh | sha256sum | cut -d ' ' -f 1; }
generate() {
	GOPACKAGE=fastpath ${GO:-go} run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -type reason -type tuple -type way \
		programs bpf/fastpath.c -- -mcpu=v3 -Wall -Werror
}
strip_found() { command -v clang >/dev/null && command -v llvm-strip >/dev/null; }

case ${1:-} in
build)
	strip_found || { echo 'bpf.sh: clang and llvm-strip are needed: as root, apt-get install clang llvm' >&2; exit 1; }
	generate
	printf '%s\n%s\n' "$(sources)" "$(compiler)" >$record
	;;
check)
	if [ "$(sources)" != "$(head -n 1 $record)" ]; then
		echo 'network/fastpath: the eBPF programs were compiled from other sources: run make bpf' >&2
		exit 1
	fi
	if ! strip_found || [ "$(compiler)" != "$(tail -n 1 $record)" ]; then
		echo "network/fastpath: the eBPF programs are checked by the hash of their sources only: not compiled again," \
			"for want of $(tail -n 1 $record)"
		exit 0
	fi
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	cp programs_bpfel.o programs_bpfel.go "$tmp"
	generate
	for file in programs_bpfel.o programs_bpfel.go; do
		cmp -s $file "$tmp/$file" || differs=yes
		cp "$tmp/$file" $file # a check changes nothing
	done
	if [ -n "${differs:-}" ]; then
		echo 'network/fastpath: the committed eBPF programs are not what their sources compile to: run make bpf' >&2
		exit 1
	fi
	;;
*)
	echo 'usage: bpf.sh build | check' >&2
	exit 2
	;;
esac
