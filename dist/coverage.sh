#!/bin/sh
# coverage.sh PERCENT PACKAGE… reads the output of `go test -cover` and fails if one of the packages is covered less, or
# is not there at all.
set -eu

percent=$1
shift
awk -v percent="$percent" -v packages="$*" '
	BEGIN { module = "github.com/selvage-net/selvage/"; n = split(packages, want, " ") }
	$1 == "ok" {
		for (i = 1; i < NF; i++) if ($i == "coverage:") covered[$2] = $(i + 1) + 0
	}
	END {
		for (i = 1; i <= n; i++) {
			p = module want[i]
			if (!(p in covered)) { print "coverage of " want[i] ": not measured, its tests did not pass"; bad = 1 }
			else if (covered[p] < percent) { print "coverage of " want[i] ": " covered[p] " %, want " percent " %"; bad = 1 }
		}
		exit bad
	}'
