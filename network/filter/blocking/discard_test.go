package blocking

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/nft/nfttest"
	"github.com/selvage-net/selvage/subnet"
)

// arrivingTunnel is packets from another node, leavingTunnel those to it.
func arrivingTunnel() Tunnel {
	return Tunnel{From: netip.MustParseAddr("192.0.2.7"), To: netip.MustParseAddr("192.0.2.1"), Port: 8472, Device: "eth0"}
}

func leavingTunnel() Tunnel {
	t := arrivingTunnel()
	t.From, t.To, t.Leaving = t.To, t.From, true
	return t
}

// discards says in a few words what drops the packets of a tunnel.
func discards(t testing.TB, ns *sandbox.Net, tunnel Tunnel) (out []string) {
	t.Helper()
	var all []Discard
	err := ns.Do(func() error {
		c, err := nft.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		r, err := Read(c)
		if err == nil {
			all, err = r.Discards(tunnel, "selvage-vtep")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		text := strings.Replace(d.String(), "iptables, table ", "", 1)
		if !d.Sure {
			text += ", perhaps"
		}
		out = append(out, strings.TrimPrefix(text, "table "))
	}
	return out
}

// TestDiscards makes rules with either iptables, which drop packets that arrive, and looks which rule does.
func TestDiscards(t *testing.T) {
	const input = ", chain INPUT: "
	policy := "-P INPUT DROP"
	for _, tt := range []struct {
		name  string
		rules []string
		want  []string // without the table, which is filter
	}{
		{"nothing", nil, nil},
		{"the port", []string{"-A INPUT -i lo -j ACCEPT", "-A INPUT -p udp --dport 8472 -j DROP"}, []string{input + "rule 2"}},
		{"another port", []string{"-A INPUT -p udp --dport 4789 -j DROP"}, nil},
		{"another protocol", []string{"-A INPUT -p tcp --dport 8472 -j DROP"}, nil},
		{"a range", []string{"-A INPUT -p udp --dport 8000:9000 -j REJECT"}, []string{input + "rule 1"}},
		{"all ports but one", []string{"-A INPUT -p udp ! --dport 53 -j DROP"}, []string{input + "rule 1"}},
		{"all ports but ours", []string{"-A INPUT -p udp ! --dport 8472 -j DROP"}, nil},
		{"several ports", []string{"-A INPUT -p udp -m multiport --dports 53,8000:8500 -j DROP"}, []string{input + "rule 1"}},
		{"several other ports", []string{"-A INPUT -p udp -m multiport --dports 53,123,8473:9000 -j DROP"}, nil},
		{"not several ports", []string{"-A INPUT -p udp -m multiport ! --dports 53,8472 -j DROP"}, nil},
		{"source ports", []string{"-A INPUT -p udp --sport 1024:65535 -j DROP", "-A INPUT -p udp -m multiport --sports 53 -j DROP"},
			[]string{input + "rule 1, perhaps", input + "rule 2, perhaps"}},
		{"policy", []string{policy, "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A INPUT -p tcp --dport 22 -j ACCEPT"},
			[]string{input + "policy drop"}},
		{"policy, the port is accepted", []string{policy, "-A INPUT -p udp -m udp --dport 8472 -j ACCEPT"}, nil},
		{"policy, one host is accepted", []string{policy, "-A INPUT -s 192.0.2.7 -j ACCEPT"}, nil},
		{"policy, another host is accepted", []string{policy, "-A INPUT -s 192.0.2.8 -j ACCEPT"}, []string{input + "policy drop"}},
		{"a host", []string{"-A INPUT -s 192.0.2.7 -j DROP"}, []string{input + "rule 1"}},
		{"to another address", []string{"-A INPUT -d 192.0.2.2 -j DROP"}, nil},
		{"another device", []string{"-A INPUT -i eth1 -j DROP", "-A INPUT -i flannel.1 -j DROP"}, nil},
		{"the device", []string{"-A INPUT -i eth+ -p udp -j DROP"}, []string{input + "rule 1"}},
		{"a chain", []string{"-N WALL", "-A WALL -p udp -j DROP", "-A INPUT -j WALL"}, []string{input + "rule 1 of chain WALL"}},
		{"invalid ones", []string{"-A INPUT -m conntrack --ctstate INVALID -j DROP"}, nil},
		{"new ones", []string{"-A INPUT -m conntrack --ctstate NEW -j DROP"}, []string{input + "rule 1, perhaps"}},
		{"too many", []string{"-A INPUT -p udp -m limit --limit 1/s -j ACCEPT", "-A INPUT -p udp -j DROP"}, []string{input + "rule 2, perhaps"}},
		{"into a queue", []string{"-A INPUT -p udp -j NFQUEUE --queue-num 1"}, []string{input + "rule 1, perhaps"}},
		{"marked ones", []string{"-A INPUT -m mark --mark 0x4000/0x4000 -j DROP"}, []string{input + "rule 1, perhaps"}},
		{"a sure one hides others", []string{"-A INPUT -m mark --mark 1 -j DROP", "-t raw -A PREROUTING -p udp -j DROP"},
			[]string{"raw, chain PREROUTING: rule 1"}},
		{"what is forwarded or leaves", []string{"-P FORWARD DROP", "-A OUTPUT -p udp -j DROP", "-t mangle -A POSTROUTING -p udp -j DROP"}, nil},
	} {
		for _, variant := range []string{"nft", "legacy"} {
			t.Run(tt.name+"/"+variant, func(t *testing.T) {
				ns := newNet(t)
				x := nfttest.New(t, ns)
				for _, rule := range tt.rules {
					x.Run(append([]string{"iptables-" + variant, "--wait"}, strings.Fields(rule)...)...)
				}
				var want []string
				for _, w := range tt.want {
					if strings.HasPrefix(w, ",") {
						w = "filter" + w
					}
					want = append(want, map[string]string{"nft": "ip ", "legacy": "legacy "}[variant]+w)
				}
				if got := discards(t, ns, arrivingTunnel()); !slices.Equal(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
	}
}

// TestDiscardsLeaving: packets that leave pass other chains.
func TestDiscardsLeaving(t *testing.T) {
	ns := newNet(t)
	x := nfttest.New(t, ns)
	for _, rule := range []string{
		"-A INPUT -p udp -j DROP", "-A OUTPUT -o eth1 -j DROP", "-A OUTPUT -d 192.0.2.7 -p udp --dport 8472 -j DROP", "-t mangle -A POSTROUTING -o eth0 -j DROP",
	} {
		x.Run(append([]string{"iptables-nft", "--wait"}, strings.Fields(rule)...)...)
	}
	want := []string{"ip filter, chain OUTPUT: rule 2", "ip mangle, chain POSTROUTING: rule 1"}
	if got := discards(t, ns, leavingTunnel()); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestDiscardsNFTables has what only nf_tables has: sets and ranges of ports, hooks of a device, one chain for both
// families.
func TestDiscardsNFTables(t *testing.T) {
	const accepting, dropping = nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	const accept, drop = expr.VerdictAccept, expr.VerdictDrop
	udp := load(expr.MetaKeyL4PROTO, expr.CmpOpEq, unix.IPPROTO_UDP)
	port := expr.Any(&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1})
	isPort := func(op expr.CmpOp, n uint16) []expr.Any {
		return []expr.Any{port, &expr.Cmp{Op: op, Register: 1, Data: []byte{byte(n >> 8), byte(n)}}}
	}
	between := func(op expr.CmpOp, from, to uint16) []expr.Any {
		return []expr.Any{port, &expr.Range{Op: op, Register: 1, FromData: []byte{byte(from >> 8), byte(from)}, ToData: []byte{byte(to >> 8), byte(to)}}}
	}
	ingress := []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x08, 0x00}}}
	const from = 12
	inet, netdev := nftables.TableFamilyINet, nftables.TableFamilyNetdev
	for _, tt := range []struct {
		name   string
		family nftables.TableFamily
		table  string
		hook   *nftables.ChainHook
		device string
		policy nftables.ChainPolicy
		rules  [][]expr.Any
		want   string
	}{
		{"policy", inet, "fw", nftables.ChainHookInput, "", dropping, nil, "inet fw, chain c: policy drop"},
		{"policy, and a port", inet, "fw", nftables.ChainHookInput, "", dropping, [][]expr.Any{all(udp, isPort(expr.CmpOpEq, 8472), ends(accept))}, ""},
		{"policy, and another port", inet, "fw", nftables.ChainHookInput, "", dropping, [][]expr.Any{all(udp, isPort(expr.CmpOpEq, 53), ends(accept))}, "inet fw, chain c: policy drop"},
		{"all ports but one", inet, "fw", nftables.ChainHookPrerouting, "", accepting, [][]expr.Any{all(udp, isPort(expr.CmpOpNeq, 53), ends(drop))}, "inet fw, chain c: rule 1"},
		{"a range", inet, "fw", nftables.ChainHookInput, "", accepting, [][]expr.Any{all(udp, between(expr.CmpOpEq, 8000, 9000), ends(drop))}, "inet fw, chain c: rule 1"},
		{"all but a range", inet, "fw", nftables.ChainHookInput, "", accepting, [][]expr.Any{all(udp, between(expr.CmpOpNeq, 8000, 9000), ends(drop))}, ""},
		{"a range before", inet, "fw", nftables.ChainHookInput, "", accepting, [][]expr.Any{all(udp, between(expr.CmpOpEq, 1, 8471), ends(drop))}, ""},
		{"a set", inet, "fw", nftables.ChainHookInput, "", accepting, [][]expr.Any{all(udp, []expr.Any{port}, in("ports", false), ends(drop))}, "inet fw, chain c: rule 1"},
		{"not of a set", inet, "fw", nftables.ChainHookInput, "", accepting, [][]expr.Any{all(udp, []expr.Any{port}, in("ports", true), ends(drop))}, ""},
		{"ranges", inet, "fw", nftables.ChainHookInput, "", dropping, [][]expr.Any{all(udp, []expr.Any{port}, in("ranges", false), ends(accept))}, ""},
		{"other ranges", inet, "fw", nftables.ChainHookInput, "", dropping, [][]expr.Any{all(udp, []expr.Any{port}, in("others", false), ends(accept))}, "inet fw, chain c: policy drop"},
		{"something unknown", inet, "fw", nftables.ChainHookInput, "", accepting, [][]expr.Any{all(udp, []expr.Any{&expr.Hash{SourceRegister: 1, DestRegister: 1, Length: 2, Modulus: 2}}, ends(drop))}, "inet fw, chain c: rule 1, perhaps"},
		{"the table of the daemon", inet, "selvage-vtep", nftables.ChainHookInput, "", dropping, nil, ""},
		{"at the device", netdev, "early", nftables.ChainHookIngress, "eth0", accepting, [][]expr.Any{all(ingress, address(from, "192.0.2.0/24"), udp, isPort(expr.CmpOpEq, 8472), ends(drop))}, "netdev early, chain c: rule 1"},
		{"at another device", netdev, "early", nftables.ChainHookIngress, "eth1", dropping, nil, ""},
		{"other hosts at the device", netdev, "early", nftables.ChainHookIngress, "eth0", accepting, [][]expr.Any{all(ingress, address(from, "198.51.100.0/24"), ends(drop))}, ""},
		{"what leaves", netdev, "early", nftables.ChainHookEgress, "eth0", dropping, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := newNet(t)
			err := ns.Do(func() (err error) {
				for _, name := range []string{"eth0", "eth1"} {
					if err == nil {
						err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			f := nfttest.New(t, ns)
			table := f.AddTable(&nftables.Table{Name: tt.table, Family: tt.family})
			ports := func(name string, interval bool, list ...uint16) {
				var elements []nftables.SetElement
				for i, p := range list {
					elements = append(elements, nftables.SetElement{Key: []byte{byte(p >> 8), byte(p)}, IntervalEnd: interval && i%2 == 1})
				}
				s := &nftables.Set{Table: table, Name: name, KeyType: nftables.TypeInetService, Interval: interval}
				if err := f.AddSet(s, elements); err != nil {
					t.Fatal(err)
				}
			}
			if tt.family == inet {
				ports("ports", false, 53, 8472)
				ports("ranges", true, 53, 54, 8400, 8500)
				ports("others", true, 53, 54, 8400, 8472, 8473, 9000)
			}
			chain := f.AddChain(&nftables.Chain{Table: table, Name: "c", Type: nftables.ChainTypeFilter, Hooknum: tt.hook,
				Priority: nftables.ChainPriorityFilter, Policy: &tt.policy, Device: tt.device})
			for _, r := range tt.rules {
				f.Append(chain, r...)
			}
			f.Commit()
			var want []string
			if tt.want != "" {
				want = []string{tt.want}
			}
			if got := discards(t, ns, arrivingTunnel()); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			leaving := arrivingTunnel()
			leaving.Leaving = true
			if got := discards(t, ns, leaving); (len(got) > 0) != (tt.hook == nftables.ChainHookEgress) {
				t.Errorf("leaving: %q", got)
			}
		})
	}
}

// TestDiscardsIPv6 drops in the other family.
func TestDiscardsIPv6(t *testing.T) {
	tunnel := Tunnel{From: netip.MustParseAddr("2001:db8::7"), To: netip.MustParseAddr("2001:db8::1"), Port: 8472, Device: "eth0"}
	for _, variant := range []string{"nft", "legacy"} {
		ns := newNet(t)
		x := nfttest.New(t, ns)
		x.Run("iptables-"+variant, "--wait", "-P", "INPUT", "DROP")
		x.Run("ip6tables-"+variant, "--wait", "-A", "INPUT", "-s", "2001:db8::/32", "-p", "udp", "--dport", "8472", "-j", "DROP")
		want := map[string]string{"nft": "ip6 filter", "legacy": "legacy ip6tables, table filter"}[variant] + ", chain INPUT: rule 1"
		if got := discards(t, ns, tunnel); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", variant, got, want)
		}
	}
}

// TestDiscardText has the sentence and the command of each form.
func TestDiscardText(t *testing.T) {
	for _, tt := range []struct {
		d             Discard
		want, command string
	}{
		{Discard{Table: "ip filter", Chain: "INPUT", By: "rule 3"}, "table ip filter, chain INPUT: rule 3", "iptables -I INPUT -p udp --dport 8472 -j ACCEPT"},
		{Discard{Table: "ip6 raw", Chain: "PREROUTING", Family: subnet.IPv6}, "table ip6 raw, chain PREROUTING: policy drop",
			"ip6tables -t raw -I PREROUTING -p udp --dport 8472 -j ACCEPT"},
		{Discard{Table: "mangle", Chain: "INPUT", Legacy: true, By: "rule 1 of chain x"}, "legacy iptables, table mangle, chain INPUT: rule 1 of chain x",
			"iptables-legacy -t mangle -I INPUT -p udp --dport 8472 -j ACCEPT"},
		{Discard{Table: "inet firewalld", Chain: "filter_INPUT", By: "rule 9"}, "table inet firewalld, chain filter_INPUT: rule 9",
			"firewall-cmd --permanent --add-port=8472/udp; firewall-cmd --reload"},
		{Discard{Table: "ip filter", Chain: "input"}, "table ip filter, chain input: policy drop", "nft insert rule ip filter input udp dport 8472 accept"},
		{Discard{Table: "netdev early", Chain: "c", By: "rule 2"}, "table netdev early, chain c: rule 2", "nft insert rule netdev early c udp dport 8472 accept"},
	} {
		if got := fmt.Sprint(tt.d); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
		if got := tt.d.command(8472); got != tt.command {
			t.Errorf("%s, want %s", got, tt.command)
		}
	}
}
