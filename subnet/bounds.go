package subnet

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"unicode"
)

// Keys and values come from outside, and a node keeps something of each of them. These are the most that is taken, in
// bytes. What [ParseLease] takes, [Lease.Value] can write.
const (
	maxKey         = 128  // a real one has at most 62
	maxValue       = 4096 // a real one is under 400
	maxData        = 512  // of a family's backend data, compact; vxlan's has 45
	maxBackendType = 64
	maxInstanceID  = 64
	maxNodeName    = 253 // a DNS name, which is what Kubernetes takes (RFC 1123)
)

// What is said of bad input is bounded as well, since it is kept and logged.
const (
	maxQuoted = 64  // bytes of the input
	maxReason = 512 // bytes of what a backend says
	// maxStrays is how many keys that are no lease's a [View] remembers. It only counts the rest: none of them can ever
	// become a lease, whatever the rules are.
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

// checkText says why text cannot be a field of at most limit bytes that people are shown, or nil.
func checkText(field, text string, limit int) error {
	if len(text) > limit {
		return fmt.Errorf("%s of %d bytes, at most %d are taken", field, len(text), limit)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%s is %s, want printable characters only", field, quote(text))
	}
	return nil
}

// checkTexts checks what of the lease is taken as it comes.
func (l Lease) checkTexts() error {
	if err := checkText("BackendType", l.BackendType, maxBackendType); err != nil {
		return err
	}
	if err := checkText("InstanceID", l.InstanceID, maxInstanceID); err != nil {
		return err
	}
	if err := checkText("NodeName", l.NodeName, maxNodeName); err != nil {
		return err
	}
	for _, f := range Families() {
		if n := len(l.Endpoints[f].Data); n > maxData {
			return fmt.Errorf("%s of %d bytes, at most %d are taken", dataField(f), n, maxData)
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

// ShortKey returns what a key is kept under: itself, unless it is far too long for a lease's. Two long keys, or a long
// one and what it is kept under, could be made to come out alike; neither is a lease's, so nothing hangs on it.
func ShortKey(key string) string {
	if len(key) <= maxKey {
		return key
	}
	h := fnv.New64a()
	h.Write([]byte(key))
	return fmt.Sprintf("%s %016x", quote(key), h.Sum64())
}
