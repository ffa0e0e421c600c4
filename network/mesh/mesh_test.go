package mesh

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// secret is in every text and name that a summary must not have.
const secret = "s3cr3t"

// TestSummaryHasNoSecrets: of a status whose texts, pods, policies and config have a secret, the summary has none of it.
func TestSummaryHasNoSecrets(t *testing.T) {
	s := status.Status{
		Node: "node1", Config: json.RawMessage(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","PSK":"` + secret + `"}}`),
		Problems: []status.Problem{{Topic: "etcd", Code: status.StoreDown, Key: secret, Kind: secret, Text: secret}},
		Lease:    &status.Lease{Key: "10.5.1.0-24"}, Backend: &status.Backend{Type: "vxlan", Devices: []status.Device{{Name: secret}}},
		Filter: status.Filter{Why: secret, Foreign: []status.Text{secret}}, Uplink: &status.Uplink{Name: secret, Why: secret},
		Pods: &status.Pods{Bridges: []status.PodBridge{{Name: secret}}},
		Enforcement: &status.Enforcement{Drops: []status.PolicyDrops{
			{Namespace: secret, Policy: "shop/deny", Direction: "ingress", Cause: "isolated", Count: 2},
			{Namespace: "other", Policy: "shop/deny", Direction: "ingress", Cause: "isolated", Count: 1}, {Count: 4}}},
		FastPath:    &status.FastPath{Code: status.FastPathQueue, Why: secret},
		Quarantined: []status.Refusal{{Key: secret, Why: secret}},
		Repairs:     status.Repairs{Total: 5, Last: []status.Repair{{Key: secret, By: secret}}},
		SubnetFile:  secret, Mesh: &status.Mesh{KeyFile: secret},
	}
	access := status.StoreAccess{Endpoints: []string{secret}, Username: secret, PasswordFile: secret}
	s.SetStore(status.Store{StoreConnection: status.StoreConnection{Endpoint: secret, Access: &access, Outage: &status.Problem{Text: secret}}})
	m := Summarize(s)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), secret) {
		t.Errorf("the summary has a secret: %s", b)
	}
	if by := []PolicyDrops{{"shop/deny", "ingress", "isolated", 3}, {"", "", "", 4}}; !slices.Equal(m.DropsBy, by) {
		t.Errorf("drops %+v, want %+v", m.DropsBy, by)
	}
	if m.Drops.Total != 7 || m.Repairs.Total != 5 || len(m.Problems) != 1 || m.Lease != "10.5.1.0-24" || m.Config == "" {
		t.Errorf("%+v", m)
	}
	for range maxProblems + 2 {
		s.Problems = append(s.Problems, status.Problem{Code: status.ConfigRejected})
	}
	if m := Summarize(s); len(m.Problems) != maxProblems || m.More != 3 || !m.ConfigRejected {
		t.Errorf("%d problems, %d more, rejected %t", len(m.Problems), m.More, m.ConfigRejected)
	}
}

