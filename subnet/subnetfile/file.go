// Package subnetfile reads and writes the daemon's two files for programs that attach containers (CNI plugins, Docker
// scripts): the subnet file, in flannel's format, and the status file beside it.
package subnetfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// Limits of FLANNEL_MTU in bytes: what every IPv4 link must carry (RFC 791), and the most an IP packet can hold.
const (
	minMTU = 68
	maxMTU = 65535
)

// File is the content of a node's subnet file. The format is flannel's, a list of shell assignments.
type File struct {
	Networks [2][]netip.Prefix // by Family: the overlay's networks, masked; none in a family that is not in use
	Subnets  [2]netip.Prefix   // by Family: the gateway, see [subnet.Gateway]; invalid in a family that is not in use
	MTU      int               // of the overlay's device, in bytes; 0 if not known
	IPMasq   bool              // the daemon masquerades what leaves the overlay, so no other process should
}

// fileKeys returns a family's keys in the file.
func fileKeys(f subnet.Family) (networkKey, subnetKey string) {
	if f == subnet.IPv4 {
		return "FLANNEL_NETWORK", "FLANNEL_SUBNET"
	}
	return "FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"
}

const (
	keyMTU    = "FLANNEL_MTU"
	keyIPMasq = "FLANNEL_IPMASQ"
)

// Marshal returns the file's content, byte for byte as flannel writes it. An unknown MTU is omitted.
func (f File) Marshal() []byte {
	var b bytes.Buffer
	for _, family := range subnet.Families() {
		if !f.Subnets[family].IsValid() {
			continue
		}
		networks := make([]string, len(f.Networks[family]))
		for i, n := range f.Networks[family] {
			networks[i] = n.String()
		}
		keyNetwork, keySubnet := fileKeys(family)
		fmt.Fprintf(&b, "%s=%s\n%s=%s\n", keyNetwork, strings.Join(networks, ","), keySubnet, f.Subnets[family])
	}
	if f.MTU != 0 {
		fmt.Fprintf(&b, "%s=%d\n", keyMTU, f.MTU)
	}
	fmt.Fprintf(&b, "%s=%t\n", keyIPMasq, f.IPMasq)
	return b.Bytes()
}

// Parse reads a subnet file's content; name is the file's, for errors only. It accepts what a shell accepts and a bit
// more, since people write these files too: comments, blank lines, CRLF, a byte order mark, quotes, "export", spaces
// around "=". The last of several assignments to a key counts; an empty value is the same as a missing key; unknown
// keys are ignored.
//
// At least one family must have a subnet, and each family must have both its network and its subnet or neither.
// FLANNEL_MTU and FLANNEL_IPMASQ may be missing: hand-written files lack them, and each has a safe default
// (the kernel chooses the MTU; the daemon does not masquerade).
//
// The error for a bad line names the file, line, key and value, and says what is valid.
func Parse(data []byte, name string) (File, error) {
	var f File
	text := strings.TrimPrefix(string(data), "\ufeff")
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		if err := f.parseLine(strings.TrimSpace(line)); err != nil {
			return File{}, fmt.Errorf("subnet file %s: line %d: %w", name, n, err)
		}
	}
	if err := f.check(); err != nil {
		return File{}, fmt.Errorf("subnet file %s: %w", name, err)
	}
	return f, nil
}

// parseLine parses one line without white space at its ends.
func (f *File) parseLine(line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return fmt.Errorf("%.80q is not an assignment, want KEY=VALUE", line)
	}
	words := strings.Fields(key)
	if len(words) == 2 && words[0] == "export" {
		words = words[1:]
	}
	if len(words) != 1 {
		return fmt.Errorf("%.80q is not an assignment, want KEY=VALUE", line)
	}
	key = words[0]
	set := f.setter(key)
	if set == nil {
		return nil
	}
	value, err := unquote(strings.TrimSpace(value))
	if err == nil {
		err = set(value)
	}
	if err != nil {
		return fmt.Errorf("%s is %.80q, %w", key, value, err)
	}
	return nil
}

// setter returns a function that sets the value of key, or nil for an unknown key. Its error says which values are
// valid.
func (f *File) setter(key string) func(value string) error {
	for _, family := range subnet.Families() {
		switch keyNetwork, keySubnet := fileKeys(family); key {
		case keyNetwork:
			return func(value string) (err error) {
				f.Networks[family], err = parseNetworks(family, value)
				return err
			}
		case keySubnet:
			return func(value string) (err error) {
				f.Subnets[family], err = parseSubnet(family, value)
				return err
			}
		}
	}
	switch key {
	case keyMTU:
		return func(value string) (err error) {
			f.MTU, err = parseMTU(value)
			return err
		}
	case keyIPMasq:
		return func(value string) (err error) {
			f.IPMasq, err = parseIPMasq(value)
			return err
		}
	}
	return nil
}

