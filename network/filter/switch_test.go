package filter

import (
	"strings"
	"testing"

	"github.com/google/nftables"
)

// TestSwitch goes from either mode to the other as the network config changes, with either iptables.
func TestSwitch(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			h := newHost(t, variant)
			h.iptables("nft", "iptables -A FORWARD -i eth9 -j ACCEPT")
			for i, step := range []struct {
				wish *bool
				mode Mode
				why  string
				by   string
			}{
				{no(), IPTables, "EnableNFTables is false", variant}, {yes(), NFTables, "EnableNFTables is true", "nftables"},
				{no(), IPTables, "false", variant}, {nil, NFTables, "it works here", "nftables"}, {yes(), NFTables, "true", "nftables"},
			} {
				if changed := h.ensure(wishing(step.wish)); len(changed) == 0 && i < 4 {
					t.Errorf("step %d changed nothing", i)
				}
				h.wants(wishing(step.wish), step.mode, step.why, step.by)
			}
			h.ensure(wishing(no()))
			h.restart()
			h.ensure(wishing(yes()))
			h.wants(wishing(yes()), NFTables, "true", "nftables")
			h.restart()
			h.ensure(wishing(no()))
			h.wants(wishing(no()), IPTables, "false", variant)
			if !strings.Contains(h.Run("iptables-nft", "-S", "FORWARD"), "-A FORWARD -i eth9 -j ACCEPT") {
				t.Error("somebody else's rule is gone")
			}
		})
	}
}

// TestSwitchVariant has an earlier run's rules be in the other variant of iptables.
func TestSwitchVariant(t *testing.T) {
	for _, variants := range [][2]string{{"nft", "legacy"}, {"legacy", "nft"}} {
		h := newHost(t, variants[1])
		h.iptables(variants[0],
			"iptables -N SELVAGE-FWD", "iptables -A SELVAGE-FWD -j ACCEPT", "iptables -A FORWARD -j SELVAGE-FWD",
			"iptables -t nat -N SELVAGE-POSTRTG", "iptables -t nat -A POSTROUTING -j SELVAGE-POSTRTG", "ip6tables -t nat -N SELVAGE-POSTRTG")
		h.ensure(wishing(no()))
		h.wants(wishing(no()), IPTables, "", variants[1])
	}
}

// TestChoice lets the keeper choose.
func TestChoice(t *testing.T) {
	for _, tt := range []struct {
		name, variant string
		rules         []string // "nft iptables -A …"
		mode          Mode
		by            string
		drops         int
	}{
		{"nothing else", "nft", nil, NFTables, "nftables", 0},
		{"legacy, no rules", "legacy", []string{"legacy iptables -L"}, NFTables, "nftables", 0},
		{"legacy, in use", "legacy", []string{"legacy iptables -A INPUT -p tcp -j ACCEPT"}, IPTables, "legacy", 0},
		{"legacy, in use for IPv6", "legacy", []string{"legacy ip6tables -t mangle -N THEIRS"}, IPTables, "legacy", 0},
		{"legacy, a policy", "legacy", []string{"legacy iptables -P FORWARD DROP"}, IPTables, "legacy", 0},
		{"legacy, of ours and flannel's alone", "legacy", []string{"legacy iptables -t nat -N SELVAGE-POSTRTG", "legacy iptables -t nat -A POSTROUTING -j SELVAGE-POSTRTG",
			"legacy iptables -N FLANNEL-FWD", "legacy iptables -A FORWARD -j FLANNEL-FWD"}, NFTables, "nftables", 0},
		{"a policy", "nft", []string{"nft iptables -P FORWARD DROP"}, IPTables, "nft", 0},
		{"a policy, of IPv6", "nft", []string{"nft ip6tables -P FORWARD DROP"}, IPTables, "nft", 0},
		{"a policy, that flannel's chain undid", "nft", []string{"nft iptables -P FORWARD DROP", "nft iptables -N FLANNEL-FWD",
			"nft iptables -A FLANNEL-FWD -s 10.5.0.0/16 -j ACCEPT", "nft iptables -A FORWARD -j FLANNEL-FWD"}, IPTables, "nft", 0},
		{"a policy, of the other variant", "legacy", []string{"nft iptables -P FORWARD DROP"}, NFTables, "nftables", 1},
		{"a policy, and no iptables", "none", []string{"by nft-tables"}, NFTables, "nftables", 1},
		{"a policy that spares us", "nft", []string{"nft iptables -P FORWARD DROP", "nft iptables -A FORWARD -s 10.0.0.0/8 -j ACCEPT"}, NFTables, "nftables", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.variant)
			for _, r := range tt.rules {
				if r == "by nft-tables" {
					h.Base(h.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}), "FORWARD", nftables.ChainHookForward, nftables.ChainPolicyDrop)
					h.Commit()
					continue
				}
				variant, rule, _ := strings.Cut(r, " ")
				h.iptables(variant, rule)
			}
			h.ensure(wishing(nil))
			h.wants(wishing(nil), tt.mode, "", tt.by)
			if s := h.keeper.Status(); len(s.Drops) != tt.drops || s.Unmet != nil || s.Unseen != nil || len(s.Left) > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestChoiceFollows has what speaks for iptables come and go.
func TestChoiceFollows(t *testing.T) {
	h := newHost(t, "nft")
	for range 2 {
		h.ensure(wishing(nil))
		h.wants(wishing(nil), NFTables, "it works here", "nftables")
		h.iptables("nft", "iptables -P FORWARD DROP")
		h.ensure(wishing(nil))
		h.wants(wishing(nil), IPTables, "table ip filter, chain FORWARD drops", "nft")
		h.iptables("nft", "iptables -P FORWARD ACCEPT")
		h.ensure(wishing(nil))
	}
	h.wants(wishing(nil), NFTables, "it works here", "nftables")
	forwardNothing := wishing(nil)
	forwardNothing.Forward = false
	h.iptables("nft", "iptables -P FORWARD DROP")
	h.ensure(forwardNothing)
	h.wants(forwardNothing, NFTables, "it works here", "nftables")
}
