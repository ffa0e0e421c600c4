package subnettest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/testdata/hostile"
)

var update = flag.Bool("update", false, "write the corpus anew")

// corpus collects the records of one file after the other. Values that are to be bad get a key each, of their own.
type corpus struct {
	t       *testing.T
	rules   subnet.Rules
	records []Record        // of the present file
	keys    map[string]bool // of all files
	used    [2]int          // subnets given out, by family
}

// TestCorpus fails unless the files are what is generated here.
func TestCorpus(t *testing.T) {
	rules, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	c := &corpus{t: t, keys: map[string]bool{}, rules: rules}
	for _, file := range []struct {
		name     string
		generate func()
	}{
		{"keys", c.badKeys}, {"subnets", c.badSubnets}, {"json", c.badJSON}, {"fields", c.badFields},
		{"backend", c.badBackendData}, {"mutated", c.mutated},
	} {
		c.records = nil
		file.generate()
		name, want := file.name+".jsonl", format(t, c.records)
		if *update {
			if err := os.WriteFile(filepath.Join("..", "testdata", "hostile", name), want, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if got, err := hostile.Files.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what is generated (%v); write it anew with -update", name, err)
		}
	}
}

// key makes one of the given pattern: a "4" stands for an IPv4 subnet that no other record has, a "6" for an IPv6 one.
func (c *corpus) key(pattern string) string {
	var subnets [2]netip.Prefix
	for _, f := range subnet.Families() {
		if !strings.Contains(pattern, map[subnet.Family]string{subnet.IPv4: "4", subnet.IPv6: "6"}[f]) {
			continue
		}
		n := c.used[f]
		c.used[f]++
		if f == subnet.IPv4 { // /28s in 10.5.128.0/17
			subnets[f] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(128 + n>>4), byte(n << 4)}), 28)
		} else { // /68s in fd00:5:0:80::/57
			subnets[f] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 5, 7: byte(128 + n>>4),
				8: byte(n << 4)}), 68)
		}
	}
	return subnet.FormatKey(subnets[:]...)
}

// add adds a record. It must be bad; an empty why is filled in with what is said.
func (c *corpus) add(key string, value []byte, why string) {
	c.t.Helper()
	if c.keys[key] {
		return // two ways to one key
	}
	r := Record{Key: key, Value: value, Why: why}
	reason := c.reason(r, c.rules, Peers())
	if reason == nil || !strings.Contains(reason.Error(), why) {
		c.t.Errorf("key %q, value %q: the reason is %v, want %s", key, value, reason, why)
		return
	}
	if why == "" {
		r.Why = class(c.t, reason)
	}
	// What is bad anywhere needs nothing. What is bad without peers needs this node.
	anywhere := c.rules
	anywhere.PublicIPs, anywhere.Underlay = [2]netip.Addr{}, nil
	if c.reason(r, anywhere, nil) == nil {
		r.Needs = NeedsPeers
		if c.reason(r, c.rules, nil) != nil {
			// Elsewhere it is good, and keeps its MAC addresses.
			r.Needs = NeedsNode
			n := len(c.keys)
			r.Value = bytes.ReplaceAll(r.Value, []byte("0e:05:00:00:00:63"), fmt.Appendf(nil, "0e:05:00:04:%02x:%02x",
				n>>8, n&255))
			r.Value = bytes.ReplaceAll(r.Value, []byte("0e:05:00:00:06:63"), fmt.Appendf(nil, "0e:05:00:06:%02x:%02x",
				n>>8, n&255))
		}
	}
	c.keys[key] = true
	c.records = append(c.records, r)
}

// bad adds a value that is bad under a key of the given pattern.
func (c *corpus) bad(pattern, value, why string) {
	c.t.Helper()
	c.add(c.key(pattern), []byte(value), why)
}

// reason is why a view of nothing but peers and r does not let r in.
func (c *corpus) reason(r Record, rules subnet.Rules, peers []subnet.Record) error {
	v := subnet.NewView()
	v.SetRules(rules)
	stored := subnet.DecodeRecord(r.Key, r.Value)
	stored.Order, stored.Version, stored.LeaseID = 100, 100, 1
	records := append(peers, stored)
	v.Apply(subnet.Event{Type: subnet.Page, Revision: 100, Put: records})
	v.Apply(subnet.Event{Type: subnet.Synced, Revision: 100})
	for key, why := range v.Quarantined {
		if r.Key == key || !slices.ContainsFunc(peers, func(p subnet.Record) bool { return p.Name == key }) {
			return why
		}
		c.t.Errorf("key %q, value %q does harm to %s: %v", r.Key, r.Value, key, why)
	}
	return nil
}

// class finds which of the reasons that there are is given.
func class(t *testing.T, reason error) string {
	t.Helper()
	for _, text := range []string{
		"is not ADDRESS-LENGTH", "is not an IP prefix", "not in canonical form", "has host bits set",
		"parts, want one or two",
		"want the IPv4 subnet first", "key of", "value of", "not JSON", "want an object", "want a string",
		"no PublicIP",
		"want an IPv4 address", "want an IPv6 address", "is not inside Network", "length is",
		"is not a unicast address",
		"is inside the overlay", "want printable characters only", "at most", "backend is", "no BackendData",
		"VNI is",
		"want uint32", "is not a MAC address", "is not the address of one device", "overlaps the older lease",
		"is that of the older lease", "is our own", "of the underlay", "is the broadcast address",
	} {
		if strings.Contains(reason.Error(), text) {
			return text
		}
	}
	t.Errorf("a reason of no known class: %v", reason)
	return ""
}

// format returns the content of a file, the inverse of parse.
func format(t *testing.T, records []Record) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, r := range records {
		l := line{Key: r.Key, Value: string(r.Value), Why: r.Why, Needs: r.Needs}
		if !utf8.ValidString(r.Key) {
			l.Key, l.Key64 = "", []byte(r.Key)
		}
		if !utf8.Valid(r.Value) {
			l.Value, l.Value64 = "", r.Value
		}
		if err := enc.Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// good is a value with which a record under a key of any pattern is good.
const good = `{"PublicIP":"172.31.0.99","PublicIPv6":"fd00:31::99","BackendType":"vxlan",` +
	`"BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:63"},"BackendV6Data":{"VNI":1,"VtepMAC":"0e:05:00:00:06:63"},` +
	`"InstanceID":"63","NodeName":"node-99"}`

// TestGood holds what everything here rests on: without its one fault, a record is let in.
func TestGood(t *testing.T) {
	rules, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	c := &corpus{t: t, rules: rules}
	for _, pattern := range []string{"4", "6", "46"} {
		r := Record{Key: c.key(pattern), Value: []byte(good)}
		if why := c.reason(r, rules, Peers()); why != nil {
			t.Errorf("%s: %v", r.Key, why)
		}
	}
}

// with returns the good value with the text of one field replaced by any JSON; an empty text leaves the field out.
func with(field, text string) string {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(good), &fields); err != nil {
		panic(fmt.Sprintf("the good value: %v", err))
	}
	fields[field] = json.RawMessage(text)
	var b strings.Builder
	for _, name := range []string{"PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data",
		"InstanceID", "NodeName"} {
		if len(fields[name]) > 0 {
			fmt.Fprintf(&b, `,%q:%s`, name, fields[name])
		}
	}
	return "{" + b.String()[1:] + "}"
}
