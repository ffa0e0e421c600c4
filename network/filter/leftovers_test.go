package filter

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
)

// flannels are the rules that flannel makes, and some of others between them.
func flannels(program string) []string {
	network := map[string]string{"iptables": "10.5.0.0/16", "ip6tables": "fd00:5::/56"}[program]
	var all []string
	for _, r := range []string{
		"-N FLANNEL-FWD", "-A FORWARD -m comment --comment others -j ACCEPT", "-A FORWARD -m comment --comment flanneld -j FLANNEL-FWD",
		"-A FLANNEL-FWD -s NET -m comment --comment forward -j ACCEPT", "-A FLANNEL-FWD -d NET -j ACCEPT",
		"-N OTHERS", "-A OTHERS -p udp -j FLANNEL-FWD", "-A OTHERS -p udp -j ACCEPT",
		"-t nat -N FLANNEL-POSTRTG", "-t nat -A POSTROUTING -m comment --comment flanneld -j FLANNEL-POSTRTG", "-t nat -A POSTROUTING -o lo -j ACCEPT",
		"-t nat -A POSTROUTING -g FLANNEL-POSTRTG", "-t nat -A FLANNEL-POSTRTG -s NET -d NET -j RETURN", "-t nat -A FLANNEL-POSTRTG -s NET -j MASQUERADE",
		"-t nat -N FLANNEL-MINE", "-t nat -A POSTROUTING -j FLANNEL-MINE",
	} {
		all = append(all, program+" "+strings.ReplaceAll(r, "NET", network))
	}
	return all
}

// listed are the rules of one variant, in both families and tables.
func (h *host) listed(variant string) (all []string) {
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"filter", "nat"} {
			for line := range strings.Lines(h.Run(program+"-"+variant, "--wait", "-t", table, "-S")) {
				if !strings.HasPrefix(line, "#") { // a warning about the other variant's tables
					all = append(all, program+" "+table+" "+strings.TrimSpace(line))
				}
			}
		}
	}
	return all
}

func withoutFlannels(lines []string) []string {
	return slices.DeleteFunc(lines, func(l string) bool {
		return strings.Contains(l, "FLANNEL-FWD") || strings.Contains(l, "FLANNEL-POSTRTG") || strings.Contains(l, "SELVAGE-")
	})
}

