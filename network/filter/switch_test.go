package filter

import (
	"os"
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
				{no(), IPTables, "false", variant}, {nil, NFTables, "supported", "nftables"}, {yes(), NFTables, "true", "nftables"},
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

// TestWishWithoutProgram wishes for iptables where there is none, before and after another wish: nftables does it, says so, and
// makes room once there is one.
func TestWishWithoutProgram(t *testing.T) {
	h := newHost(t, "none")
	for _, wish := range []*bool{no(), nil, no(), yes(), no()} {
		h.ensure(wishing(wish))
		h.wants(wishing(wish), NFTables, "", "nftables")
		s := h.keeper.Status()
		if unmet := wish != nil && !*wish; s.InForce != NFTables || (s.Unmet != nil && s.Unmet.Err == nil) != unmet {
			t.Errorf("%+v, want it to say that a wish is not met: %t", s, unmet)
		}
	}
	h.show()
	h.ensure(wishing(no()))
	h.wants(wishing(no()), IPTables, "EnableNFTables is false", "nft")
	if s := h.keeper.Status(); s.InForce != IPTables || s.Unmet != nil {
		t.Errorf("%+v", s)
	}
}

// TestNeedsNoProgram wants no rules: then it does not matter that there is no iptables.
func TestNeedsNoProgram(t *testing.T) {
	h := newHost(t, "none")
	h.ensure(Policy{NFTables: no()})
	h.wants(Policy{NFTables: no()}, IPTables, "EnableNFTables is false")
	if s := h.keeper.Status(); s.Unmet != nil {
		t.Errorf("%+v", s)
	}
}

// TestInForce has iptables be there and fail: by what the rules were set that are in has to stand in the status.
func TestInForce(t *testing.T) {
	h := newHost(t, "nft")
	h.ensure(wishing(yes()))
	path := os.Getenv("PATH")
	broken := map[string]string{"iptables": version + "exit 4", "ip6tables": version + "exit 4", "iptables-restore": version, "ip6tables-restore": version}
	programs(t, broken)
	err := h.ns.Do(func() error { _, err := h.keeper.Ensure(t.Context(), wishing(no())); return err })
	if s := h.keeper.Status(); err == nil || s.Failed == nil || s.Mode != IPTables || s.InForce != NFTables {
		t.Errorf("%v, %+v", err, s)
	}
	t.Setenv("PATH", path)
	h.ensure(wishing(no()))
	if s := h.keeper.Status(); s.Failed != nil || s.InForce != IPTables {
		t.Errorf("%+v", s)
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
			if s := h.keeper.Status(); len(s.Drops) != tt.drops || s.Unmet != nil || s.Unseen != nil || len(s.Leftover) > 0 {
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
		h.wants(wishing(nil), NFTables, "supported", "nftables")
		h.iptables("nft", "iptables -P FORWARD DROP")
		h.ensure(wishing(nil))
		h.wants(wishing(nil), IPTables, "table ip filter, chain FORWARD drops", "nft")
		h.iptables("nft", "iptables -P FORWARD ACCEPT")
		h.ensure(wishing(nil))
	}
	h.wants(wishing(nil), NFTables, "supported", "nftables")
	forwardNothing := wishing(nil)
	forwardNothing.Forward = false
	h.iptables("nft", "iptables -P FORWARD DROP")
	h.ensure(forwardNothing)
	h.wants(forwardNothing, NFTables, "supported", "nftables")
}
