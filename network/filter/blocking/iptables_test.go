package blocking

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/nft/nfttest"
	"github.com/selvage-net/selvage/subnet"
)

// docker is what Docker makes, with a container that publishes a port, and with the policy it sets.
var docker = []string{
	"-P FORWARD DROP", "-N DOCKER-USER", "-N DOCKER", "-N DOCKER-ISOLATION-STAGE-1", "-N DOCKER-ISOLATION-STAGE-2",
	"-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
	"-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -o docker0 -j DOCKER",
	"-A FORWARD -i docker0 ! -o docker0 -j ACCEPT", "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
	"-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
	"-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2", "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
	"-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP", "-A DOCKER-ISOLATION-STAGE-2 -j RETURN", "-A DOCKER-USER -j RETURN",
}

// kubeProxy is what kube-proxy with iptables has in FORWARD: it accepts what it has marked, and what is known.
var kubeProxy = []string{
	"-N KUBE-FORWARD", "-N KUBE-SERVICES", "-A FORWARD -m comment --comment rules -j KUBE-FORWARD",
	"-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES", "-A KUBE-SERVICES -d 10.96.0.9 -p tcp --dport 80 -j REJECT",
	"-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP", "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
	"-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
}

// TestIPTables makes rules with either iptables, in IPv4, and looks who drops what.
func TestIPTables(t *testing.T) {
	const pods = "10.5.0.0/16 in"
	for _, tt := range []struct {
		name  string
		rules []string
		want  string // "" if nobody
	}{
		{"nothing", []string{"-P FORWARD ACCEPT"}, ""},
		{"policy", []string{"-P FORWARD DROP"}, pods + "+out by policy"},
		{"policy, with an accept", []string{"-P FORWARD DROP", "-A FORWARD -s 10.5.0.0/16 -j ACCEPT"}, ""},
		{"policy, with an accept of one way", []string{"-P FORWARD DROP", "-A FORWARD -d 10.5.29.0/24 -i flannel.1 -j ACCEPT"}, "10.5.0.0/16 out by policy"},
		{"policy, with an accept of others", []string{"-P FORWARD DROP", "-A FORWARD -s 172.17.0.0/16 -j ACCEPT"}, pods + "+out by policy"},
		{"policy, with an accept of one pod", []string{"-P FORWARD DROP", "-A FORWARD -s 10.5.0.0/16 -d 10.5.29.3 -j ACCEPT"}, ""},
		{"policy, with an accept of a port", []string{"-P FORWARD DROP", "-A FORWARD -p tcp --dport 80 -j ACCEPT"}, ""},
		{"policy, with an accept of UDP", []string{"-P FORWARD DROP", "-A FORWARD -p udp -j ACCEPT"}, pods + "+out by policy"},
		{"policy, with an accept by mark", []string{"-P FORWARD DROP", "-A FORWARD -m mark --mark 1 -j ACCEPT"}, ""},
		{"policy, with an accept of what is known", []string{"-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}, pods + "+out by policy"},
		{"policy, with an accept of what is not invalid", []string{"-P FORWARD DROP", "-A FORWARD -m conntrack ! --ctstate INVALID -j ACCEPT"}, ""},
		{"policy, with an accept of what is translated", []string{"-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT"}, pods + "+out by policy"},
		{"policy, with an accept at a time", []string{"-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate NEW --ctorigdstport 80 -j ACCEPT"}, ""},
		{"policy, ours is called", []string{"-P FORWARD DROP", "-N SELVAGE-FWD", "-A SELVAGE-FWD -s 10.5.0.0/16 -j ACCEPT", "-A FORWARD -j SELVAGE-FWD"}, pods + "+out by policy"},
		{"REJECT at the end", []string{"-A FORWARD -p icmp -j ACCEPT", "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"}, pods + "+out by rule 2"},
		{"DROP of the network", []string{"-A FORWARD -s 10.0.0.0/8 -j DROP"}, pods + "+out by rule 1"},
		{"DROP of a pod", []string{"-A FORWARD -s 10.5.1.1 -j DROP"}, ""},
		{"DROP of an odd mask", []string{"-A FORWARD -s 10.5.1.1/255.0.0.255 -j DROP"}, ""},
		{"DROP out of the overlay", []string{"-A FORWARD -i flannel.+ -j DROP"}, pods + " by rule 1"},
		{"DROP by another device", []string{"-A FORWARD -i eth+ -j DROP", "-A FORWARD -o eth0 -j DROP", "-A FORWARD ! -i flannel.1 -o cni0 -j DROP"}, ""},
		{"DROP with a comment", []string{"-A FORWARD -m comment --comment x -j DROP"}, pods + "+out by rule 1"},
		{"DROP in a chain", []string{"-N WALL", "-A WALL -p udp -j RETURN", "-A WALL -j DROP", "-A FORWARD -j LOG", "-A FORWARD -j WALL"}, pods + "+out by rule 2 of chain WALL"},
		{"DROP in a chain for the guilty", []string{"-N WALL", "-A WALL -j DROP", "-A FORWARD -m mark --mark 1 -j WALL"}, ""},
		{"DROP behind a goto", []string{"-N WALL", "-A WALL -p udp -j DROP", "-A FORWARD -g WALL", "-A FORWARD -j DROP"}, ""},
		{"into a queue", []string{"-A FORWARD -j NFQUEUE --queue-num 1", "-A FORWARD -j DROP"}, ""},
		{"a rate that is let through", []string{"-A FORWARD -m limit --limit 1/s -j ACCEPT", "-A FORWARD -j DROP"}, ""},
		{"Docker", docker, pods + " by policy"},
		{"Docker, with what it is told to say", append(slices.Clone(docker), "-I DOCKER-USER -s 10.5.0.0/16 -j ACCEPT"), ""},
		{"kube-proxy", kubeProxy, ""},
		{"kube-proxy, policy", append(slices.Clone(kubeProxy), "-P FORWARD DROP"), pods + "+out by policy"},
		{"kube-proxy and Docker", append(slices.Clone(docker), kubeProxy...), pods + " by policy"},
		{"policy, with an accept of some of the mark", []string{"-P FORWARD DROP", "-A FORWARD -m mark --mark 0x1/0x1 -j ACCEPT"}, ""},
		{"DROP of what kube-proxy did not mark", []string{"-A FORWARD -m mark ! --mark 0x4000/0x4000 -j DROP"}, pods + "+out by rule 1"},
		{"DROP of what has another mark", []string{"-A FORWARD -m mark ! --mark 0x2/0x2 -j DROP"}, ""},
		{"ufw", []string{"-P FORWARD DROP", "-N ufw-before-forward", "-A FORWARD -j ufw-before-forward",
			"-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT",
			"-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT"}, pods + "+out by policy"},
	} {
		for _, variant := range []string{"nft", "legacy"} {
			t.Run(tt.name+"/"+variant, func(t *testing.T) {
				ns := newNet(t)
				x := nfttest.New(t, ns)
				for _, rule := range tt.rules {
					x.Run(append([]string{"iptables-" + variant, "--wait"}, strings.Fields(rule)...)...)
				}
				var want []string
				if tt.want != "" {
					want = []string{map[string]string{"nft": "ip filter", "legacy": "legacy filter"}[variant] + " FORWARD: " + tt.want}
				}
				if got := short(find(t, ns, overlay())); !slices.Equal(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
	}
}

// TestIPv6 makes the same of the other family.
func TestIPv6(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		ns := newNet(t)
		x := nfttest.New(t, ns)
		for _, rule := range []string{
			"-P FORWARD DROP", "-A FORWARD -s fd00:6::/32 -j ACCEPT", "-A FORWARD ! -d fd00::/8 -j ACCEPT", "-A FORWARD -p ipv6-icmp -j ACCEPT",
			"-A FORWARD -o flannel.1 -j REJECT",
		} {
			x.Run(append([]string{"ip6tables-" + variant, "--wait"}, strings.Fields(rule)...)...)
		}
		want := map[string]string{"nft": "ip6 filter", "legacy": "legacy filter"}[variant] + " FORWARD: fd00:5::/32 in+out by rule 4"
		if got := short(find(t, ns, overlay())); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", variant, got, want)
		}
	}
}

// TestMoved has somebody change something between the first reading and the last.
func TestMoved(t *testing.T) {
	ns := newNet(t)
	x := nfttest.New(t, ns)
	x.Run("iptables-nft", "-P", "FORWARD", "DROP")
	err := ns.Do(func() error {
		c, err := nft.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		r, err := Read(c)
		if err != nil {
			return err
		}
		x.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyINet})
		if err := x.Flush(); err != nil {
			return err
		}
		found, err := r.Find(overlay())
		if len(found) > 0 {
			t.Errorf("found %v", found)
		}
		return err
	})
	if !errors.Is(err, ErrChanged) {
		t.Error(err)
	}
}

// TestTables has the legacy iptables drop in another table than filter.
func TestTables(t *testing.T) {
	ns := newNet(t)
	x := nfttest.New(t, ns)
	x.Run("iptables-legacy", "--wait", "-t", "mangle", "-A", "FORWARD", "-j", "DROP")
	x.Run("iptables-legacy", "--wait", "-t", "mangle", "-A", "POSTROUTING", "-j", "DROP")
	if got, want := short(find(t, ns, overlay())), []string{"legacy mangle FORWARD: 10.5.0.0/16 in+out by rule 1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestText has the sentence and the commands of each form.
func TestText(t *testing.T) {
	network := prefixes("10.5.0.0/16", "fd00:5::/32")
	has := func(family, chain string) bool { return family == "ip6" && chain == "DOCKER-USER" }
	for _, tt := range []struct {
		d        Drop
		want     string
		commands []string
	}{
		{Drop{Table: "ip filter", Chain: "FORWARD", Network: network[0], Arriving: true, Leaving: true},
			"table ip filter, chain FORWARD: policy drop, and no rule in it accepts 10.5.0.0/16",
			[]string{"iptables -I FORWARD -s 10.5.0.0/16 -j ACCEPT", "iptables -I FORWARD -d 10.5.0.0/16 -j ACCEPT"}},
		{Drop{Table: "ip6 filter", Chain: "FORWARD", Family: subnet.IPv6, Network: network[1], Arriving: true, By: []string{"rule 3"}},
			"table ip6 filter, chain FORWARD: rule 3 drops packets from fd00:5::/32 to this node's pods",
			[]string{"ip6tables -I DOCKER-USER -s fd00:5::/32 -j ACCEPT", "ip6tables -I DOCKER-USER -d fd00:5::/32 -j ACCEPT"}},
		{Drop{Table: "inet firewalld", Chain: "filter_FORWARD", Network: network[0], Leaving: true, By: []string{"rule 1", "rule 2 of chain x"}},
			"table inet firewalld, chain filter_FORWARD: rule 1 and rule 2 of chain x drop packets from this node's pods to 10.5.0.0/16",
			[]string{"firewall-cmd --permanent --zone=trusted --add-source=10.5.0.0/16", "firewall-cmd --reload"}},
		{Drop{Table: "inet fw", Chain: "forward", Family: subnet.IPv6, Network: network[1], Arriving: true, Leaving: true},
			"table inet fw, chain forward: policy drop, and no rule in it accepts fd00:5::/32",
			[]string{"nft insert rule inet fw forward ip6 saddr fd00:5::/32 accept", "nft insert rule inet fw forward ip6 daddr fd00:5::/32 accept"}},
		{Drop{Table: "filter", Chain: "FORWARD", Legacy: true, Network: network[0], Arriving: true, Leaving: true},
			"legacy iptables, table filter, chain FORWARD: policy drop, and no rule in it accepts 10.5.0.0/16",
			[]string{"iptables-legacy -I FORWARD -s 10.5.0.0/16 -j ACCEPT", "iptables-legacy -I FORWARD -d 10.5.0.0/16 -j ACCEPT"}},
	} {
		if got := tt.d.String(); got != tt.want {
			t.Errorf("%s\nwant\n%s", got, tt.want)
		}
		tt.d.Commands = commands(tt.d, has)
		if !slices.Equal(tt.d.Commands, tt.commands) {
			t.Errorf("%q\nwant\n%q", tt.d.Commands, tt.commands)
		}
		advice := strings.Join(tt.commands, "; ")
		if tt.d.Overridable() {
			advice += "; or install iptables and leave EnableNFTables unset, so that selvage adds the rule"
		}
		if got := tt.d.Advice(); got != advice {
			t.Errorf("%s\nwant\n%s", got, advice)
		}
	}
}

// TestOddities decodes what a program rarely makes.
func TestOddities(t *testing.T) {
	info := make([]byte, 164)
	for _, c := range []condition{
		match("conntrack", 0, info), match("conntrack", 4, info), match("conntrack", 3, info[:150]), match("conntrack", 3, info),
		match("state", 0, nil), match("set", 3, info),
	} {
		if c.Field != unknown {
			t.Errorf("%+v is known", c)
		}
	}
	if c := match("state", 0, []byte{8, 0, 0, 0}); c.Field != states || c.Mask != 8 {
		t.Errorf("a state of NEW reads as %+v", c)
	}
	for verdict, want := range map[xtables.Verdict]kind{xtables.Queue: anything, xtables.Return: ret, xtables.Goto: tailCall} {
		if got := fromLegacy(xtables.Rule{Verdict: verdict}).Kind; got != want {
			t.Errorf("verdict %d is %d, want %d", verdict, got, want)
		}
	}
	if r := fromLegacy(xtables.Rule{Fragments: true, Verdict: xtables.Drop}); r.holds(arriving()) != perhaps {
		t.Error("a rule about fragments is about all packets")
	}
}
