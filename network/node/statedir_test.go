package node

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

func mustOpenState(t *testing.T, dir, prefix string) *stateDir {
	t.Helper()
	s, err := openStateDir(dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// TestStateDirOfTwoNetworks: two daemons get the same directory. Each has its own in the end, also after a restart in
// another order, and a second daemon of one network is refused.
func TestStateDirOfTwoNetworks(t *testing.T) {
	dir := t.TempDir()
	first, second := mustOpenState(t, dir, ""), mustOpenState(t, dir, "/second")
	if first.path != dir || first.moved != "" || !strings.HasPrefix(second.path, dir+"/second-") || second.moved == "" {
		t.Fatalf("%+v, %+v", first, second)
	}
	if err := (&identity{InstanceID: randomID()}).save(second.path); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "/second", "/second/"} {
		if s, err := openStateDir(dir, prefix); err == nil || !strings.Contains(err.Error(), "another selvaged (process ") {
			t.Errorf("another daemon with the prefix %q: %+v, %v", prefix, s, err)
		}
	}
	first.close()
	second.close()
	again := mustOpenState(t, dir, "/second")
	if again.path != second.path || again.unbound {
		t.Errorf("after a restart %+v, want %s", again, second.path)
	}
	if got := StateDir(dir, "/second"); got != second.path {
		t.Errorf("other commands use %s, want %s", got, second.path)
	}
	if got := StateDir(dir, ""); got != dir {
		t.Errorf("other commands use %s, want %s", got, dir)
	}
	if all := BoundStates(dir); len(all) != 2 || all[1].Prefix != "/second" || all[1].Dir != second.path {
		t.Errorf("%+v", all)
	}
}

// TestStateDirBinding: what an earlier version left is taken over; networks and VNIs are remembered until they are
// settled; and a store that is reached by other addresses is noticed.
func TestStateDirBinding(t *testing.T) {
	dir := t.TempDir()
	if err := (&identity{InstanceID: randomID()}).save(dir); err != nil {
		t.Fatal(err)
	}
	s := mustOpenState(t, dir, "/second")
	if !s.unbound || s.path != dir {
		t.Fatalf("%+v", s)
	}
	old, now := network.NewScope("/second", 2), network.NewScope("/second", 3)
	nets := []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16"), netip.MustParsePrefix("10.7.0.0/16")}
	for _, err := range []error{s.use(old, nets[:1]), s.use(now, nets[1:]), s.reached(subnet.StoreEtcd, []string{"https://A:2379/", "b:2379"})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	s = mustOpenState(t, dir, "/second")
	if s.unbound || !slices.Equal(s.former(now), []network.Scope{old}) || !slices.Equal(s.binding.Networks, nets) {
		t.Errorf("%+v", s)
	}
	if s.elsewhere([]string{"http://a:2379"}) || !s.elsewhere([]string{"http://c:2379"}) || s.elsewhere(nil) {
		t.Error("the store's addresses are not compared")
	}
	if s.otherKind(subnet.StoreEtcd) != "" || s.otherKind("") != "" || s.otherKind(subnet.StoreKubernetes) != subnet.StoreEtcd {
		t.Errorf("the kinds of stores are not compared: %+v", s.binding)
	}
	if err := s.reached(subnet.StoreKubernetes, []string{"https://10.96.0.1:443"}); err != nil {
		t.Fatal(err)
	}
	s.close()
	s = mustOpenState(t, dir, "/second")
	if s.otherKind(subnet.StoreKubernetes) != "" || s.otherKind(subnet.StoreEtcd) != subnet.StoreKubernetes {
		t.Errorf("the kind of the store is not remembered: %+v", s.binding)
	}
	if err := s.settle(now, nets[1:]); err != nil || len(s.former(now)) > 0 || !slices.Equal(s.binding.Networks, nets[1:]) {
		t.Errorf("settled: %+v, %v", s, err)
	}
}

// TestStateDirNotWritten: what could not be saved is tried again, not taken for saved.
func TestStateDirNotWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := mustOpenState(t, dir, "/second")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, []byte("x"), 0o600); err != nil { // a file in the directory's place
		t.Fatal(err)
	}
	scope, nets := network.NewScope("/second", 2), []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16")}
	for range 2 {
		if s.use(scope, nets) == nil || s.reached("", []string{"a:2379"}) == nil {
			t.Fatal("saved in a directory that does not exist")
		}
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.use(scope, nets), s.reached("", []string{"a:2379"})); err != nil {
		t.Fatal(err)
	}
	b, ok := readBinding(dir)
	if !ok || !slices.Equal(b.VNIs, []uint32{2}) || !slices.Equal(b.Networks, nets) || len(b.Endpoints) != 1 {
		t.Errorf("%t, %+v", ok, b)
	}
}

func TestSubnetFileOfTwoDaemons(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	lock, err := holdSubnetFile(path, "/coreos.com/network")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holdSubnetFile(path, "/second"); err == nil || !strings.Contains(err.Error(), "network /coreos.com/network") {
		t.Errorf("the second daemon: %v", err)
	}
	lock.close()
	if lock, err = holdSubnetFile(path, "/second"); err != nil || SubnetFileOwner(path) != "/second" {
		t.Errorf("after the first has ended: %v, owner %q", err, SubnetFileOwner(path))
	}
	lock.close()
}

func TestPresence(t *testing.T) {
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	// Names of this test alone: others may run in the same network namespace.
	a, b := network.NewScope("/presence/a", 901), network.NewScope("/presence/b", 902)
	netA, netB := prefixes("100.64.0.0/24", "fd00:901::/32"), prefixes("100.64.1.0/24")
	var first, second, third presence
	defer first.close()
	defer second.close()
	defer third.close()
	if err := first.announce(a, netA); err != nil {
		t.Fatal(err)
	}
	if err := first.announce(a, netA); err != nil {
		t.Errorf("announced again: %v", err)
	}
	if err := third.announce(a, netA); err == nil || !strings.Contains(err.Error(), "keeps the network /presence/a (VNI 901) already") {
		t.Errorf("the same network: %v", err)
	}
	if err := third.announce(a, netB); err == nil {
		t.Error("the same network with other addresses is accepted")
	}
	if err := second.announce(b, prefixes("100.64.0.0/16")); err == nil || !strings.Contains(err.Error(), "overlaps 100.64.0.0/24") ||
		!strings.Contains(err.Error(), "/presence/a (VNI 901)") {
		t.Errorf("overlapping networks: %v", err)
	}
	if err := second.announce(b, netB); err != nil {
		t.Errorf("another network: %v", err)
	}
	if err := second.announce(b, prefixes("100.64.0.0/16")); err == nil {
		t.Error("a change of the config that overlaps is accepted")
	}
	if err := second.announce(b, prefixes("100.64.2.0/23")); err != nil {
		t.Errorf("a change of the config: %v", err)
	}
	first.close()
	if err := third.announce(a, prefixes("100.64.1.0/24")); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	all, err := Neighbours()
	if err != nil || !slices.ContainsFunc(all, func(n Neighbour) bool { return n.Tag == b.Tag() && n.Name == b.String() }) {
		t.Errorf("%+v, %v", all, err)
	}
}
