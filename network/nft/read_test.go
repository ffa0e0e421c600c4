package nft

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// TestRead reads what others have, what iptables made among it.
func TestRead(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	f.AddOthers(name)
	f.Run("iptables-nft", "-P", "FORWARD", "DROP")
	f.Run("iptables-nft", "-N", "THEIRS")
	f.Run("iptables-nft", "-A", "FORWARD", "-p", "tcp", "-m", "tcp", "--dport", "80", "-j", "THEIRS")
	f.Run("iptables-nft", "-A", "THEIRS", "-j", "REJECT")
	f.Sleep(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet})

	tables, err := x.Tables()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []TableInfo{{nftables.TableFamilyINet, "others", true}, {nftables.TableFamilyIPv4, "filter", false}, {nftables.TableFamilyIPv6, "filter", false}} {
		if !slices.Contains(tables, want) {
			t.Errorf("the tables are %v, and lack %v", tables, want)
		}
	}
	chains, err := x.Chains()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []ChainInfo{
		{nftables.TableFamilyIPv4, "filter", "FORWARD", true, unix.NF_INET_FORWARD, 0, nftables.ChainPolicyDrop, "filter", ""},
		{nftables.TableFamilyIPv4, "nat", "POSTROUTING", true, unix.NF_INET_POST_ROUTING, 100, nftables.ChainPolicyAccept, "nat", ""},
		{Family: nftables.TableFamilyIPv4, Table: "filter", Name: "THEIRS"},
	} {
		if !slices.Contains(chains, want) {
			t.Errorf("the chains are %v, and lack %v", chains, want)
		}
	}
	rules, err := x.Rules(nftables.TableFamilyIPv4, "filter", "FORWARD")
	if err != nil || len(rules) != 1 {
		t.Fatalf("%v, %v", rules, err)
	}
	if got := names(rules[0]); !strings.HasPrefix(got, "payload cmp ") && !strings.HasPrefix(got, "meta cmp ") || !strings.HasSuffix(got, " counter immediate") {
		t.Errorf("the rule reads as %s", got)
	}
	last := rules[0].Exprs[len(rules[0].Exprs)-1]
	if code, chain, ok := last.Verdict(); !ok || code != unix.NFT_JUMP || chain != "THEIRS" {
		t.Errorf("it ends in %d %s, %t", code, chain, ok)
	}
	if all, err := x.Rules(nftables.TableFamilyIPv4, "filter", ""); err != nil || len(all) != 4 {
		t.Errorf("there are %d rules in all: %v", len(all), err)
	}
	if none, err := x.Rules(nftables.TableFamilyIPv4, "nowhere", ""); err != nil || len(none) > 0 {
		t.Errorf("of a table that there is not: %v, %v", none, err)
	}
	if sets, err := x.Sets(nftables.TableFamilyINet, "others"); err != nil || len(sets) != 1 || sets[0].Name != "peers-ipv4" {
		t.Errorf("sets: %v, %v", sets, err)
	}
}

// TestGeneration follows the changes of others.
func TestGeneration(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	var last uint32
	for n := range 4 {
		got, err := x.Generation()
		if err != nil || got == 0 || (got == last) != (n%2 == 1) {
			t.Errorf("step %d: %d, was %d, %v", n, got, last, err)
		}
		if last = got; n%2 == 1 {
			f.AddTable(f.table)
			f.Commit()
		}
	}
}

func names(r RuleInfo) string {
	var all []string
	for _, e := range r.Exprs {
		all = append(all, e.Name)
	}
	return strings.Join(all, " ")
}

// TestClear takes away a chain that is called from several places, and nothing else.
func TestClear(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	f.AddOthers(name)
	before := f.Listing()
	for _, rule := range []string{"-N GONE", "-N OTHER", "-A GONE -j OTHER", "-A GONE -j ACCEPT", "-A FORWARD -j GONE", "-I FORWARD -s 10.0.0.0/8 -g GONE"} {
		f.Run(append([]string{"iptables-nft"}, strings.Fields(rule)...)...)
	}
	for _, want := range []bool{true, false} {
		if done, err := x.Clear(nftables.TableFamilyIPv4, "filter", "GONE"); err != nil || done != want {
			t.Errorf("there was one: %t, %v, want %t", done, err, want)
		}
	}
	f.Run("iptables-nft", "-X", "OTHER")
	if chains := f.Run("iptables-nft", "-S", "FORWARD"); strings.TrimSpace(chains) != "-P FORWARD ACCEPT" {
		t.Errorf("FORWARD is now\n%s", chains)
	}
	if done, err := x.Clear(nftables.TableFamilyIPv6, "neverland", "GONE"); err != nil || done {
		t.Errorf("of a table that there is not: %t, %v", done, err)
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		f.AddTable(&nftables.Table{Name: "theirs", Family: family})
	}
	f.Commit()
	for range 2 {
		if err := x.RemoveTable(nftables.TableFamilyIPv6, "theirs"); err != nil {
			t.Error(err)
		}
	}
	if err := x.RemoveTable(nftables.TableFamilyIPv4, "theirs"); err != nil {
		t.Error(err)
	}
	// iptables made the chain FORWARD when it was asked for.
	f.DelChain(&nftables.Chain{Name: "FORWARD", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}})
	f.Commit()
	f.Same(before)
}
