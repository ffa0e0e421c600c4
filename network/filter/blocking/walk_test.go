package blocking

import (
	"fmt"
	"testing"
)

// arriving are packets from the overlay to this node's pods; nobody knows the bridge.
func arriving() Packets {
	return Packets{From: prefixes("10.5.0.0/16")[0], To: prefixes("10.5.29.0/24")[0], In: []string{"flannel.1"}}
}

func TestHolds(t *testing.T) {
	both := arriving()
	both.In = []string{"flannel.1", "eth0"}
	six := Packets{From: prefixes("fd00:5::/32")[0], To: prefixes("fd00:5:1d::/48")[0]}
	in := func(list ...string) (all []span) {
		for _, p := range prefixes(list...) {
			all = append(all, spanOf(p))
		}
		return all
	}
	for _, tt := range []struct {
		c    condition
		p    Packets
		want truth
	}{
		{condition{}, arriving(), perhaps},
		{condition{Not: true}, arriving(), perhaps},
		{condition{Field: nothing}, arriving(), always},
		{condition{Field: source, Spans: in("10.5.0.0/16")}, arriving(), always},
		{condition{Field: source, Spans: in("10.5.0.0/16"), Not: true}, arriving(), never},
		{condition{Field: source, Spans: in("10.0.0.0/8")}, arriving(), always},
		{condition{Field: source, Spans: in("10.5.3.0/24")}, arriving(), perhaps},
		{condition{Field: source, Spans: in("10.5.3.0/24"), Not: true}, arriving(), perhaps},
		{condition{Field: source, Spans: in("172.17.0.0/16")}, arriving(), never},
		{condition{Field: source, Spans: in("172.17.0.0/16"), Not: true}, arriving(), always},
		{condition{Field: source, Spans: in("fd00::/8")}, arriving(), perhaps},
		{condition{Field: source}, arriving(), never},
		{condition{Field: target, Spans: in("192.0.2.0/24", "10.5.0.0/16")}, arriving(), always},
		{condition{Field: target, Spans: in("fd00::/8")}, six, always},
		{condition{Field: inName, Names: []string{"flannel.1"}}, arriving(), always},
		{condition{Field: inName, Names: []string{"flannel*"}}, arriving(), always},
		{condition{Field: inName, Names: []string{"eth0"}}, arriving(), never},
		{condition{Field: inName, Names: []string{"eth0"}, Not: true}, arriving(), always},
		{condition{Field: inName, Names: []string{"eth0"}}, both, perhaps},
		{condition{Field: inName, Names: []string{"eth0", "flannel.1"}}, both, always},
		{condition{Field: outName, Names: []string{"cni0"}}, arriving(), perhaps},
		{condition{Field: outName, Names: []string{"*"}}, arriving(), always},
		{condition{Field: outName, Names: []string{"lo"}}, arriving(), never},
		{condition{Field: family, Values: []uint32{2}}, arriving(), always},
		{condition{Field: family, Values: []uint32{2}}, six, never},
		{condition{Field: family, Values: []uint32{2, 10}}, six, always},
		{condition{Field: protocols, Values: []uint32{17, 1}}, arriving(), never},
		{condition{Field: protocols, Values: []uint32{6}}, arriving(), always},
		{condition{Field: states, Mask: 6}, arriving(), never},
		{condition{Field: states, Mask: 8}, arriving(), always},
		{condition{Field: states, Mask: 8, Not: true}, arriving(), never},
		{condition{Field: statuses, Mask: 0x20}, arriving(), never},
		{condition{Field: statuses, Mask: 0x22}, arriving(), perhaps},
	} {
		if got := tt.c.holds(tt.p); got != tt.want {
			t.Errorf("%+v for %v: %d, want %d", tt.c, tt.p.From, got, tt.want)
		}
	}
}

func TestWalk(t *testing.T) {
	yes, no, maybe := condition{Field: nothing}, condition{Field: nothing, Not: true}, condition{}
	r := func(k kind, c ...condition) rule { return rule{Kind: k, Conditions: c} }
	to := func(k kind, chain string, c ...condition) rule { return rule{Kind: k, To: chain, Conditions: c} }
	for _, tt := range []struct {
		name   string
		chains map[string][]rule
		want   string // accepted, dropped, through, and by what in which chain
	}{
		{"empty", map[string][]rule{"a": {}}, "false false true "},
		{"accept", map[string][]rule{"a": {r(accept), r(drop)}}, "true false false 1 a"},
		{"drop", map[string][]rule{"a": {r(drop), r(accept)}}, "false true false 1 a"},
		{"conditions that do not hold", map[string][]rule{"a": {r(accept, yes, no), r(drop, maybe, no)}}, "false false true "},
		{"conditions that hold", map[string][]rule{"a": {r(next), r(drop, yes, yes)}}, "false true false 2 a"},
		{"perhaps accepted", map[string][]rule{"a": {r(accept, yes, maybe), r(drop)}}, "true true false 2 a"},
		{"perhaps dropped", map[string][]rule{"a": {r(drop, maybe)}}, "false true true "},
		{"back", map[string][]rule{"a": {r(ret), r(drop)}}, "false false true 1 a"},
		{"perhaps back", map[string][]rule{"a": {r(ret, maybe), r(drop)}}, "false true true 2 a"},
		{"anything", map[string][]rule{"a": {r(anything)}}, "true true true "},
		{"anything, not met", map[string][]rule{"a": {r(anything, no)}}, "false false true "},
		{"called, accepts", map[string][]rule{"a": {to(jump, "b"), r(drop)}, "b": {r(accept)}}, "true false false 1 b"},
		{"called, drops", map[string][]rule{"a": {to(jump, "b"), r(accept)}, "b": {r(next), r(drop)}}, "false true false 2 b"},
		{"called, returns", map[string][]rule{"a": {to(jump, "b"), r(drop)}, "b": {r(ret), r(accept)}}, "false true false 2 a"},
		{"called, ends", map[string][]rule{"a": {to(jump, "b"), r(drop)}, "b": {}}, "false true false 2 a"},
		{"called perhaps, accepts", map[string][]rule{"a": {to(jump, "b", maybe), r(drop)}, "b": {r(accept)}}, "true true false 2 a"},
		{"called, perhaps accepts", map[string][]rule{"a": {to(jump, "b"), r(drop)}, "b": {r(accept, maybe)}}, "true true false 2 a"},
		{"gone, ends", map[string][]rule{"a": {to(tailCall, "b"), r(drop)}, "b": {}}, "false false true 1 a"},
		{"gone, drops", map[string][]rule{"a": {to(tailCall, "b"), r(accept)}, "b": {r(drop)}}, "false true false 1 b"},
		{"gone perhaps", map[string][]rule{"a": {to(tailCall, "b", maybe), r(drop)}, "b": {}}, "false true true 2 a"},
		{"gone within a call", map[string][]rule{"a": {to(jump, "b"), r(drop)}, "b": {to(tailCall, "c"), r(accept)}, "c": {}}, "false true false 2 a"},
		{"unknown chain", map[string][]rule{"a": {to(jump, "b"), r(drop)}}, "true true false 2 a"},
		{"a loop", map[string][]rule{"a": {to(jump, "a"), r(drop)}}, "true true false 2 a"},
	} {
		f := walk(arriving(), "a", 0, func(chain string) ([]rule, bool) {
			rules, ok := tt.chains[chain]
			for i := range rules {
				rules[i].Text = fmt.Sprint(i + 1)
			}
			return rules, ok
		})
		got := fmt.Sprint(f.accepted, f.dropped, f.through, " ")
		if f.by != "" {
			got += f.by + " " + f.chain
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
