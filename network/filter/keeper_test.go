package filter

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/nft"
)

// TestNFTables sets one policy after the other, without any iptables.
func TestNFTables(t *testing.T) {
	h := newHost(t, "none")
	h.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet})
	h.AddTable(&nftables.Table{Name: Table, Family: nftables.TableFamilyIPv4})
	h.Commit()
	before := h.Listing()
	several := wishing(nil)
	several.Networks = append(several.Networks, prefixes("10.6.0.0/16", "10.5.0.0/16", "192.168.0.0/16", "fd00:6::/48")...)
	several.RandomFully = false
	four := wishing(nil)
	four.Networks, four.Own = four.Networks[:1], four.Own[:1]
	for i, p := range []Policy{wishing(nil), several, four, wishing(yes())} {
		if changed := h.ensure(p); i < 3 && len(changed) != 1 {
			t.Errorf("policy %d changed %q", i, changed)
		}
		h.wants(p, NFTables, "", "nftables")
		h.restart()
		h.ensure(p)
		h.wants(p, NFTables, "", "nftables")
	}
	off := wishing(nil)
	off.Masquerade = false
	for _, p := range []Policy{off, {}} {
		h.ensure(wishing(nil))
		if changed := h.ensure(p); len(changed) != 1 {
			t.Errorf("wanting nothing changed %q", changed)
		}
		h.wants(p, NFTables, "")
		h.Same(before)
	}
}

// TestNFTablesRepair does to the table what others do, and looks that just that is mended.
func TestNFTablesRepair(t *testing.T) {
	h := newHost(t, "none")
	table := &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}
	chain := wishing(nil).content().Chains[0].In(table)
	networks := wishing(nil).content().Sets[0].In(table, 0)
	h.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet})
	h.Commit()
	h.ensure(wishing(nil))
	right := others(h.Listing())
	for name, harm := range map[string]func(){
		"table deleted": func() { h.DelTable(table) },
		"chain flushed": func() { h.FlushChain(chain) },
		"chain deleted": func() { h.FlushChain(chain); h.DelChain(chain) },
		"rule deleted":  func() { _ = h.DelRule(h.RulesOf(table, postroutingChain)[2]) },
		"rule added":    func() { h.Append(chain, &expr.Verdict{Kind: expr.VerdictAccept}) },
		"set flushed":   func() { h.FlushSet(networks) },
		"range added": func() {
			_ = h.SetAddElements(networks, nft.In(nft.Families()[0].Intervals(prefixes("192.168.0.0/16"))))
		},
		"range added to our subnets": func() {
			_ = h.SetAddElements(wishing(nil).content().Sets[1].In(table, 0), nft.In(nft.Families()[0].Intervals(prefixes("192.0.0.0/4"))))
		},
		"random no more": func() {
			r := h.RulesOf(table, postroutingChain)[3]
			r.Exprs[len(r.Exprs)-1] = &expr.Masq{}
			h.ReplaceRule(r)
		},
		"at another hook": func() {
			h.FlushChain(chain)
			h.DelChain(chain)
			h.Base(table, postroutingChain, nftables.ChainHookPostrouting, nftables.ChainPolicyAccept)
		},
		"table asleep": func() { h.Sleep(table) },
	} {
		t.Run(name, func(t *testing.T) {
			h.t, h.T = t, t
			harm()
			h.Commit()
			if changed := h.ensure(wishing(nil)); len(changed) != 1 {
				t.Errorf("changed %q", changed)
			}
			h.wants(wishing(nil), NFTables, "", "nftables")
			if got := others(h.Listing()); got != right {
				t.Errorf("others hold\n%s\nand held\n%s", got, right)
			}
		})
	}
	h.t, h.T = t, t
	h.FlushRuleset()
	h.Commit()
	if changed := h.ensure(wishing(nil)); len(changed) != 1 {
		t.Errorf("after all was flushed, changed %q", changed)
	}
	h.wants(wishing(nil), NFTables, "", "nftables")
}