// check reports missing keys.
func (f *File) check() error {
	for _, family := range subnet.Families() {
		keyNetwork, keySubnet := fileKeys(family)
		hasNetwork, hasSubnet := len(f.Networks[family]) > 0, f.Subnets[family].IsValid()
		if hasNetwork && !hasSubnet {
			return fmt.Errorf("%s is set and %s is not, want both or neither", keyNetwork, keySubnet)
		}
		if hasSubnet && !hasNetwork {
			return fmt.Errorf("%s is set and %s is not, want both or neither", keySubnet, keyNetwork)
		}
	}
	if !f.Subnets[subnet.IPv4].IsValid() && !f.Subnets[subnet.IPv6].IsValid() {
		_, first := fileKeys(subnet.IPv4)
		_, second := fileKeys(subnet.IPv6)
		return fmt.Errorf("neither %s nor %s is set, want at least one, such as %s=10.5.29.1/24", first, second, first)
	}
	return nil
}

// unquote removes the quotes around a value, and a comment after it.
func unquote(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if quote := value[0]; quote == '"' || quote == '\'' {
		inner, rest, closed := strings.Cut(value[1:], string(quote))
		rest = strings.TrimSpace(rest)
		if !closed || rest != "" && rest[0] != '#' {
			return value, fmt.Errorf("want one value, in a pair of %c or without", quote)
		}
		return strings.TrimSpace(inner), nil
	}
	// As in a shell, "#" starts a comment only after white space, which may also precede the value.
	for i := range value {
		if value[i] == '#' && (i == 0 || value[i-1] == ' ' || value[i-1] == '\t') {
			return strings.TrimSpace(value[:i]), nil
		}
	}
	return value, nil
}

func parseNetworks(f subnet.Family, value string) ([]netip.Prefix, error) {
	if value == "" {
		return nil, nil
	}
	var networks []netip.Prefix
	for part := range strings.SplitSeq(value, ",") {
		p, ok := parsePrefix(f, part)
		if !ok {
			return nil, fmt.Errorf("want one or more %s networks separated by commas, such as %s",
				f, example(f).Masked())
		}
		networks = append(networks, p.Masked())
	}
	return networks, nil
}

func parseSubnet(f subnet.Family, value string) (netip.Prefix, error) {
	if value == "" {
		return netip.Prefix{}, nil
	}
	p, ok := parsePrefix(f, value)
	if !ok {
		return p, fmt.Errorf("want the node's %s address and its subnet's length, such as %s", f, example(f))
	}
	return p, nil
}

func parsePrefix(f subnet.Family, value string) (p netip.Prefix, ok bool) {
	p, err := netip.ParsePrefix(strings.TrimSpace(value))
	if err != nil || subnet.FamilyOf(p.Addr()) != f || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p, true
}

// example returns a gateway to show in errors.
func example(f subnet.Family) netip.Prefix {
	if f == subnet.IPv4 {
		return netip.MustParsePrefix("10.5.29.1/24")
	}
	return netip.MustParsePrefix("fd00:5:0:1d::1/64")
}

func parseMTU(value string) (int, error) {
	if value == "" {
		return 0, nil
	}
	mtu, err := strconv.Atoi(value)
	if err != nil || mtu < minMTU || mtu > maxMTU {
		return 0, fmt.Errorf("want a number of bytes from %d to %d, such as 1450", minMTU, maxMTU)
	}
	return mtu, nil
}

func parseIPMasq(value string) (bool, error) {
	if value == "" {
		return false, nil
	}
	masq, err := strconv.ParseBool(value)
	if err != nil {
		return false, errors.New("want true or false")
	}
	return masq, nil
}

// Read reads the subnet file at path. The error for a missing file matches [fs.ErrNotExist], that for an unreadable
// file is an [fs.PathError]; any other error is [Parse]'s.
func Read(path string) (File, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, fmt.Errorf(
			"read subnet file (selvaged writes it once this node has a lease; is it running?): %w", err)
	}
	if err != nil {
		return File{}, fmt.Errorf("read subnet file: %w", inPlace(err))
	}
	return Parse(data, path)
}

// inPlace says what to do about a directory that is in the place of a file.
func inPlace(err error) error {
	if errors.Is(err, syscall.EISDIR) {
		return fmt.Errorf("%w: remove it, and selvaged writes the file", err)
	}
	return err
}

// Write writes f to path atomically, and creates the directory if needed. A file with the same content is not touched.
// Write refuses content that [Parse] would reject.
func Write(path string, f File) error {
	content := f.Marshal()
	if _, err := Parse(content, path); err != nil {
		return fmt.Errorf("not written: %w", err)
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := replaceFile(path, content); err != nil {
		return fmt.Errorf("write subnet file: %w", err)
	}
	return nil
}

// replaceFile replaces the file at path by rename. Every user can read the file: Docker's scripts need not run as root.
func replaceFile(path string, content []byte) error {
	return wholefile.Replace(path, content, 0o644, 0o755)
}
