package subnet

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// Keys and values come from outside, and a node keeps something of each of them. These are the limits, in bytes. What
// [ParseLease] accepts, [Lease.Value] can write.
const (
	maxName        = 253  // of a record: a DNS name, which a Kubernetes Node has (RFC 1123); a key has less
	maxKey         = 128  // a real one has at most 62
	maxValue       = 4096 // a real one is under 400
	maxData        = 512  // of a family's backend data, compact; vxlan's has 45
	maxBackendType = 64
	maxInstanceID  = 64
	maxNodeName    = 253 // a DNS name, which is what Kubernetes takes (RFC 1123)
	maxMeshKey     = 64  // a real one has 44
)

// Error texts about bad input are bounded as well, since they are kept and logged.
const (
	maxQuoted = 64  // bytes of the input
	maxReason = 512 // bytes of what a backend says
	// maxStrays is how many records without a subnet a [View] keeps. It only counts the rest: whatever the rules are,
	// none of them is a lease before it changes.
	maxStrays = 4096
)

// quote returns s in quotes, in printable ASCII, and cut if it is long.
func quote(s string) string {
	q := strconv.QuoteToASCII(s[:min(len(s), maxQuoted)])
	if len(s) <= maxQuoted && len(q) <= maxQuoted+2 {
		return q
	}
	return fmt.Sprintf(`%s..." (%d bytes)`, q[:min(len(q)-1, 1+maxQuoted)], len(s))
}

// Quote returns a text from outside as it can be shown in an error: in quotes, in printable ASCII, and cut if it is
// long.
func Quote(s string) string { return quote(s) }

// checkText says why text cannot be a field of at most limit bytes that people are shown, or nil.
func checkText(field, text string, limit int) error {
	if len(text) > limit {
		return fmt.Errorf("%s of %d bytes, want at most %d", field, len(text), limit)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%s is %s, want printable characters only", field, quote(text))
	}
	return nil
}

// CheckNodeName says why a node cannot have that name in its lease, or nil. A name is for people only; empty is none.
func CheckNodeName(name string) error { return checkText("the name", name, maxNodeName) }

// check says why l is malformed, or nil. It may be of any origin: a [View] checks every lease that it gets.
func (l *Lease) check() error {
	for _, f := range Families() {
		e := &l.Endpoints[f]
		if e.Subnet == (netip.Prefix{}) {
			continue
		}
		if err := checkSubnet(f, e.Subnet); err != nil {
			return err
		}
		if err := checkPublicIP(f, e.PublicIP); err != nil {
			return err
		}
	}
	return l.checkTexts()
}

// checkSubnet says why p cannot be a lease's subnet in f, or nil.
func checkSubnet(f Family, p netip.Prefix) error {
	switch {
	case !p.IsValid() || FamilyOf(p.Addr()) != f || p.Addr().Is4In6():
		return fmt.Errorf("subnet %s is not an %s prefix", p, f)
	case p != p.Masked():
		return fmt.Errorf("subnet %s has host bits set, want %s", p, p.Masked())
	}
	return nil
}

// checkPublicIP says why a cannot be a lease's public IP in f, or nil.
func checkPublicIP(f Family, a netip.Addr) error {
	if !a.IsValid() || FamilyOf(a) != f || a.Is4In6() || a.Zone() != "" {
		return fmt.Errorf("public IP %s is not an %s address", a, f)
	}
	return nil
}

// checkTexts checks the fields of a lease that are free text.
func (l *Lease) checkTexts() error {
	if err := checkText("BackendType", l.BackendType, maxBackendType); err != nil {
		return err
	}
	if err := checkText("InstanceID", l.InstanceID, maxInstanceID); err != nil {
		return err
	}
	if err := checkText("NodeName", l.NodeName, maxNodeName); err != nil {
		return err
	}
	if err := checkText("MeshKey", l.MeshKey, maxMeshKey); err != nil {
		return err
	}
	for _, f := range Families() {
		if n := len(l.Endpoints[f].Data); n > maxData {
			return fmt.Errorf("%s of %d bytes, want at most %d", dataField(f), n, maxData)
		}
	}
	return nil
}

// dataField is how a lease's value names a family's backend data.
func dataField(f Family) string {
	if f == IPv4 {
		return "BackendData"
	}
	return "BackendV6Data"
}

// short returns err, or what it begins with if it says much.
func short(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if len(text) <= maxReason {
		return err
	}
	return fmt.Errorf("%s... (%d bytes)", strings.ToValidUTF8(text[:maxReason], ""), len(text))
}

// ShortName returns the name under which a record is kept: its own, unless that is longer than any lease's. Two long
// names, or a long one and a short one, can be made to come out alike; neither is a lease's, so nothing depends on it.
func ShortName(name string) string {
	if len(name) <= maxName {
		return name
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return fmt.Sprintf("%s %016x", quote(name), h.Sum64())
}