// TestFlannelsLeftovers has flannel's rules in both variants and its tables of nf_tables: they go, and nothing else does.
func TestFlannelsLeftovers(t *testing.T) {
	for _, wish := range []*bool{yes(), no()} {
		h := newHost(t, "nft")
		for _, variant := range []string{"nft", "legacy"} {
			h.iptables(variant, slices.Concat(flannels("iptables"), flannels("ip6tables"))...)
		}
		for _, table := range []nftables.Table{
			{Name: "flannel-ipv4", Family: nftables.TableFamilyIPv4}, {Name: "flannel-ipv6", Family: nftables.TableFamilyIPv6},
			{Name: "flannel-ipv4", Family: nftables.TableFamilyIPv6}, {Name: "flannel-ipv6", Family: nftables.TableFamilyINet},
		} {
			h.Base(h.AddTable(&table), "postrtg", nftables.ChainHookPostrouting, nftables.ChainPolicyAccept)
		}
		h.Commit()
		nft, legacy := withoutFlannels(h.listed("nft")), withoutFlannels(h.listed("legacy"))
		h.ensure(wishing(wish))
		for variant, want := range map[string][]string{"nft": nft, "legacy": legacy} {
			got := h.listed(variant)
			if slices.ContainsFunc(got, func(l string) bool {
				return strings.Contains(l, "FLANNEL-FWD") || strings.Contains(l, "FLANNEL-POSTRTG")
			}) {
				t.Errorf("%s still has flannel's\n%s", variant, strings.Join(got, "\n"))
			}
			if got = withoutFlannels(got); !slices.Equal(got, want) {
				t.Errorf("%s holds of others'\n%s\nand held\n%s", variant, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		tables, err := h.ListTables()
		if err != nil {
			t.Fatal(err)
		}
		var left []nftables.TableFamily
		for _, table := range tables {
			if strings.HasPrefix(table.Name, "flannel-") {
				left = append(left, table.Family)
			}
		}
		if !slices.Equal(left, []nftables.TableFamily{nftables.TableFamilyIPv6, nftables.TableFamilyINet}) &&
			!slices.Equal(left, []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv6}) {
			t.Errorf("of tables by flannel's names, those of the families %v are left", left)
		}
		// A flannel that is started again is not fought.
		h.iptables("nft", "iptables -N FLANNEL-FWD")
		if changed := h.ensure(wishing(wish)); len(changed) > 0 {
			t.Errorf("later, changed %q", changed)
		}
	}
}

// TestOwnLeftovers has rules of ours come back by whatever restores them.
func TestOwnLeftovers(t *testing.T) {
	h := newHost(t, "legacy")
	h.ensure(wishing(yes()))
	for _, variant := range []string{"nft", "legacy"} {
		h.iptables(variant, "iptables -A FORWARD -p udp -j ACCEPT")
		want := h.listed(variant)
		h.iptables(variant, "iptables -N SELVAGE-FWD", "iptables -I FORWARD -j SELVAGE-FWD", "iptables -A SELVAGE-FWD -s 10.5.0.0/16 -j ACCEPT",
			"ip6tables -t nat -N SELVAGE-POSTRTG", "ip6tables -t nat -A POSTROUTING -j SELVAGE-POSTRTG", "iptables -N SELVAGE-OTHER")
		if changed := h.ensure(wishing(yes())); len(changed) != 2 {
			t.Errorf("%s: changed %q", variant, changed)
		}
		h.iptables(variant, "iptables -X SELVAGE-OTHER") // a name that we know nothing of
		if got := h.listed(variant); !slices.Equal(got, want) {
			t.Errorf("%s holds\n%s\nand held\n%s", variant, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestLeftoversWithoutProgram has rules that cannot be removed, since only the legacy program can, until it is there.
func TestLeftoversWithoutProgram(t *testing.T) {
	h := newHost(t, "legacy")
	h.iptables("legacy", "iptables -N FLANNEL-FWD", "iptables -t nat -N SELVAGE-POSTRTG")
	h.hide()
	for range 2 {
		h.ensure(wishing(yes()))
		left := h.keeper.Status().Leftover
		if len(left) != 2 || !strings.Contains(left[0]+left[1], "legacy table filter: chain FLANNEL-FWD") || !strings.Contains(left[0], "install the program iptables-legacy") {
			t.Errorf("%q", left)
		}
	}
	h.show()
	if changed := h.ensure(wishing(yes())); len(changed) != 2 {
		t.Errorf("changed %q", changed)
	}
	h.wants(wishing(yes()), NFTables, "", "nftables")
	if left := h.keeper.Status().Leftover; len(left) > 0 {
		t.Errorf("%q", left)
	}
}

func TestRemoval(t *testing.T) {
	const listed = "-P FORWARD ACCEPT\n-N SELVAGE-FWD\n-N SELVAGE-FWD2\n-A FORWARD -m comment --comment \"x -j SELVAGE-FWD\" -j ACCEPT\n" +
		"-A FORWARD -m comment --comment \"selvage: forwarding\" -j SELVAGE-FWD\n-A FORWARD -g SELVAGE-FWD\n-A FORWARD -j SELVAGE-FWD2\n-A SELVAGE-FWD -j ACCEPT\n"
	const want = "*filter\n-D FORWARD -m comment --comment \"selvage: forwarding\" -j SELVAGE-FWD\n-D FORWARD -g SELVAGE-FWD\n" +
		":SELVAGE-FWD - [0:0]\n-X SELVAGE-FWD\nCOMMIT\n"
	if got := removal(chain{"filter", ForwardChain}, listed); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := removal(chain{"filter", flannelForwardChain}, listed); got != "" {
		t.Errorf("of what is not there:\n%s", got)
	}
}
