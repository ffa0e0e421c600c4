package network

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

var errRefused = errors.New("refused")

// TestFastPath: the programs are held like any other object, but traffic does not depend on them: what is missing is
// counted apart. Another fast path starts from nothing, and what it is given is no repair.
func TestFastPath(t *testing.T) {
	r, _ := newReconciler()
	key := ProgramKey{Link: "eth0", Program: "from_underlay"}
	peer := Item[netip.Prefix, FastPeer]{prefix("10.5.2.0/24"), FastPeer{Address: netip.MustParseAddr("192.0.2.2"), MAC: MAC{2}}}
	desired := State{
		Programs:  []Item[ProgramKey, Program]{{key, InForce()}},
		FastPeers: []Item[netip.Prefix, FastPeer]{peer},
	}
	var refuse error
	r.Tables.FastPeers.ApplyEach(func(netip.Prefix, Change[FastPeer]) error { return nil })
	r.Tables.Programs.ApplyEach(func(ProgramKey, Change[Program]) error { return refuse })
	now := start
	pass := func() Result { now = now.Add(time.Minute); return r.Pass(now) }

	r.Tables.Replace(self, State{}, desired)
	refuse = errRefused
	pass()
	if got := r.Tables.Counts()["program"]; !got.Optional || got.Pending != 1 {
		t.Errorf("a program that the kernel refuses is counted as %+v", got)
	}
	refuse = nil
	if got := pass(); got.Set != 1 || r.Tables.Pending() != 0 {
		t.Errorf("set %d, pending %d", got.Set, r.Tables.Pending())
	}

	for _, fault := range []Program{
		{Pinned: true, Last: true},    // of an earlier run
		{Current: true, Last: true},   // would end with this process
		{Current: true, Pinned: true}, // another program comes after it
	} {
		r.Tables.Programs.Observe(key, fault)
		if got := pass(); got.Repaired != 1 {
			t.Errorf("%+v: repaired %d, want it to be set again", fault, got.Repaired)
		}
	}

	r.Tables.FastPathGone()
	if got := r.Tables.Counts(); got["program"].Present != 0 || got["fast-peer"].Present != 0 {
		t.Errorf("another fast path has %+v", got)
	}
	if got := pass(); got.Set != 2 || got.Repaired != 0 {
		t.Errorf("set %d, of them repaired %d; want two, and none", got.Set, got.Repaired)
	}

	// A program goes with its device; a device that comes back has it again.
	r.Tables.Links.Observe("eth0", Link{Kind: "device"})
	r.Tables.LinkGone("eth0")
	if got := r.Tables.Programs.Get(key); got.Present {
		t.Error("a program is there without its device")
	}
	r.Tables.Replace(self, desired, State{})
	pass()
	if got := r.Tables.Counts(); got["program"].Present != 0 || got["fast-peer"].Present != 0 {
		t.Errorf("after the end: %+v", got)
	}
}

// TestProgramsAreLate: a program is neither set nor removed right after what traffic depends on was, since it would
// keep the kernel from setting the rest. It is then, by the time that the pass names.
func TestProgramsAreLate(t *testing.T) {
	r, _ := node(1)
	key := ProgramKey{Link: "eth0", Program: "from_pod"}
	r.Tables.FastPeers.ApplyEach(func(netip.Prefix, Change[FastPeer]) error { return nil })
	r.Tables.Programs.ApplyEach(func(ProgramKey, Change[Program]) error { return nil })
	fast := State{Programs: []Item[ProgramKey, Program]{{key, InForce()}}}
	now := start.Add(time.Hour)
	expect := func(what string, present bool, retry time.Time) {
		t.Helper()
		got := r.Pass(now)
		if there := r.Tables.Programs.Get(key).Present; there != present || got.Retry != retry {
			t.Errorf("%s: the program is there: %t, and the next pass at %s; want %t, %s",
				what, there, got.Retry, present, retry)
		}
	}
	replace := func(before, after State) { r.Tables.Replace(self, before, after) }

	replace(State{}, fast)
	expect("nothing else to do", true, time.Time{})
	for _, step := range []struct {
		what          string
		before, after State
		present       bool // after the wait
	}{
		{"removed", fast, State{}, false},
		{"set", State{}, fast, true},
	} {
		for route := range r.Tables.Routes.All {
			r.Tables.Routes.ObserveGone(route)
		}
		replace(step.before, step.after)
		late := now.Add(programsLate)
		expect(step.what+", with a route", !step.present, late)
		now = late.Add(-1)
		expect(step.what+", early", !step.present, late)
		now = late
		expect(step.what+", in time", step.present, time.Time{})
	}

	// Traffic that never rests is no reason to wait for ever.
	now = now.Add(time.Hour)
	most := now.Add(4 * programsLate)
	replace(fast, State{})
	for there := true; there; now = now.Add(programsLate / 3) {
		for route := range r.Tables.Routes.All {
			r.Tables.Routes.ObserveGone(route)
		}
		r.Pass(now)
		if there = r.Tables.Programs.Get(key).Present; there != now.Before(most) {
			t.Fatalf("%s before the end of the wait, the program is there: %t", most.Sub(now), there)
		}
	}
}
