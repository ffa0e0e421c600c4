package backend_test

import (
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
)

// TestStages: the stages follow each other, each under a name of its own, and the last one leads back to the first.
func TestStages(t *testing.T) {
	names := map[string]bool{}
	s := backend.Still
	for range backend.Ending + 1 {
		names[s.String()] = true
		s = s.Next()
	}
	if s != backend.Still || len(names) != int(backend.Ending)+1 {
		t.Errorf("after all stages comes %q; their names are %v", s, names)
	}
}

// TestWorks: packets arrive by some ways once all of them have answered, and what one Rotation learns does not change
// another that the kernel's state may still be made of.
func TestWorks(t *testing.T) {
	way := func(link string) (w backend.Way) {
		w.Key = network.AllowedIPKey{Link: link}
		return w
	}
	ways := []backend.Way{way("flannel-wg"), way("flannel-wg-v6")}
	var none backend.Rotation
	one := none.With(ways[:1])
	both := one.With(ways[1:])
	if none.Works(ways) || one.Works(ways) || !both.Works(ways) {
		t.Errorf("with no, one and both answers: %t, %t, %t", none.Works(ways), one.Works(ways), both.Works(ways))
	}
	if !one.Works(ways[:1]) || !none.Works(nil) {
		t.Error("a way that has answered does not count, or an answer is wanted where there is no way")
	}
}
