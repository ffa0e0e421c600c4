package nft

import (
	"slices"
	"testing"

	"github.com/google/nftables/expr"
)

func jump(chain string) expr.Verdict { return expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

func TestKey(t *testing.T) {
	if got := Key([]byte{10, 5, 0, 1}, []byte{6}, []byte{0, 80}); got != "\x0a\x05\x00\x01\x06\x00\x00\x00\x00\x50\x00\x00" {
		t.Errorf("%q", got)
	}
}

func TestDifference(t *testing.T) {
	a, b, c := Element{Key: "a"}, Element{Key: "b"}, Element{Key: "c"}
	up, other := Element{Key: "b", Upper: "d"}, Element{Key: "b", Verdict: jump("x")}
	for _, tt := range []struct {
		name                    string
		want, have, add, remove []Element
	}{
		{"nothing", nil, nil, nil, nil},
		{"the same", []Element{b, a}, []Element{a, b, b}, nil, nil},
		{"more", []Element{a, b, c}, []Element{b}, []Element{a, c}, nil},
		{"fewer", []Element{b}, []Element{a, b, c}, nil, []Element{a, c}},
		{"others", []Element{a, c}, []Element{b}, []Element{a, c}, []Element{b}},
		{"another range", []Element{a, up}, []Element{a, b}, []Element{up}, []Element{b}},
		{"a range of one key", []Element{{Key: "b", Upper: "b"}}, []Element{b}, nil, nil},
		{"another verdict", []Element{a, other}, []Element{a, b}, []Element{other}, []Element{b}},
	} {
		want := slices.Clone(tt.want)
		add, remove := difference(normal(tt.want), normal(tt.have))
		if !slices.Equal(add, tt.add) || !slices.Equal(remove, tt.remove) {
			t.Errorf("%s: adds %v, removes %v", tt.name, add, remove)
		}
		if !slices.Equal(tt.want, want) {
			t.Errorf("%s: the caller's list was changed", tt.name)
		}
	}
}

// TestElements writes elements of each kind, and reads them.
func TestElements(t *testing.T) {
	c := policyContent(3)
	x := newTable(t, newNet(t))
	if _, err := x.Ensure(c, nil); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Sets {
		got, err := x.Elements(s.Name)
		if err != nil || len(got) == 0 || !slices.Equal(normal(got), normal(s.Elements)) {
			t.Errorf("%s: %v, want %v; %v", s.Name, got, s.Elements, err)
		}
	}
	if got, err := x.Elements("neverland"); err != nil || len(got) > 0 {
		t.Errorf("of a set that there is not: %v, %v", got, err)
	}
}

// FuzzElements takes any bytes for the kernel's list of elements.
func FuzzElements(f *testing.F) {
	var e encoder
	e.nest(3, func() {
		e.element(Element{Key: "abcd", Upper: "abce"}, false)
		e.element(Element{Key: "abcd", Verdict: jump("x")}, true)
		e.element(Element{}, false)
	})
	f.Add(string(e.b))
	f.Fuzz(func(t *testing.T, message string) { decodeElements(nil, message) })
}