// others leaves out what is ours.
func others(listing string) string {
	var all []string
	for line := range strings.Lines(listing) {
		if !strings.Contains(line, Table+`\x00`) {
			all = append(all, line)
		}
	}
	return strings.Join(all, "")
}

// TestUnsupported has the kernel refuse what it is asked for, by taking the right to it away.
func TestUnsupported(t *testing.T) {
	h := newHost(t, "legacy")
	err := h.ns.Do(func() error { // on a thread that ends with this
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		_, err := h.keeper.Ensure(t.Context(), wishing(yes()))
		return err
	})
	s := h.keeper.Status()
	// A program that root runs has all rights again.
	if err != nil || s.Mode != IPTables || !errors.Is(s.Unmet, nft.ErrUnsupported) || s.Unseen == nil {
		t.Errorf("without the right: %v, %+v", err, s)
	}
	// iptables is used for a while.
	h.ensure(wishing(yes()))
	h.wants(wishing(yes()), IPTables, "not supported", "legacy")
	h.keeper.retryAt = h.keeper.retryAt.Add(-retryInterval)
	h.ensure(wishing(yes()))
	h.wants(wishing(yes()), NFTables, "true", "nftables")
	if s := h.keeper.Status(); s.Unmet != nil {
		t.Errorf("the wish is met, and it says %v", s.Unmet)
	}
}

// TestDrops has somebody drop what we let pass, and stop it.
func TestDrops(t *testing.T) {
	h := newHost(t, "nft")
	drops := func(p Policy, contains ...string) {
		t.Helper()
		h.ensure(p)
		got := h.keeper.Status().Drops
		ok := len(got) == len(contains)
		for i := range contains {
			ok = ok && strings.Contains(got[i].String(), contains[i])
		}
		if !ok {
			t.Errorf("%q, want %q", got, contains)
		}
	}
	drops(wishing(nil))
	h.iptables("nft", "iptables -P FORWARD DROP")
	drops(wishing(nil)) // iptables it is, and our chain accepts
	drops(wishing(yes()), "table ip filter, chain FORWARD: policy drop")
	drops(wishing(no()))
	withoutForward := wishing(no())
	withoutForward.Forward = false
	drops(withoutForward, "table ip filter, chain FORWARD: policy drop")
	h.iptables("nft", "iptables -I FORWARD -s 10.5.0.0/16 -j REJECT")
	drops(wishing(no())) // our jump is put before
	h.iptables("nft", "iptables -P FORWARD ACCEPT", "iptables -D FORWARD -s 10.5.0.0/16 -j REJECT")
	fw := h.AddTable(&nftables.Table{Name: "fw", Family: nftables.TableFamilyINet})
	h.Base(fw, "forward", nftables.ChainHookForward, nftables.ChainPolicyDrop)
	h.Commit()
	for _, wish := range []*bool{yes(), no(), nil} {
		drops(wishing(wish), "table inet fw, chain forward: policy drop, and no rule in it accepts 10.5.0.0/16", "accepts fd00:5::/56")
	}
	h.DelTable(fw)
	h.Commit()
	h.iptables("legacy", "iptables -P FORWARD DROP")
	drops(wishing(nil), "legacy iptables, table filter, chain FORWARD")
	h.iptables("legacy", "iptables -P FORWARD ACCEPT")
	drops(wishing(nil))
}

// TestConcurrentKeepers has several daemons and several callers of each set rules at the same time.
func TestConcurrentKeepers(t *testing.T) {
	h := newHost(t, "none")
	keepers := []*Keeper{h.keeper, NewKeeper(), NewKeeper()}
	var wait sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		wait.Go(func() {
			errs[i] = h.ns.Do(func() error {
				_, err := keepers[i%len(keepers)].Ensure(context.Background(), wishing(nil))
				return err
			})
		})
	}
	wait.Wait()
	for _, k := range keepers {
		defer k.Close()
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	h.wants(wishing(nil), NFTables, "", "nftables")
}
