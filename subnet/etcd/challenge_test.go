package etcd

import (
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet/storetest"
)

// TestManyQuestions: a node that is asked again and again does not write as often.
func TestManyQuestions(t *testing.T) {
	t.Parallel()
	_, o := cluster(t, shared.server.Endpoint())
	o.LeaseTTL = DefaultLeaseTTL
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	w.There(r.Name)
	h := startHold(t, s, r)
	began, answers := time.Now(), 0
	for range 300 {
		kv, err := s.get(t.Context(), r.Name)
		if err != nil || kv == nil {
			t.Fatal(kv, err)
		}
		if challengeOf(kv.Value) == "" {
			answers++
		}
		r.Version = kv.ModRevision
		value, err := withChallenge(kv.Value, "question")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.replaceValue(t.Context(), r, value); err != nil {
			t.Fatal(err)
		}
	}
	h.held()
	// The first pauses are short; after them, one answer every 0.4 s would begin with them again.
	if most := 8 + int(3*time.Since(began)/time.Second); answers == 0 || answers > most {
		t.Errorf("%d answers in %s, want %d at most", answers, time.Since(began), most)
	}
}
