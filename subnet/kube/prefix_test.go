package kube

import (
	"strings"
	"testing"
)

func TestParsePrefix(t *testing.T) {
	for value, want := range map[string]string{
		"":                          "flannel.alpha.coreos.com/",
		"flannel.alpha.coreos.com":  "flannel.alpha.coreos.com/",
		"flannel.alpha.coreos.com/": "flannel.alpha.coreos.com/",
		"example.org":               "example.org/",
		"example.org/blue":          "example.org/blue-",
		"example.org/blue-":         "example.org/blue-",
		"a_b.c-d.0/x":               "a_b.c-d.0/x-",
	} {
		if got, err := ParsePrefix(value); got != want || err != nil {
			t.Errorf("%q gives %q, %v; want %q", value, got, err, want)
		}
	}
	for value, want := range map[string]string{
		"a/b/c":                       "at most one /",
		"example.org//":               "at most one /",
		"localhost":                   "with a dot",
		"localhost/x.y":               "with a dot",
		"/":                           "with a dot",
		"Example.org":                 "lower-case",
		"example.org/a b":             "lower-case",
		"exämple.org":                 "lower-case",
		"example.org/" + longText(43): "less after",
		longText(250) + ".org":        "at most 253",
	} {
		if got, err := ParsePrefix(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %q, %v; want %q", value, got, err, want)
		}
	}
}

func longText(n int) string { return strings.Repeat("x", n) }
