package kube

import (
	"fmt"
	"strings"
)

// DefaultPrefix is what the names of flannel's annotations begin with, unless --kube-annotation-prefix says otherwise.
const DefaultPrefix = "flannel.alpha.coreos.com/"

// ParsePrefix returns what the names of the annotations begin with for a value of --kube-annotation-prefix, as flannel
// makes it: "example.org" gives "example.org/", and "example.org/blue" gives "example.org/blue-". An empty one gives
// [DefaultPrefix]. The error says what is wrong with the value.
func ParsePrefix(value string) (string, error) {
	if value == "" {
		return DefaultPrefix, nil
	}
	domain, _, slash := strings.Cut(value, "/")
	bad := func(want string) (string, error) {
		return "", fmt.Errorf("annotation prefix %q: want %s, such as example.org or example.org/blue", value, want)
	}
	switch {
	case strings.Count(value, "/") > 1:
		return bad("at most one /")
	case !strings.Contains(domain, "."):
		return bad("a domain with a dot")
	case !plain(value):
		return bad("lower-case letters, digits, _, - and . only")
	case len(domain) > maxDomain:
		return bad(fmt.Sprintf("a domain of at most %d characters", maxDomain))
	}
	prefix := value
	if !slash {
		prefix += "/"
	}
	if !strings.HasSuffix(prefix, "/") && !strings.HasSuffix(prefix, "-") {
		prefix += "-"
	}
	if len(prefix)-len(domain)-1+len("public-ipv6-overwrite") > maxAnnotationName {
		return bad("less after the /")
	}
	return prefix, nil
}

// Limits of an annotation's name (k8s.io/apimachinery, IsQualifiedName).
const (
	maxDomain         = 253
	maxAnnotationName = 63 // after the slash
)

// plain reports whether text has nothing but what a prefix may have.
func plain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./", r))
	})
}
