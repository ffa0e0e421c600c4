package filter

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(list ...string) []netip.Prefix {
	parsed := make([]netip.Prefix, len(list))
	for i, s := range list {
		parsed[i] = netip.MustParsePrefix(s)
	}
	return parsed
}

// dualStack is a usual policy.
func dualStack() Policy {
	return Policy{
		Networks: prefixes("10.5.0.0/16", "fd00:5::/56"),
		Own:      prefixes("10.5.29.0/24", "fd00:5:0:1d::/64"),
		Forward:  true, Masquerade: true, RandomFully: true,
	}
}

// TestGolden shows all that is set in an empty packet filter.
func TestGolden(t *testing.T) {
	several := dualStack()
	several.Networks = append(several.Networks, prefixes("10.6.0.0/16", "10.5.0.0/16")...)
	several.RandomFully = false
	forward, masquerade, off := dualStack(), dualStack(), dualStack()
	forward.Masquerade, masquerade.Forward = false, false
	off.Forward, off.Masquerade = false, false
	for name, p := range map[string]Policy{
		"dual-stack": dualStack(), "several-networks": several, "forward-only": forward, "masquerade-only": masquerade, "off": off, "zero": {},
	} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, f := range subnet.Families() {
				fmt.Fprintf(&got, "# %s\n", f)
				for _, want := range p.tables(f) {
					input, changes := plan(want, state{})
					got.WriteString(input)
					for _, c := range changes {
						fmt.Fprintf(&got, "# %s\n", c)
					}
				}
			}
			path := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("%s differs; got\n%s", path, got.String())
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		p    Policy
		want string
	}{
		{dualStack(), ""},
		{Policy{}, ""},
		{Policy{Networks: []netip.Prefix{{}}}, "packet filter policy: a network is not set"},
		{Policy{Own: prefixes("10.5.29.1/24")}, "packet filter policy: 10.5.29.1/24 has host bits set, want 10.5.29.0/24"},
	} {
		got := ""
		if err := tt.p.validate(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.p, got, tt.want)
		}
	}
}

// packet is what the rules of this package look at.
type packet struct {
	from, to netip.Addr
	marked   bool // by kube-proxy
}

// verdict is what a chain of ours does with a packet: the target of the first rule that matches, "" if none does.
func verdict(t *testing.T, rules []string, p packet) string {
	for _, r := range rules {
		matches, negate := true, false
		words := splitWords(r)
		for i := 0; i < len(words); i++ {
			var hit bool
			switch w := words[i]; w {
			case "!":
				negate = true
				continue
			case "-s", "-d":
				i++
				addr := map[string]netip.Addr{"-s": p.from, "-d": p.to}[w]
				hit = netip.MustParsePrefix(words[i]).Contains(addr)
			case "--mark":
				i++
				hit = p.marked && words[i] == "0x4000/0x4000"
			case "-m", "--comment":
				i++
				continue
			case "-j":
				if matches {
					return words[i+1]
				}
				i = len(words)
				continue
			default:
				t.Fatalf("rule %q: %s is not known here", r, w)
			}
			matches, negate = matches && hit != negate, false
		}
	}
	return ""
}

// TestVerdicts holds the rules, read as the kernel reads them, against what they are for, for packets of every kind.
func TestVerdicts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pools := map[subnet.Family][]string{
		subnet.IPv4: {"10.5.0.0/16", "10.6.0.0/16", "172.20.0.0/14", "10.64.0.0/10"},
		subnet.IPv6: {"fd00:5::/56", "fd00:6::/48", "fd01::/32", "2001:db8:5::/48"},
	}
	others := map[subnet.Family][]string{
		subnet.IPv4: {"192.0.2.1", "198.51.100.3", "224.0.0.251", "239.1.2.3", "10.7.0.1"},
		subnet.IPv6: {"2001:db8::1", "fd09::1", "ff02::fb", "ff0e::1", "fd00:7::1"},
	}
	in := func(list []netip.Prefix, a netip.Addr) bool {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	seen := map[string]int{}
	for range 2000 {
		f := subnet.Families()[random.IntN(2)]
		pool := prefixes(pools[f]...)
		random.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
		networks := pool[:1+random.IntN(len(pool))]
		own := []netip.Prefix{netip.PrefixFrom(networks[0].Addr(), networks[0].Bits()+8)}
		address := func() netip.Addr {
			switch n := random.IntN(8); {
			case n < 3:
				return netip.MustParseAddr(others[f][random.IntN(len(others[f]))])
			case n == 3:
				return own[0].Addr().Next()
			case n == 4:
				return pool[len(pool)-1].Addr().Next() // of a network that may not be ours
			default:
				a := networks[random.IntN(len(networks))].Addr().AsSlice()
				a[len(a)-1], a[3] = byte(1+random.IntN(250)), a[3]|byte(random.IntN(2))
				addr, _ := netip.AddrFromSlice(a)
				return addr
			}
		}
		p := packet{from: address(), to: address(), marked: random.IntN(8) == 0}
		policy := Policy{Networks: networks, Own: own, Forward: true, Masquerade: true}
		tables := policy.tables(f)

		want := "RETURN"
		switch {
		case p.marked, in(networks, p.from) && in(networks, p.to), in(own, p.to):
		case in(networks, p.from) && !p.to.IsMulticast(), in(networks, p.to):
			want = "MASQUERADE"
		}
		got := verdict(t, tables[1].rules, p)
		if got == "" {
			got = "RETURN" // a chain returns at its end
		}
		if got != want {
			t.Fatalf("networks %v, own %v: masquerading %+v: %s, want %s", networks, own, p, got, want)
		}
		seen[want]++

		want = ""
		if in(networks, p.from) || in(networks, p.to) {
			want = "ACCEPT"
		}
		if got := verdict(t, tables[0].rules, p); got != want {
			t.Fatalf("networks %v: forwarding %+v: %q, want %q", networks, p, got, want)
		}
		seen[want]++
	}
	for _, v := range []string{"RETURN", "MASQUERADE", "ACCEPT", ""} {
		if seen[v] < 100 {
			t.Errorf("only %d packets with verdict %q: the test is weak", seen[v], v)
		}
	}
}