func TestConfigID(t *testing.T) {
	same := []string{`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, "{ \"Backend\": {\"Type\":\"vxlan\"},\n\"Network\":\"10.5.0.0/16\"}\n"}
	if a, b := ConfigID(json.RawMessage(same[0])), ConfigID(json.RawMessage(same[1])); a != b || a == "" {
		t.Errorf("%q and %q, want the same", a, b)
	}
	seen := map[string]string{}
	for _, other := range []string{"", same[0], `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}`, `{`, `{"n":9007199254740993}`, `{"n":9007199254740992}`} {
		id := ConfigID(json.RawMessage(other))
		if before, twice := seen[id]; twice {
			t.Errorf("%s and %s have the same ID", before, other)
		}
		seen[id] = other
	}
}

func TestHistory(t *testing.T) {
	var h History
	at := func(after time.Duration, repairs, drops uint64) Count {
		m := Summary{Repairs: Count{Total: repairs}, Drops: Count{Total: drops}}
		h.Add(now.Add(after), &m)
		if m.Repairs.Total != repairs || m.Drops.Lately != drops {
			t.Errorf("after %s: %+v", after, m)
		}
		return m.Repairs
	}
	for _, step := range []struct {
		after          time.Duration
		repairs, wants uint64
	}{
		{0, 3, 3}, {2 * time.Second, 3, 3}, {time.Minute, 4, 4}, {9 * time.Minute, 4, 4}, {10 * time.Minute, 4, 1}, {11 * time.Minute, 4, 0},
		{12 * time.Minute, 9, 5}, {21 * time.Minute, 9, 5}, {22 * time.Minute, 9, 0}, {23 * time.Minute, 2, 2}, // a counter that was reset
	} {
		if got := at(step.after, step.repairs, 0); got.Lately != step.wants {
			t.Errorf("after %s: %d lately, want %d", step.after, got.Lately, step.wants)
		}
	}
	for i := range 100_000 {
		at(time.Hour+time.Duration(i)*2*time.Second, 9, 0)
	}
	if n := len(h.samples); n > 12 {
		t.Errorf("%d samples are kept", n)
	}
}

// TestDropsBy: what policies denied within the window, the most first.
func TestDropsBy(t *testing.T) {
	var h History
	add := func(after time.Duration, a, b uint64) string {
		m := Summary{DropsBy: []PolicyDrops{{Policy: "a", Lately: a}, {Policy: "b", Lately: b}}}
		h.Add(now.Add(after), &m)
		return fmt.Sprint(m.DropsBy)
	}
	for _, step := range []struct {
		after time.Duration
		a, b  uint64
		want  string
	}{
		{0, 0, 0, "[]"}, {time.Minute, 1, 5, "[{b   5} {a   1}]"}, {10 * time.Minute, 1, 5, "[{b   5} {a   1}]"}, {11 * time.Minute, 2, 5, "[{a   1}]"},
		{30 * time.Minute, 2, 7, "[{b   2}]"}, {31 * time.Minute, 1, 7, "[{b   2} {a   1}]"}, // a counter that was reset
	} {
		if got := add(step.after, step.a, step.b); got != step.want {
			t.Errorf("after %s: %s, want %s", step.after, got, step.want)
		}
	}
	m := Summary{}
	for i := range 100 {
		m.DropsBy = append(m.DropsBy, PolicyDrops{Policy: fmt.Sprint(i), Lately: 1})
	}
	if new(History).Add(now, &m); len(m.DropsBy) != maxDrops {
		t.Errorf("%d policies are listed", len(m.DropsBy))
	}
}

// TestClean: nothing that another node sends reaches a terminal as it is, and it is bounded. Every string of a summary is filled.
func TestClean(t *testing.T) {
	const hostile = "\x1b]0;owned\x07\n\t\u202e\xff"
	var m Summary
	fill(reflect.ValueOf(&m).Elem(), hostile+strings.Repeat("x", 1000))
	m.Clean()
	walk(t, "Summary", reflect.ValueOf(m), 4*maxText)
	var d Detail
	fill(reflect.ValueOf(&d).Elem(), hostile+strings.Repeat("x", 2000))
	d.Clean()
	walk(t, "Detail", reflect.ValueOf(d), 4*maxEvidence)
	if got := Printable("grün 1/2 (%)", 99); got != "grün 1/2 (%)" {
		t.Errorf("%q", got)
	}
}

// fill sets every string to s, and gives every slice more elements than are wanted.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() || v.Type() == reflect.TypeFor[netip.Addr]() {
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), s)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 100, 100))
		for i := range v.Len() {
			fill(v.Index(i), s)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s)
	}
}

func walk(t *testing.T, path string, v reflect.Value, most int) {
	switch v.Kind() {
	case reflect.String:
		if strings.ContainsAny(v.String(), "\x1b\x07\n\t\u202e") || len(v.String()) > most {
			t.Errorf("%s is %q", path, v.String())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if x := v.Type(); x != reflect.TypeFor[time.Time]() && x != reflect.TypeFor[netip.Addr]() {
				walk(t, path+"."+x.Field(i).Name, v.Field(i), most)
			}
		}
	case reflect.Slice:
		if v.Len() > maxList {
			t.Errorf("%s has %d elements", path, v.Len())
		}
		for i := range v.Len() {
			walk(t, path, v.Index(i), most)
		}
	case reflect.Pointer:
		walk(t, path, v.Elem(), most)
	}
}

func TestTargets(t *testing.T) {
	a := netip.MustParseAddr
	own := status.Status{Node: "node1", Lease: &status.Lease{Key: "k1"}, Uplink: &status.Uplink{
		PublicIP: []netip.Addr{a("203.0.113.1")}, Local: []netip.Addr{a("10.0.0.1")}}}
	got := TargetsOf(own, []status.Peer{
		{Key: "k2", Node: "node2", PublicIP: []netip.Addr{a("10.0.0.2"), {}}, State: status.Pending, Code: status.EntryMissing},
		{Key: "k3", PublicIP: []netip.Addr{a("10.0.0.3")}, State: status.Grace, Code: status.LeaseWithdrawn},
		{Key: "k4", PublicIP: []netip.Addr{a("10.0.0.4")}, State: status.Quarantined, Code: status.LeaseOverlaps},
	})
	want := []Target{
		{Key: "k1", Node: "node1", Public: []netip.Addr{a("203.0.113.1")}, Local: []netip.Addr{a("10.0.0.1")}},
		{Key: "k2", Node: "node2", Public: []netip.Addr{a("10.0.0.2")}},
		{Key: "k3", Public: []netip.Addr{a("10.0.0.3")}, Reject: status.LeaseWithdrawn},
		{Key: "k4", Public: []netip.Addr{a("10.0.0.4")}, Reject: status.LeaseOverlaps},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestOrder: each node has one thing that is odd, and they are in the order of the ranks, then of the names, whatever the order of the targets.
func TestOrder(t *testing.T) {
	well := func() *Summary {
		return &Summary{Version: 1, Now: now, Started: now.Add(-time.Hour), State: status.Ready, Selvaged: "v1", Config: "c1", Backend: "vxlan",
			FastPath: &FastPath{InUse: true}}
	}
	odd := func(change func(*Summary)) Answer { s := well(); change(s); return Answer{Summary: s} }
	problem := func(code status.Reason, warning bool) func(*Summary) {
		return func(s *Summary) { s.Problems = []Problem{{Topic: "x", Code: code, Since: now, Warning: warning}} }
	}
	public := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	cases := []struct {
		name, code string
		answer     Answer
		target     Target
	}{
		{"z-missing", "no-answer", Answer{Code: NoAnswer}, Target{Public: public}},
		{"z-withdrawn", "not-listening lease-withdrawn", Answer{Code: NotListening}, Target{Public: public, Reject: status.LeaseWithdrawn}},
		{"y-refuses", "config-rejected", odd(problem(status.ConfigRejected, false)), Target{}},
		{"x-stuck", "loop-stuck", odd(func(s *Summary) { s.Age = time.Minute }), Target{}},
		{"w-cut", "traffic-cut", odd(func(s *Summary) { s.Cut = []string{"IPv4"} }), Target{}},
		{"v-rejected", "lease-overlaps", odd(func(*Summary) {}), Target{Reject: status.LeaseOverlaps}},
		{"u-degraded", "conflict", odd(problem(status.Conflict, false)), Target{}},
		{"t-unreached", "unreached", odd(func(*Summary) {}), Target{}},
		{"s-starting", "starting", odd(func(s *Summary) { s.State = status.Starting }), Target{}},
		{"r1-config", "other-config", odd(func(s *Summary) { s.Config = "c2" }), Target{}},
		{"r2-backend", "other-backend", odd(func(s *Summary) { s.Backend = "host-gw" }), Target{}},
		{"r3-version", "other-version", odd(func(s *Summary) { s.Selvaged = "v2" }), Target{}},
		{"r4-lease", "other-lease", odd(func(s *Summary) { s.Lease = "another" }), Target{}},
		{"r5-mixed", "not-all-encrypted", odd(func(s *Summary) { s.Peers.Programmed, s.Encrypted = 4, new(3) }), Target{}},
		{"r6-slow", "fast-path-off", odd(func(s *Summary) { s.FastPath = nil }), Target{}},
		{"q1-warns", "route-shadowed", odd(problem(status.RouteShadowed, true)), Target{}},
		{"q2-cannot", "peer-unreachable", odd(func(s *Summary) {
			s.Probes = []Probes{{Family: "IPv4", Peers: []status.ProbedPeer{{Key: "k-t-unreached", State: status.Unreachable}}}}
		}), Target{}},
		{"q3-repaired", "repaired-lately", odd(func(s *Summary) { s.Repairs.Lately = 2 }), Target{}},
		{"q4-expires", "certificate-expires", Answer{Summary: well(), CertificateEnds: now.Add(time.Hour)}, Target{}},
		{"a9", "", Answer{Summary: well(), CertificateEnds: now.AddDate(0, 1, 0)}, Target{}},
		{"a10", "", odd(func(*Summary) {}), Target{}},
	}
	targets, answers := make([]Target, len(cases)), make([]Answer, len(cases))
	var want []string
	for i, c := range cases {
		last := len(cases) - 1 - i // the worst is asked last
		targets[last], answers[last] = c.target, c.answer
		targets[last].Node, targets[last].Key = c.name, "k-"+c.name
		if s := c.answer.Summary; s != nil && s.Lease == "" {
			s.Lease = targets[last].Key
		}
		want = append(want, strings.TrimSpace(c.name+" "+c.code))
	}
	view := Assemble(targets, answers, now)
	var got []string
	for _, n := range view.Nodes {
		line := n.Name
		for _, f := range n.Findings {
			line += " " + string(f.Code)
		}
		got = append(got, line)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if c := (Counts{Nodes: 21, Ready: 18, Starting: 1, Missing: 2}); view.Counts != c {
		t.Errorf("counts %+v, want %+v", view.Counts, c)
	}
	if got := fmt.Sprint(view.Versions, view.Configs); got != "[{v1 18} {v2 1}] [{c1 18} {c2 1}]" {
		t.Errorf("tallies %s", got)
	}
	for _, n := range view.Nodes {
		if by := n.Name == "t-unreached"; by != slices.Equal(n.UnreachedBy, []string{"q2-cannot"}) {
			t.Errorf("%s is not reached by %q", n.Name, n.UnreachedBy)
		}
	}
}

// TestCutOff: a node that reaches no other is odd itself; those that it does not reach are not.
func TestCutOff(t *testing.T) {
	names := []string{"a", "b", "c"}
	for name, tt := range map[string]struct {
		nodes int
		want  string
	}{"of three": {3, "[[b c] [] []]"}, "of two": {2, "[[b] [a]]"}} {
		var targets []Target
		var answers []Answer
		for i, own := range names[:tt.nodes] {
			p := Probes{Family: "IPv4"}
			for j, key := range names[:tt.nodes] {
				state := status.Reachable
				if i == 0 || j == 0 {
					state = status.Unreachable
				}
				if i != j {
					p.Peers = append(p.Peers, status.ProbedPeer{Key: key, State: state})
				}
			}
			targets = append(targets, Target{Key: own, Node: own})
			answers = append(answers, Answer{Summary: &Summary{Lease: own, State: status.Ready, Probes: []Probes{p}}})
		}
		var got [][]string
		view := Assemble(targets, answers, now)
		slices.SortFunc(view.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
		for _, n := range view.Nodes {
			got = append(got, n.UnreachedBy)
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: unreached by %v, want %s", name, got, tt.want)
		}
	}
}

func TestEncryption(t *testing.T) {
	peers := status.PeerCounts{Programmed: 3, Pending: 1, Grace: 2, Quarantined: 5}
	for want, s := range map[string]Summary{
		"no": {Peers: peers}, "all": {Peers: peers, Encrypted: new(4)}, "3 of 4": {Peers: peers, Encrypted: new(3)}, "0 of 4": {Peers: peers, Encrypted: new(0)},
	} {
		if got := s.Encryption(); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
	if got := (&Summary{Encrypted: new(0)}).Encryption(); got != "all" {
		t.Errorf("without a peer: %q", got)
	}
}

func TestNoNodes(t *testing.T) {
	b, err := json.Marshal(Assemble(nil, nil, now))
	const want = `{"version":1,"at":"2026-03-01T12:00:00Z","counts":{"nodes":0,"ready":0,"degraded":0,"starting":0,"missing":0},` +
		`"versions":[],"configs":[],"networks":[],"nodes":[]}`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}
