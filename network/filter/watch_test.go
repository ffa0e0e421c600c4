package filter

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// TestWatch makes changes with iptables-nft, each under a subscription of its own, and waits for the news.
func TestWatch(t *testing.T) {
	defer goleak.VerifyNone(t)
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	program, err := lookUp("iptables-nft") // an ordinary user's PATH lacks sbin
	if err != nil {
		t.Fatal(err)
	}
	iptables := func(args ...string) func() error {
		return func() error { return exec.Command(program, args...).Run() }
	}
	var k *Keeper
	ensure := func(wish bool) func() error {
		return func() error {
			_, err := k.Ensure(t.Context(), Policy{
				Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Forward: true, Masquerade: true, NFTables: &wish,
			})
			return err
		}
	}
	f := nfttest.New(t, ns)
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	for _, change := range []struct {
		what string
		mode Mode // of the keeper
		do   func() error
	}{
		{"our own rules", NFTables, ensure(false)},
		{"our chain flushed", IPTables, iptables("-F", ForwardChain)},
		{"FORWARD flushed", IPTables, iptables("-F", "FORWARD")},
		{"a rule put first", IPTables, iptables("-I", "FORWARD", "-j", "DROP")},
		{"a rule deleted", IPTables, iptables("-D", "FORWARD", "-j", "DROP")},
		{"nat flushed", IPTables, iptables("-t", "nat", "-F")},
		{"our chain flushed, by nftables", NFTables, func() error { f.FlushTable(table); return f.Flush() }},
		{"our set flushed", NFTables, func() error {
			f.FlushSet(&nftables.Set{Table: table, Name: networksSet(nft.Families()[0])})
			return f.Flush()
		}},
		{"our table deleted", NFTables, func() error { f.DelTable(table); return f.Flush() }},
		{"all deleted", NFTables, func() error { f.FlushRuleset(); return f.Flush() }},
	} {
		k = NewKeeper()
		if err := ns.Do(ensure(change.mode == NFTables)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ready, news, done := make(chan struct{}), make(chan struct{}, 1), make(chan error, 1)
		var stirred atomic.Bool
		go func() {
			done <- ns.Do(func() error {
				return k.Watch(ctx, func() { close(ready) }, func() {
					select {
					case news <- struct{}{}:
					default:
					}
				}, func() { stirred.Store(true) })
			})
		}()
		<-ready
		if err := ns.Do(change.do); err != nil {
			t.Errorf("%s: %v", change.what, err)
		} else {
			select {
			case <-news:
			case <-time.After(patient):
				t.Errorf("no news of %s", change.what)
			}
			if !stirred.Load() {
				t.Errorf("%s did not stir", change.what)
			}
		}
		cancel()
		if err := errors.Join(<-done, k.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestWatchOwn has a keeper change its own table, and somebody else another: neither concerns it.
func TestWatchOwn(t *testing.T) {
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	k := NewKeeper()
	defer k.Close()
	yes := true
	ensure := func(network string) {
		t.Helper()
		p := Policy{Networks: []netip.Prefix{netip.MustParsePrefix(network)}, Masquerade: true, NFTables: &yes}
		if err := ns.Do(func() error { _, err := k.Ensure(t.Context(), p); return err }); err != nil {
			t.Fatal(err)
		}
	}
	ensure("10.5.0.0/16")
	ctx, cancel := context.WithCancel(t.Context())
	ready, stirred, done := make(chan struct{}), make(chan struct{}, 1000), make(chan error, 1)
	var changed atomic.Int64
	go func() {
		done <- ns.Do(func() error {
			return k.Watch(ctx, func() { close(ready) }, func() { changed.Add(1) }, func() { stirred <- struct{}{} })
		})
	}()
	<-ready
	ensure("10.6.0.0/16")
	f := nfttest.New(t, ns)
	f.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet})
	f.Commit()
	select {
	case <-stirred:
	case <-time.After(patient):
		t.Error("somebody else's change was not told")
	}
	cancel()
	if err := <-done; err != nil || changed.Load() > 0 || len(stirred) > 0 {
		t.Errorf("%d of our own changes were told, and %d stirred: %v", changed.Load(), len(stirred), err)
	}
}

func TestConcerns(t *testing.T) {
	const inet, ip, ip6 = nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6
	const newTable, newChain, newRule, delRule, newSet = unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE, unix.NFT_MSG_NEWSET
	for _, tt := range []struct {
		name               string
		n                  nft.Event
		nftables, iptables bool
	}{
		{"rule in our chain", nft.Event{Type: newRule, Family: ip, Table: "filter", Chain: ForwardChain}, false, true},
		{"rule in our chain, IPv6", nft.Event{Type: delRule, Family: ip6, Table: "nat", Chain: MasqueradeChain}, false, true},
		{"rule in FORWARD", nft.Event{Type: newRule, Family: ip, Table: "filter", Chain: "FORWARD"}, false, true},
		{"rule in INPUT", nft.Event{Type: newRule, Family: ip, Table: "filter", Chain: "INPUT"}, false, false},
		{"rule in another table", nft.Event{Type: newRule, Family: ip, Table: "mangle", Chain: "FORWARD"}, false, false},
		{"rule in kube-proxy's chain", nft.Event{Type: newRule, Family: ip, Table: "nat", Chain: "KUBE-SERVICES"}, false, false},
		{"family inet", nft.Event{Type: newRule, Family: inet, Table: "filter", Chain: "FORWARD"}, false, false},
		{"our chain", nft.Event{Type: newChain, Family: ip, Table: "nat", Chain: MasqueradeChain}, false, true},
		{"another chain", nft.Event{Type: newChain, Family: ip, Table: "nat", Chain: "DOCKER"}, false, false},
		{"a table", nft.Event{Type: newTable, Family: ip, Table: "nat"}, false, true},
		{"another table", nft.Event{Type: newTable, Family: ip, Table: "raw"}, false, false},
		{"a set", nft.Event{Type: newSet, Family: ip, Table: "filter"}, false, false},
		{"our table", nft.Event{Type: newTable, Family: inet, Table: Table}, true, false},
		{"a set of ours", nft.Event{Type: newSet, Family: inet, Table: Table}, true, false},
		{"our table's name in another family", nft.Event{Type: newTable, Family: ip, Table: Table}, false, false},
		{"our other table", nft.Event{Type: newTable, Family: inet, Table: "selvage-vtep"}, false, false},
	} {
		for m, want := range map[Mode]bool{NFTables: tt.nftables, IPTables: tt.iptables, "": tt.nftables || tt.iptables} {
			if got := concerns(tt.n, m, ""); got != want {
				t.Errorf("%s, mode %q: %v, want %v", tt.name, m, got, want)
			}
		}
	}
}
