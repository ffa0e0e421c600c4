package vtepfilter

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/nft"
)

// many returns the addresses of so many peers, half of either family, in order; none of them is in a lab.
func many(n int) (all []netip.Addr) {
	for i := range n / 2 {
		all = append(all, netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}))
	}
	for i := range n - n/2 {
		all = append(all, netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 5: 0xff, 12: byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	return all
}

// TestManyPeers has 5,000 nodes with both families and some more.
func TestManyPeers(t *testing.T) {
	f := newFilter(t, newNet(t))
	all := many(12000)
	if _, err := f.Ensure(config(), slices.Values(all)); err != nil {
		t.Fatal(err)
	}
	whole(t, f, "made with them", all)
	for _, step := range []struct {
		what        string
		add, remove []netip.Addr
		want        []netip.Addr
	}{
		{"half of them removed", nil, all[6000:], all[:6000]},
		{"the same once more", nil, all[6000:], all[:6000]},
		{"exchanged", all[6000:], all[:6000], all[6000:]},
		{"all added", all, nil, all},
		{"one removed", nil, all[:1], all[1:]},
		{"one named twice", all[:1], []netip.Addr{all[1], all[1]}, slices.Concat(all[:1], all[2:])},
		{"all removed", nil, all, []netip.Addr{}},
	} {
		if err := f.Apply(step.add, step.remove); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		whole(t, f, step.what, step.want)
	}
}

// TestApplyFails has some of the changes impossible: the others are made.
func TestApplyFails(t *testing.T) {
	ns := newNet(t)
	f, other := newFilter(t, ns), newForeign(t, ns)
	all := many(20)
	for _, list := range [][2][]netip.Addr{{all, nil}, {nil, all}} {
		if err := f.Apply(list[0], list[1]); !errors.Is(err, ErrMissing) {
			t.Errorf("without a table: %v", err)
		}
	}
	if _, err := f.Ensure(config(), slices.Values(all)); err != nil {
		t.Fatal(err)
	}

	bad := []netip.Addr{{}, netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")}
	err := f.Apply(slices.Concat(bad[:2], many(30)), bad[2:])
	e, ok := errors.AsType[*ApplyError](err)
	if !ok || len(e.Failed) != len(bad) || !strings.Contains(err.Error(), "3 peers not set") {
		t.Errorf("with addresses of nobody's: %v", err)
	}
	if present, _ := read(t, f); !slices.Equal(present, many(30)) && len(present) != 35 {
		t.Errorf("with addresses of nobody's, the others are %v", present)
	}

	// Somebody makes a set of their own, with place for three.
	s := other.set(peersSet(nft.Families()[0]))
	other.FlushTable(other.table)
	other.DelSet(s)
	s.Size = 3
	if err := other.AddSet(s, nil); err != nil {
		t.Fatal(err)
	}
	other.Commit()
	batch := make([]network.Update[netip.Addr, struct{}], len(all))
	for i, a := range all {
		batch[i].Key, batch[i].Change.Wanted = a, i != 19
	}
	Update(f, batch)
	failed := 0
	for _, u := range batch {
		if u.Err != nil {
			failed++
		}
		if u.Err != nil && !errors.Is(u.Err, unix.ENFILE) {
			t.Errorf("%s: %v", u.Key, u.Err)
		}
	}
	if present, ok := read(t, f); ok || failed != 7 || len(present) < 3 || slices.Contains(present, all[19]) {
		t.Errorf("%d failed of ten for which there are three places; there are %v", failed, present)
	}
	// A set that is full ends an Apply before each of thousands has been tried.
	err = f.Apply(many(8000), nil)
	if e, ok := errors.AsType[*ApplyError](err); !ok || len(e.Failed) < 3997 || !errors.Is(err, unix.ENFILE) {
		t.Errorf("with a set that is full: %v", err)
	}
	if changed, err := f.Ensure(config(), slices.Values(all)); !changed || err != nil {
		t.Errorf("Ensure: %t, %v", changed, err)
	}
	Update(f, batch)
	for _, u := range batch {
		if u.Err != nil {
			t.Errorf("after Ensure, %s: %v", u.Key, u.Err)
		}
	}
}

// TestReadUnderway reads while somebody changes another table all the time.
func TestReadUnderway(t *testing.T) {
	ns := newNet(t)
	f, other := newFilter(t, ns), newForeign(t, ns)
	all := many(6000)
	if _, err := f.Ensure(config(), slices.Values(all)); err != nil {
		t.Fatal(err)
	}
	whole(t, f, "before", all)
	table := other.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet})
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			other.AddTable(table)
			other.DelTable(table)
			if err := other.Flush(); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 50 {
		if present, ok := read(t, f); !ok || !slices.Equal(present, all) {
			t.Errorf("%d peers, want %d; the table is right: %t", len(present), len(all), ok)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// whole waits until all peers that are to be there are read.
func whole(t *testing.T, f *Filter, what string, want []netip.Addr) {
	t.Helper()
	for deadline := time.Now().Add(patient); ; time.Sleep(time.Millisecond) {
		present, ok := read(t, f)
		if ok && slices.Equal(present, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d peers, want %d; the table is right: %t", what, len(present), len(want), ok)
		}
	}
}
