package subnet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// pfx and ip parse what is known to be right; the empty text is the zero value.
func pfx(text string) netip.Prefix {
	if text == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(text)
}

func ip(text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(text)
}

// mustConfig parses a config that is known to be right.
func mustConfig(t testing.TB, text string) Config {
	t.Helper()
	c, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantError fails unless err says exactly want; the empty text means no error.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("error:\n  got  %s\n  want %s", got, want)
	}
}

// newRand returns a source of random numbers whose seed is printed if the test fails, so that the run can be had again
// by putting it in here.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the seed was %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// valueOf is a lease's value as a vxlan node writes it. instance and public addresses may be empty.
func valueOf(instance, public4, public6 string) []byte {
	l := Lease{BackendType: "vxlan", InstanceID: instance}
	l.Endpoints[IPv4].PublicIP, l.Endpoints[IPv6].PublicIP = ip(public4), ip(public6)
	b, err := l.Value()
	if err != nil {
		panic(fmt.Sprintf("value of a lease made up by a test: %v", err))
	}
	return b
}

// decoded is the record of a key and a value.
func decoded(key string, value []byte, order, version, lease int64) Record {
	r := DecodeRecord(key, value)
	r.Order, r.Version, r.LeaseID = order, version, lease
	return r
}

// withValue is r with another value under its key.
func withValue(r Record, value []byte) Record {
	return decoded(r.Name, value, r.Order, r.Version, r.LeaseID)
}

// text is the value of a record that is well formed.
func text(r Record) string {
	value, err := r.Value()
	if err != nil {
		panic(fmt.Sprintf("value of a lease made up by a test: %v", err))
	}
	return string(value)
}

// snapshot is the events of one snapshot that holds the given records in a single page.
func snapshot(revision int64, records ...Record) []Event {
	return []Event{{Type: Page, Revision: revision, Put: records}, {Type: Synced, Revision: revision}}
}

// newView returns a view that has seen a snapshot of the given records and has the given rules.
func newView(t testing.TB, rules Rules, records ...Record) *View {
	t.Helper()
	v := NewView()
	v.SetRules(rules)
	for _, e := range snapshot(1000, records...) {
		v.Apply(e)
	}
	return v
}

// checkReason fails if an error is long, or holds what a terminal or a log would do something with.
func checkReason(t testing.TB, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 600 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("an error that is not fit to be shown: %q", text)
	}
}
