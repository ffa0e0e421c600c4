package filter

import (
	"slices"
	"strings"
	"testing"
)

func TestPlacement(t *testing.T) {
	tests := []struct {
		name  string
		rules []string
		want  int
	}{
		{"an empty chain", nil, 0},
		{"nothing that blocks", []string{"-j KUBE-FORWARD", "-s 10.0.0.0/8 -j ACCEPT"}, 2},
		{"a final REJECT", []string{"-j A", "-j REJECT --reject-with icmp-host-prohibited"}, 1},
		{"a final DROP", []string{"-j A", "-j DROP"}, 1},
		{"DROP with a comment", []string{"-j A", `-m comment --comment "all else" -j DROP`}, 1},
		{"DROP with a comment of one word", []string{"-j A", "-m comment --comment rest -j DROP"}, 1},
		{"the first of several", []string{"-j DROP", "-j A", "-j REJECT --reject-with icmp6-port-unreachable"}, 0},
		{"DROP under a condition", []string{"-m conntrack --ctstate INVALID -j DROP", "-i eth0 -j DROP", "-p tcp -j REJECT --reject-with tcp-reset"}, 3},
		{"DROP under a condition after a comment", []string{`-m comment --comment "x" -m mark --mark 0x1 -j DROP`}, 1},
		{"DROP in a comment", []string{`-m comment --comment "-j DROP" -j ACCEPT`, `-m comment --comment "a \"b\" -j DROP"`}, 2},
		{"a chain that may block", []string{"-j DOCKER-USER", "-j DROPS", "-g REJECTED"}, 3},
		{"not a rule that is understood", []string{"", "-j", "-m comment --comment"}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := placement(tt.rules); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
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
			[]string{"made chain SELVAGE-FWD with 2 rules", "added the jump from FORWARD to SELVAGE-FWD at its end"}},
		{"chain flushed", on, state{parent: []string{jump}, exists: true}, fill,
			[]string{"set chain SELVAGE-FWD to its 2 rules, it held 0 that differ in part or all"}},
		{"rules in another order", on, state{parent: []string{jump}, exists: true, rules: []string{on.rules[1], on.rules[0]}}, fill,
			[]string{"set chain SELVAGE-FWD to its 2 rules, it held 2 that differ in part or all"}},
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
