package node

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
)

func ways(number int) (all []backend.Way) {
	for i := range number {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24)
		all = append(all, backend.Way{
			Key: network.AllowedIPKey{Link: "flannel-wg", Prefix: p}, Value: network.PublicKey{byte(i)},
		})
	}
	return all
}

// TestSchedule: a way works when two requests in a row were answered, each while it was the last one; what is known of a
// way is kept for as long as it is set.
func TestSchedule(t *testing.T) {
	var s schedule
	now := time.Unix(1_000_000, 0)
	if r, again := s.due(now); r != nil || !again.IsZero() {
		t.Errorf("%v, again %s, without ways", r, again)
	}
	way := ways(1)[0]
	s.set([]backend.Way{way})
	var last uint16
	ask := func(want string) {
		t.Helper()
		r, again := s.due(now)
		if len(r) != 1 || r[0].way != way || fmt.Sprint(r[0].to, r[0].hops) != want || !again.Equal(now.Add(trialInterval)) {
			t.Fatalf("%+v, again %s, want %s", r, again, want)
		}
		if early, _ := s.due(now.Add(trialInterval - 1)); early != nil {
			t.Errorf("%+v, too early", early)
		}
		last, now = r[0].seq, again
	}
	const own, elsewhere = 7, 8 // indices of interfaces
	index := func(string) int { return own }
	answered := func(seq uint16, link int) { s.answered(answer{seq, link}, index) }
	const echo, expires = "10.5.0.0 64", "10.5.0.254 1"
	ask(echo)
	answered(last, elsewhere)
	answered(last, elsewhere) // twice
	answered(last+7, elsewhere)
	ask(echo)
	ask(expires) // no answer to the last one
	answered(last-1, elsewhere)
	ask(expires)
	answered(last, elsewhere)
	if s.works(way) {
		t.Error("it works after one answer of the last two")
	}
	s.set([]backend.Way{way})
	ask(echo)
	answered(last, elsewhere)
	if !s.works(way) || s.works(ways(2)[1]) {
		t.Error("want one that works, and one that is not known")
	}
	if r, again := s.due(now); r != nil || !again.IsZero() {
		t.Errorf("%v, again %s, want no more", r, again)
	}
	s.set(nil)
	s.set([]backend.Way{way})
	if s.works(way) {
		t.Error("not forgotten")
	}
	s.mutual = true
	for _, link := range []int{own, elsewhere, own} { // an answer that came by another device begins anew
		ask(map[bool]string{true: echo, false: expires}[s.known[way].sent < trialsNeeded])
		answered(last, link)
	}
	if !s.arrives(way) || s.works(way) {
		t.Error("want a way that packets arrive by, and that the peer does not send by yet")
	}
	ask(expires)
	if answered(last, own); !s.works(way) {
		t.Error("it does not work although the last two answers came by it")
	}
}

// TestScheduleOfMany: ways are tried in bursts, each once an interval, and a number that is used again is of the later
// request.
func TestScheduleOfMany(t *testing.T) {
	var s schedule
	all := ways(200)
	s.set(all)
	now, seen := time.Unix(1_000_000, 0), map[backend.Way]int{}
	end := now.Add(10 * trialInterval)
	for now.Before(end) {
		r, again := s.due(now)
		if len(r) > trialBurst || !again.After(now) {
			t.Fatalf("%d requests, again after %s", len(r), again.Sub(now))
		}
		for _, x := range r {
			seen[x.way]++
		}
		now = again
	}
	for _, w := range all {
		if n := seen[w]; n < 8 || n > 10 {
			t.Errorf("%s was tried %d times in 10 intervals", w.Key.Prefix, n)
		}
	}
	for s.seq != 0 {
		r, again := s.due(now)
		if now = again; r == nil {
			t.Fatal("nothing is tried")
		}
	}
	if len(s.asked) > len(all) {
		t.Errorf("%d requests are remembered", len(s.asked))
	}
}
