package fastpath

import (
	"maps"
	"slices"
	"testing"
)

func TestPlan(t *testing.T) {
	right := State{Program: 1, Pinned: true, Last: true}
	all := func(state State, interfaces ...int) map[Attachment]State {
		m := map[Attachment]State{}
		for _, i := range interfaces {
			m[Attachment{i, FromPod}] = state
			m[Attachment{i, LearnReceived}] = state
		}
		return m
	}
	both := func(i int) []Attachment { return []Attachment{{i, LearnReceived}, {i, FromPod}} }
	tests := []struct {
		name        string
		want, have  map[Attachment]State
		set, remove []Attachment
	}{
		{name: "in sync", want: all(right, 2, 3), have: all(right, 2, 3)},
		{name: "nothing", want: nil, have: nil},
		{name: "all missing", want: all(right, 2), set: both(2)},
		{name: "another program", want: all(right, 2), have: all(State{2, true, true}, 2), set: both(2)},
		{name: "not pinned", want: all(right, 2), have: all(State{1, false, true}, 2), set: both(2)},
		{name: "not last", want: all(right, 2), have: all(State{1, true, false}, 2), set: both(2)},
		{name: "an interface too many", want: all(right, 2), have: all(right, 2, 3),
			remove: []Attachment{{3, FromPod}, {3, LearnReceived}}},
		{name: "another interface", want: all(right, 3), have: all(right, 2), set: both(3),
			remove: []Attachment{{2, FromPod}, {2, LearnReceived}}},
	}
	for _, tt := range tests {
		set, remove := Plan(tt.want, tt.have)
		if !slices.Equal(set, tt.set) || !slices.Equal(remove, tt.remove) {
			t.Errorf("%s: set %v, remove %v, want %v and %v", tt.name, set, remove, tt.set, tt.remove)
		}
		after := maps.Clone(tt.have)
		if after == nil {
			after = map[Attachment]State{}
		}
		for _, a := range remove {
			delete(after, a)
		}
		for _, a := range set {
			after[a] = tt.want[a]
		}
		if set, remove = Plan(tt.want, after); len(set)+len(remove) > 0 {
			t.Errorf("%s: afterwards, set %v, remove %v", tt.name, set, remove)
		}
	}
}

// TestOrder: learning programs come first and go last.
func TestOrder(t *testing.T) {
	var p Path
	want := map[Attachment]State{}
	for i, role := range []Role{Port, Uplink, Device} {
		for _, program := range role.Programs() {
			want[Attachment{i + 1, program}] = State{Pinned: p.pins != ""}
		}
	}
	order := []Attachment{{1, LearnReceived}, {2, LearnSent}, {3, FromDevice}, {2, FromWire}, {1, FromPod}}
	if set, _ := Plan(want, nil); !slices.Equal(set, order) {
		t.Errorf("set in the order %v, want %v", set, order)
	}
	slices.Reverse(order)
	if _, remove := Plan(nil, want); !slices.Equal(remove, order) {
		t.Errorf("removed in the order %v, want %v", remove, order)
	}
}

func TestReasonNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reason(reasons) {
		name := r.String()
		if name == "" || seen[name] {
			t.Errorf("reason %d has the name %q, which is none or another's", r, name)
		}
		seen[name] = true
	}
	if got := Reason(reasons).String(); got != "unknown_reason" {
		t.Errorf("a reason that does not exist is %q", got)
	}
}
