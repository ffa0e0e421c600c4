package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"":                              `""`,
		"10.5.29.0-24":                  `"10.5.29.0-24"`,
		"a\x00\n\x1b\"\xff":             `"a\x00\n\x1b\"\xff"`,
		"é\u202e":                       `"\u00e9\u202e"`,
		strings.Repeat("x", 64):         `"` + strings.Repeat("x", 64) + `"`,
		strings.Repeat("x", 65):         `"` + strings.Repeat("x", 64) + `..." (65 bytes)`,
		strings.Repeat("x", 1<<20):      `"` + strings.Repeat("x", 64) + `..." (1048576 bytes)`,
		strings.Repeat("\x00", 60):      `"` + strings.Repeat(`\x00`, 16) + `..." (60 bytes)`,
		strings.Repeat("\U0001f980", 4): `"` + strings.Repeat(`\U0001f980`, 4) + `"`,
	} {
		if got := quote(text); got != want {
			t.Errorf("%.80q:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

func TestParseLeaseBounds(t *testing.T) {
	const key = "10.5.29.0-24"
	value := func(field, text string) string {
		return fmt.Sprintf(`{"PublicIP":"172.31.0.2","BackendType":"vxlan",%q:%s}`, field, text)
	}
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for _, tt := range []struct{ value, want string }{
		{value("NodeName", long(253)), ``},
		{value("NodeName", long(254)), `NodeName of 254 bytes, want at most 253`},
		{value("InstanceID", long(64)), ``},
		{value("InstanceID", long(65)), `InstanceID of 65 bytes, want at most 64`},
		{value("MeshKey", long(64)), ``},
		{value("MeshKey", long(65)), `MeshKey of 65 bytes, want at most 64`},
		{value("BackendType", long(64)), ``},
		{value("BackendType", long(65)), `BackendType of 65 bytes, want at most 64`},
		{value("BackendData", long(510)), ``},
		{value("BackendData", long(511)), `BackendData of 513 bytes, want at most 512`},
		{value("BackendData", `[1,`+strings.Repeat(" ", 3000)+`2]`), ``}, // white space is not kept
		{value("NodeName", `"kök und größe"`), ``},
		{value("NodeName", `"a\u0000b"`), `NodeName is "a\x00b", want printable characters only`},
		{value("NodeName", `"a\nb"`), `NodeName is "a\nb", want printable characters only`},
		{value("InstanceID", `"\u001b[31m"`), `InstanceID is "\x1b[31m", want printable characters only`},
		{value("BackendType", `"vxlan\u200b"`), `BackendType is "vxlan\u200b", want printable characters only`},
		{value("PublicIP", long(1000)), `PublicIP is "` + strings.Repeat("x", 64) + `..." (1000 bytes), want an IPv4 address`},
		{value("PublicIP", strings.Repeat("9", 1000)), `PublicIP is a JSON number, want a string`},
		{value("PublicIP", strings.Repeat("9", 64)), `PublicIP is ` + strings.Repeat("9", 64) + `, want a string`},
		{strings.Repeat("9", 1000), `is a JSON number, want an object`},
	} {
		_, err := ParseLease(key, []byte(tt.value))
		if tt.want != "" {
			tt.want = "key " + key + ": value: " + tt.want
		}
		wantError(t, err, tt.want)
	}
	_, err := ParseLease("10.5.29.0-24&fd00:5:0:1d::-64",
		[]byte(`{"PublicIP":"172.31.0.2","PublicIPv6":"fd00:31::2","BackendV6Data":`+long(600)+`}`))
	wantError(t, err, "key 10.5.29.0-24&fd00:5:0:1d::-64: value: BackendV6Data of 602 bytes, want at most 512")
}

// TestLargestLease: a lease that is as large as can be read can be written.
func TestLargestLease(t *testing.T) {
	l := Lease{
		BackendType: strings.Repeat(`"`, maxBackendType),
		InstanceID:  strings.Repeat(`\`, maxInstanceID),
		NodeName:    strings.Repeat(`"`, maxNodeName),
		MeshKey:     strings.Repeat(`\`, maxMeshKey),
	}
	data := `"` + strings.Repeat("x", maxData-2) + `"`
	l.Endpoints[IPv4] = Endpoint{Subnet: pfx("255.255.255.240/28"), PublicIP: ip("255.255.255.254"), Data: data}
	last := ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")
	l.Endpoints[IPv6] = Endpoint{Subnet: netip.PrefixFrom(last, 127), PublicIP: last, Data: data}
	value, err := l.Value()
	if err != nil || len(value) > maxValue {
		t.Fatalf("%d bytes: %v", len(value), err)
	}
	if got, err := ParseLease(l.Key(), value); err != nil || got != l {
		t.Errorf("%s\nis read as %+v (%v)", value, got, err)
	}
}

// TestViewStrays: of very many keys that are no lease's, most are only counted.
func TestViewStrays(t *testing.T) {
	v := newView(t, viewRules(t))
	wantLen := func(step string, want int) {
		t.Helper()
		if valid, quarantined := v.Len(); valid != 0 || quarantined != want {
			t.Errorf("%s: %d valid and %d quarantined, want 0 and %d", step, valid, quarantined, want)
		}
	}
	key := func(i int) string { return fmt.Sprintf("stray %d", i) }
	records := func(n int) (list []Record) {
		for i := range n {
			list = append(list, decoded(key(i), nil, 1, 1, 0))
		}
		return list
	}
	change := func(created, modified int64, put ...string) {
		e := Event{Type: Changed, Revision: v.Revision() + 1}
		for _, key := range put {
			e.Put = append(e.Put, decoded(key, nil, created, modified, 0))
		}
		v.Apply(e)
	}
	gone := func(keys ...string) { v.Apply(Event{Type: Changed, Revision: v.Revision() + 1, Deleted: keys}) }
	const many = maxStrays + 1000
	for _, e := range snapshot(2000, records(many)...) {
		v.Apply(e)
	}
	wantLen("a snapshot", many)
	if n := len(v.entries); n != maxStrays {
		t.Errorf("%d are remembered, want %d", n, maxStrays)
	}
	if _, ok, why := v.Get(key(0)); !ok || why == nil {
		t.Errorf("the first of them: %t, %v", ok, why)
	}
	if _, ok, why := v.Get(key(many - 1)); ok || why != nil {
		t.Errorf("one that is only counted: %t, %v", ok, why)
	}
	change(2001, 2001, "one more")
	wantLen("one more", many+1)
	change(2001, 2002, "one more")
	wantLen("it changes", many+1)
	gone("one more")
	wantLen("it goes", many)
	gone("10.5.29.0-24")
	wantLen("a lease that nobody knew goes", many)
	gone(key(0))
	wantLen("one goes that is remembered", many-1)
	change(2003, 2003, key(0))
	wantLen("and is back", many)
	for _, e := range snapshot(3000, records(many)...) {
		v.Apply(e)
	}
	wantLen("the same snapshot again", many)
	for _, e := range snapshot(3001, records(2)...) {
		v.Apply(e)
	}
	wantLen("nearly all are gone", 2)
	gone(key(0), key(1), key(2))
	if n := v.remembered(); n != 0 {
		t.Errorf("%d things are left", n)
	}
}

// TestViewLongKeys: a key that is far too long is remembered by its beginning and a number.
func TestViewLongKeys(t *testing.T) {
	v := newView(t, viewRules(t))
	a, b := strings.Repeat("x", 1000), strings.Repeat("x", 999)+"y"
	v.Apply(Event{Type: Changed, Revision: 1001, Put: []Record{decoded(a, nil, 1001, 1001, 0), decoded(b, nil, 1001, 1001, 0)}})
	for _, key := range []string{a, b} {
		m, ok, why := v.Get(key)
		if !ok || len(m.Name) > maxName {
			t.Errorf("known %t, under a key of %d bytes", ok, len(m.Name))
		}
		wantError(t, why, "key of 1000 bytes: want ADDRESS-LENGTH, at most one IPv4 and one IPv6, separated by &")
		if again, _, _ := v.Get(m.Name); again != m {
			t.Errorf("by its short key %q: %+v", m.Name, again)
		}
	}
	v.Apply(Event{Type: Changed, Revision: 1002, Deleted: []string{a}})
	if _, ok, _ := v.Get(a); ok {
		t.Error("still there after it was deleted")
	}
	if _, ok, _ := v.Get(b); !ok {
		t.Error("deleted together with another")
	}
}

// TestViewLongReasons: a backend that says much is cut short.
func TestViewLongReasons(t *testing.T) {
	rules := viewRules(t)
	said := errors.New("short")
	rules.Check = func(Lease) ([]string, error) { return nil, said }
	r := record("10.5.29.0-24", 1001, "", "172.31.0.2", "")
	v := newView(t, rules, r)
	if _, _, why := v.Get(r.Name); why != said {
		t.Errorf("got %v, want what the backend says", why)
	}
	said = errors.New(strings.Repeat("x", 510) + strings.Repeat("é", 500))
	v.SetRules(rules)
	_, _, why := v.Get(r.Name)
	wantError(t, why, strings.Repeat("x", 510)+"é... (1510 bytes)")
}

// TestViewWithoutRules: what comes and goes before there are rules leaves nothing behind.
func TestViewWithoutRules(t *testing.T) {
	v := NewView()
	for _, e := range snapshot(1) {
		v.Apply(e)
	}
	r := record("10.5.29.0-24", 2, "", "172.31.0.2", "")
	for range 10 {
		v.Apply(Event{Type: Changed, Revision: v.Revision() + 1, Put: []Record{r}})
		v.Apply(Event{Type: Changed, Revision: v.Revision() + 1, Deleted: []string{r.Name}})
	}
	if n := v.remembered(); n != 0 {
		t.Errorf("%d things are left", n)
	}
}
