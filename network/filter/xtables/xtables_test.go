package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// TestMain runs the tests where they may make network namespaces, with a /run and its xtables.lock of their own.
func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

// run runs iptables-legacy, or ip6tables-legacy, which an ordinary user's PATH lacks.
func run(t *testing.T, ns *sandbox.Net, f subnet.Family, args ...string) string {
	t.Helper()
	program := "/usr/sbin/" + [...]string{"iptables-legacy", "ip6tables-legacy"}[f]
	var out []byte
	err := ns.Do(func() (err error) {
		out, err = exec.Command(program, append([]string{"--wait"}, args...)...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
	return string(out)
}

func read(t *testing.T, ns *sandbox.Net, f subnet.Family) (tables []Table) {
	t.Helper()
	if err := ns.Do(func() (err error) { tables, err = Read(f); return err }); err != nil {
		t.Fatal(err)
	}
	return tables
}

func newNet(t *testing.T) *sandbox.Net {
	t.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestRead compares what is read with what iptables-legacy lists.
func TestRead(t *testing.T) {
	rules := map[subnet.Family][]string{
		subnet.IPv4: {
			"-A FORWARD -s 10.5.0.0/16 -j ACCEPT", "-A FORWARD ! -s 10.5.0.0/16 -d 192.0.2.1/32 -i eth0 ! -o flannel.+ -j DROP",
			"-A FORWARD -s 10.0.0.1/255.0.0.255 -j DROP", "-A INPUT -f -j DROP",
		},
		subnet.IPv6: {
			"-A FORWARD -s fd00:5::/32 -j ACCEPT", "-A FORWARD ! -s fd00:5::/32 -d 2001:db8::1/128 -i eth0 ! -o flannel.+ -j DROP",
		},
	}
	for _, f := range subnet.Families() {
		ns := newNet(t)
		if tables := read(t, ns, f); len(tables) != 0 {
			t.Errorf("%s: there are tables where nobody made any: %v", f, tables)
		}
		want := []string{"-P INPUT ACCEPT", "-P FORWARD DROP", "-P OUTPUT ACCEPT", "-N EMPTY", "-N THEIRS"}
		for _, args := range slices.Concat([]string{"-P FORWARD DROP", "-N THEIRS", "-N EMPTY"}, rules[f], []string{
			"-A FORWARD -i + -j EMPTY", "-A FORWARD -p tcp -j THEIRS", "-A FORWARD ! -p udp -g THEIRS", "-A FORWARD -i exactly-15-long -j RETURN",
			"-A FORWARD", "-A FORWARD -j LOG", "-A FORWARD -j REJECT", "-A OUTPUT -m conntrack --ctstate NEW -j THEIRS", "-A THEIRS -m comment --comment x -j QUEUE",
		}) {
			run(t, ns, f, strings.Fields(args)...)
		}
		tables := read(t, ns, f)
		if len(tables) != 1 || tables[0].Name != "filter" {
			t.Fatalf("%s: the tables are %v", f, tables)
		}
		listed := strings.Split(strings.TrimSpace(run(t, ns, f, "-S")), "\n")
		got := print(tables[0])
		slices.SortStableFunc(got, byKind)
		slices.SortStableFunc(listed, byKind)
		for i := range listed { // what belongs to extensions is not read
			listed[i], _, _ = strings.Cut(strings.ReplaceAll(listed[i], " -j REJECT", " -j REJECT\x00"), "\x00")
			listed[i] = strings.NewReplacer(" --ctstate NEW", "", " --comment x", "").Replace(listed[i])
		}
		if !slices.Equal(got, listed) {
			t.Errorf("%s: read\n%s\nlisted\n%s", f, strings.Join(got, "\n"), strings.Join(listed, "\n"))
		}
		if !slices.Equal(got[:5], want) {
			t.Errorf("%s: it begins with %q", f, got[:5])
		}
	}
}

// byKind puts policies first, then chains, then rules.
func byKind(a, b string) int {
	kind := func(s string) int { return strings.Index("PNA", s[1:2]) }
	return kind(a) - kind(b)
}

// print writes a table as iptables -S does.
func print(t Table) (lines []string) {
	var chains []string
	for _, c := range t.Chains {
		if c.Builtin {
			lines = append(lines, "-P "+c.Name+" "+map[bool]string{true: "ACCEPT", false: "DROP"}[c.Accepts])
		} else {
			chains = append(chains, "-N "+c.Name)
		}
		for _, r := range c.Rules {
			lines = append(lines, "-A "+c.Name+printRule(r))
		}
	}
	return append(lines, chains...)
}

func printRule(r Rule) string {
	var b strings.Builder
	option := func(not bool, name, value string) {
		if not {
			b.WriteString(" !")
		}
		b.WriteString(" " + name + " " + value)
	}
	for _, p := range []struct {
		name string
		Prefix
	}{{"-s", r.Src}, {"-d", r.Dst}} {
		if p.Addr.IsValid() {
			option(p.Not, p.name, printPrefix(p.Prefix))
		}
	}
	for _, d := range []struct {
		name string
		Device
	}{{"-i", r.In}, {"-o", r.Out}} {
		if d.Name != "" {
			option(d.Not, d.name, d.Name+map[bool]string{true: "+"}[d.Wildcard])
		}
	}
	if r.Proto != 0 {
		option(r.NotProto, "-p", map[uint16]string{6: "tcp", 17: "udp"}[r.Proto])
	}
	if r.Fragments {
		b.WriteString(" -f")
	}
	for _, m := range r.Matches {
		b.WriteString(" -m " + m.Name)
	}
	switch r.Verdict {
	case Jump:
		b.WriteString(" -j " + r.To)
	case Goto:
		b.WriteString(" -g " + r.To)
	case None:
		if r.Target.Name != "" {
			b.WriteString(" -j " + r.Target.Name)
		}
	default:
		b.WriteString(" -j " + map[Verdict]string{Accept: "ACCEPT", Drop: "DROP", Queue: "QUEUE", Return: "RETURN"}[r.Verdict])
	}
	return b.String()
}

func printPrefix(p Prefix) string {
	ones := 0
	for _, b := range p.Mask.AsSlice() {
		ones += bits.OnesCount8(b)
	}
	if q := netip.PrefixFrom(p.Addr, ones); last(q) == p.Mask {
		return q.String()
	}
	return p.Addr.String() + "/" + p.Mask.String()
}

// last is the mask of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestNat reads another table, in which other hooks are valid.
func TestNat(t *testing.T) {
	ns := newNet(t)
	run(t, ns, subnet.IPv4, "-t", "nat", "-A", "POSTROUTING", "-s", "10.5.0.0/16", "-j", "MASQUERADE")
	run(t, ns, subnet.IPv4, "-t", "mangle", "-L")
	tables := read(t, ns, subnet.IPv4)
	i := slices.IndexFunc(tables, func(t Table) bool { return t.Name == "nat" })
	if i < 0 || len(tables) != 2 {
		t.Fatalf("the tables are %v", tables)
	}
	want := []string{"-P PREROUTING ACCEPT", "-P INPUT ACCEPT", "-P OUTPUT ACCEPT", "-P POSTROUTING ACCEPT", "-A POSTROUTING -s 10.5.0.0/16 -j MASQUERADE"}
	if got := print(tables[i]); !slices.Equal(got, want) {
		t.Errorf("the table holds %q", got)
	}
}

// TestMalformed cuts a table off, and changes each of its bytes.
func TestMalformed(t *testing.T) {
	l := layoutOf(subnet.IPv4)
	b := make([]byte, l.size+sizeofExtension+8)
	binary.NativeEndian.PutUint16(b[l.target:], uint16(l.size))
	binary.NativeEndian.PutUint16(b[l.next:], uint16(len(b)))
	binary.NativeEndian.PutUint16(b[l.size:], uint16(sizeofExtension+8))
	binary.NativeEndian.PutUint32(b[l.size+sizeofExtension:], 0xfffffffe) // -2
	i := info{ValidHooks: 1 << 2}
	if table, err := decode(subnet.IPv4, "filter", i, b); err != nil || fmt.Sprint(print(table)) != "[-P FORWARD ACCEPT]" {
		t.Fatalf("%v, %v", table, err)
	}
	for n := 1; n < len(b); n++ {
		if _, err := decode(subnet.IPv4, "filter", i, b[:n]); !errors.Is(err, errMalformed) {
			t.Errorf("cut off after %d: %v", n, err)
		}
	}
	for n := range b {
		for _, x := range []byte{0, 1, 0x7f, 0xff} {
			changed := slices.Clone(b)
			changed[n] = x
			_, _ = decode(subnet.IPv4, "filter", i, changed) // must not panic
		}
	}
	if _, err := decode(subnet.IPv4, "filter", info{}, b); !errors.Is(err, errMalformed) {
		t.Errorf("without a chain: %v", err)
	}
}
