package filter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestBlocks(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}
	chains := map[string][]string{
		"ENDS":     {"-i eth0 -j ACCEPT", "-j LOG --log-prefix x", "-j DROP"},
		"RETURNS":  {"-j RETURN", "-j DROP"},
		"OUTER":    {"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j ENDS"},
		"POLICY":   {"-s 10.5.3.7/32 -j DROP", "-m conntrack --ctstate INVALID -j DROP"},
		"ACCEPTED": {"-s 10.5.0.0/16 -j ACCEPT", "-j DROP"},
		"LOOP":     {"-j LOOP"},
	}
	for _, tt := range []struct {
		rule string
		want bool
	}{
		{"-j DROP", true},
		{"-j REJECT --reject-with icmp-host-prohibited", true},
		{`-m comment --comment "all else" -j DROP`, true},
		{"-m comment --comment rest -j DROP", true},
		{"-s 10.5.0.0/16 -j DROP", true},
		{"-d 10.0.0.0/8 -j REJECT --reject-with tcp-reset", true},
		{`-s 10.5.0.0/16 -m comment --comment "no pods" -j DROP`, true},
		{"-j ENDS", true},
		{"-g ENDS", true},
		{"-j OUTER", true},
		{"-s 10.0.0.0/8 -j OUTER", true},
		{"-s 10.5.3.0/24 -j DROP", false},
		{"! -s 10.5.0.0/16 -j DROP", false},
		{"-s 192.168.0.0/16 -j DROP", false},
		{"-i eth0 -j DROP", false},
		{"-p tcp -j REJECT --reject-with tcp-reset", false},
		{"-m conntrack --ctstate INVALID -j DROP", false},
		{`-m comment --comment "x" -m mark --mark 0x1 -j DROP`, false},
		{`-m comment --comment "-j DROP" -j ACCEPT`, false},
		{`-m comment --comment "a \"b\" -j DROP"`, false},
		{"-j RETURNS", false},
		{"-j POLICY", false},
		{"-j ACCEPTED", false},
		{"-j LOOP", false},
		{"-j NOWHERE", false},
		{"-i eth0 -j ENDS", false},
		{"-j LOG", false},
		{"-j ACCEPT", false},
		{"", false},
		{"-j", false},
		{"-m comment --comment", false},
	} {
		if got := blocks(tt.rule, networks, func(chain string) []string { return chains[chain] }); got != tt.want {
			t.Errorf("%q: %t, want %t", tt.rule, got, tt.want)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for in, want := range map[string][]string{
		"":                                   nil,
		"  -j \t DROP ":                      {"-j", "DROP"},
		`--comment "a b" -j X`:               {"--comment", "a b", "-j", "X"},
		`--comment "a \"b\" \\" -j X`:        {"--comment", `a "b" \`, "-j", "X"},
		`--comment "" -j X`:                  {"--comment", "", "-j", "X"},
		`--log-prefix "unterminated quote x`: {"--log-prefix", "unterminated quote x"},
	} {
		if got := splitWords(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTargetAndComment(t *testing.T) {
	for _, tt := range []struct{ rule, target, comment string }{
		{"-s 10.0.0.0/8 -j ACCEPT", "ACCEPT", ""},
		{"-g CHAIN", "CHAIN", ""},
		{"-p tcp", "", ""},
		{`-m comment --comment "x -j DROP" -j SELVAGE-FWD`, "SELVAGE-FWD", "x -j DROP"},
		{`-m comment --comment -j -j DROP`, "DROP", "-j"},
		{"-j", "", ""},
	} {
		if got := target(tt.rule); got != tt.target {
			t.Errorf("%q: target %q, want %q", tt.rule, got, tt.target)
		}
		if got := comment(tt.rule); got != tt.comment {
			t.Errorf("%q: comment %q, want %q", tt.rule, got, tt.comment)
		}
	}
}

func TestPlan(t *testing.T) {
	jump := `-m comment --comment "selvage: forwarding" -j SELVAGE-FWD`
	on := table{name: "filter", parent: "FORWARD", chain: "SELVAGE-FWD", jump: jump, rules: []string{"-s 10.5.0.0/16 -j ACCEPT", "-d 10.5.0.0/16 -j ACCEPT"}}
	off := on
	off.rules = nil
	fill := []string{":SELVAGE-FWD - [0:0]", "-A SELVAGE-FWD -s 10.5.0.0/16 -j ACCEPT", "-A SELVAGE-FWD -d 10.5.0.0/16 -j ACCEPT"}
	tests := []struct {
		name    string
		want    table
		have    state
		input   []string
		changes []string
	}{
		{"all there", on, state{parent: []string{"-j A", jump}, exists: true, rules: on.rules}, nil, nil},
		{"all there, others after it", on, state{parent: []string{jump, "-j A", "-j DROP"}, exists: true, rules: on.rules}, nil, nil},
		{"nothing there", on, state{parent: []string{"-j A"}}, append(fill[:3:3], "-A FORWARD "+jump),
			[]string{"created chain SELVAGE-FWD with 2 rules", "added the jump from FORWARD to SELVAGE-FWD at its end"}},
		{"chain flushed", on, state{parent: []string{jump}, exists: true}, fill,
			[]string{"replaced the 0 rules of chain SELVAGE-FWD with 2"}},
		{"rules in another order", on, state{parent: []string{jump}, exists: true, rules: []string{on.rules[1], on.rules[0]}}, fill,
			[]string{"replaced the 2 rules of chain SELVAGE-FWD with 2"}},
		{"jump gone", on, state{parent: []string{"-j A"}, exists: true, rules: on.rules}, []string{"-A FORWARD " + jump},
			[]string{"added the jump from FORWARD to SELVAGE-FWD at its end"}},
		{"jump gone, all blocked at the end", on, state{parent: []string{"-j A", "-j DROP", "-j B"}, exists: true, rules: on.rules},
			[]string{"-I FORWARD 2 " + jump}, []string{`added the jump from FORWARD to SELVAGE-FWD before its rule "-j DROP"`}},
		{"jump twice", on, state{parent: []string{jump, "-j A", jump}, exists: true, rules: on.rules},
			[]string{"-D FORWARD " + jump, "-D FORWARD " + jump, "-A FORWARD " + jump},
			[]string{"removed all 2 jumps from FORWARD to SELVAGE-FWD", "added the jump from FORWARD to SELVAGE-FWD at its end"}},
		{"jump behind DROP: its number is that without the jump", on, state{parent: []string{"-j A", "-j DROP", jump}, exists: true, rules: on.rules},
			[]string{"-D FORWARD " + jump, "-I FORWARD 2 " + jump},
			[]string{"removed the jump from FORWARD to SELVAGE-FWD", `added the jump from FORWARD to SELVAGE-FWD before its rule "-j DROP"`}},
		{"jumps before and behind DROP", on, state{parent: []string{jump, "-j DROP", jump}, exists: true, rules: on.rules},
			[]string{"-D FORWARD " + jump, "-D FORWARD " + jump, "-I FORWARD 1 " + jump},
			[]string{"removed all 2 jumps from FORWARD to SELVAGE-FWD", `added the jump from FORWARD to SELVAGE-FWD before its rule "-j DROP"`}},
		{"jump of another form", on, state{parent: []string{"-i eth0 -j SELVAGE-FWD"}, exists: true, rules: on.rules},
			[]string{"-D FORWARD -i eth0 -j SELVAGE-FWD", "-A FORWARD " + jump},
			[]string{"removed the jump from FORWARD to SELVAGE-FWD", "added the jump from FORWARD to SELVAGE-FWD at its end"}},
		{"switched off, nothing there", off, state{parent: []string{"-j A"}}, nil, nil},
		{"switched off", off, state{parent: []string{"-j A", jump}, exists: true, rules: on.rules},
			[]string{"-D FORWARD " + jump, ":SELVAGE-FWD - [0:0]", "-X SELVAGE-FWD"},
			[]string{"removed the jump from FORWARD to SELVAGE-FWD", "removed chain SELVAGE-FWD"}},
		{"switched off, an empty chain left", off, state{exists: true}, []string{":SELVAGE-FWD - [0:0]", "-X SELVAGE-FWD"},
			[]string{"removed chain SELVAGE-FWD"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := ""
			if tt.input != nil {
				want = "*filter\n" + strings.Join(tt.input, "\n") + "\nCOMMIT\n"
			}
			tt.have.blocking = map[string]bool{"-j DROP": true}
			input, changes := plan(tt.want, tt.have)
			if input != want {
				t.Errorf("input\n%swant\n%s", input, want)
			}
			if !slices.Equal(changes, tt.changes) {
				t.Errorf("changes %q, want %q", changes, tt.changes)
			}
		})
	}
}
