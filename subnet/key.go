package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Key returns the lease's key below <prefix>/subnets/: "10.5.29.0-24", "10.5.29.0-24&fd00:5:0:1d::-64" or
// "fd00:5:0:1d::-64".
func (l Lease) Key() string {
	return FormatKey(l.Endpoints[IPv4].Subnet, l.Endpoints[IPv6].Subnet)
}

// FormatKey returns the key of subnets; an invalid prefix stands for a family that is not in use.
func FormatKey(subnets ...netip.Prefix) string {
	var b [maxKey]byte
	return string(appendKey(b[:0], subnets))
}

func appendKey(b []byte, subnets []netip.Prefix) []byte {
	for _, p := range subnets {
		if !p.IsValid() {
			continue
		}
		if len(b) > 0 {
			b = append(b, '&')
		}
		b = p.Addr().AppendTo(b)
		b = append(b, '-')
		b = strconv.AppendInt(b, int64(p.Bits()), 10)
	}
	return b
}

// parseKey is the inverse of [FormatKey]. It accepts the canonical form only: any other spelling of a subnet would be a
// second key for it.
func parseKey(key string) ([2]netip.Prefix, error) {
	if len(key) > maxKey {
		return [2]netip.Prefix{}, fmt.Errorf(
			"key of %d bytes: want ADDRESS-LENGTH, at most one IPv4 and one IPv6, separated by &", len(key))
	}
	subnets, err := parseParts(key)
	if err != nil {
		return [2]netip.Prefix{}, fmt.Errorf("key %s: %w", quote(key), err)
	}
	return subnets, nil
}

func parseParts(key string) (subnets [2]netip.Prefix, err error) {
	first, second, two := strings.Cut(key, "&")
	parts := [2]string{first, second}
	if n := 1 + strings.Count(key, "&"); n > len(parts) {
		return subnets, fmt.Errorf("has %d parts, want one or two", n)
	}
	for i, part := range parts {
		if i == 1 && !two {
			break
		}
		addr, length, ok := strings.Cut(part, "-")
		a, err := netip.ParseAddr(addr)
		if !ok || err != nil {
			return subnets, fmt.Errorf("%s is not ADDRESS-LENGTH, such as 10.5.29.0-24", quote(part))
		}
		bits, err := strconv.Atoi(length)
		if err != nil || a.Zone() != "" || a.Is4In6() || !netip.PrefixFrom(a, bits).IsValid() {
			return subnets, fmt.Errorf("%s is not an IP prefix", quote(part))
		}
		f := FamilyOf(a)
		if i == 1 && f == IPv4 || subnets[f].IsValid() {
			return subnets, errors.New("want the IPv4 subnet first, then the IPv6 one")
		}
		subnets[f] = netip.PrefixFrom(a, bits)
		if subnets[f] != subnets[f].Masked() {
			return subnets, fmt.Errorf("%s has host bits set, want %s", subnets[f], subnets[f].Masked())
		}
	}
	var b [maxKey]byte
	if canonical := appendKey(b[:0], subnets[:]); string(canonical) != key {
		return subnets, fmt.Errorf("not in canonical form, want %q", canonical)
	}
	return subnets, nil
}
