package install

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// olderThan reports whether version a is older than b, as semantic versions order them (semver.org, section 11) and Go
// writes them: v1.2.3, v1.2.4-rc.1, v0.0.0-20260102150405-0123456789ab. Of what is no such version, "(devel)" for
// instance, nothing is older and nothing newer.
func olderThan(a, b string) bool {
	x, okA := parseVersion(a)
	y, okB := parseVersion(b)
	return okA && okB && compareVersions(x, y) < 0
}

type semver struct {
	numbers [3]int
	pre     []string // nil: a release
}

func parseVersion(s string) (v semver, ok bool) {
	s, ok = strings.CutPrefix(s, "v")
	if !ok {
		return v, false
	}
	s, _, _ = strings.Cut(s, "+") // how it was built does not make it newer
	core, pre, isPre := strings.Cut(s, "-")
	parts := strings.Split(core, ".")
	if len(parts) != len(v.numbers) {
		return v, false
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return v, false
		}
		v.numbers[i] = n
	}
	if isPre {
		v.pre = strings.Split(pre, ".")
	}
	return v, true
}

func compareVersions(a, b semver) int {
	if c := slices.Compare(a.numbers[:], b.numbers[:]); c != 0 {
		return c
	}
	if (a.pre == nil) != (b.pre == nil) { // a release is newer than what led to it
		if a.pre == nil {
			return 1
		}
		return -1
	}
	return slices.CompareFunc(a.pre, b.pre, compareIdentifiers)
}

// compareIdentifiers orders numbers by value and before words.
func compareIdentifiers(a, b string) int {
	x, errA := strconv.Atoi(a)
	y, errB := strconv.Atoi(b)
	switch {
	case errA == nil && errB == nil:
		return cmp.Compare(x, y)
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	default:
		return cmp.Compare(a, b)
	}
}
