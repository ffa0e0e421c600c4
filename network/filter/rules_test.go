package filter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// node is a network namespace with one variant of iptables.
type node struct {
	t       *testing.T
	net     *sandbox.Net
	variant string // of iptables
	f       subnet.Family
	log     string // a line for each run of a restore program
}

// eachKind runs a test for both variants of iptables and both families, each in a network namespace of its own.
func eachKind(t *testing.T, test func(t *testing.T, n node)) {
	for _, variant := range []string{"nft", "legacy"} {
		for _, f := range subnet.Families() {
			t.Run(variant+"/"+f.String(), func(t *testing.T) { test(t, newNode(t, variant, f)) })
		}
	}
}

// eachVariant is eachKind for tests in which the family makes no difference beyond what TestEnsure shows for each kind: it
// covers both variants and both families.
func eachVariant(t *testing.T, test func(t *testing.T, n node)) {
	for variant, f := range map[string]subnet.Family{"nft": subnet.IPv4, "legacy": subnet.IPv6} {
		t.Run(variant+"/"+f.String(), func(t *testing.T) { test(t, newNode(t, variant, f)) })
	}
}

// newNode puts a directory in front of PATH whose iptables is a link to that variant, and whose iptables-restore counts how
// often it is run.
func newNode(t *testing.T, variant string, f subnet.Family) node {
	t.Helper()
	dir := t.TempDir()
	n := node{t: t, variant: variant, f: f, log: filepath.Join(dir, "restored")}
	for _, name := range []string{"iptables", "ip6tables"} {
		program, err := lookUp(name + "-" + variant)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] || echo \"$*\" >>%s\nexec %s-restore \"$@\"\n", n.log, program)
		if err := os.WriteFile(filepath.Join(dir, name+"-restore"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	net, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	n.net = net
	return n
}

// iptables runs the node's iptables and returns the lines it prints.
func (n node) iptables(args ...string) []string {
	n.t.Helper()
	return strings.Split(strings.TrimSpace(n.run("", program(n.f), append([]string{"--wait"}, args...)...)), "\n")
}

// run runs a program of the node and returns what it prints.
func (n node) run(stdin, name string, args ...string) string {
	n.t.Helper()
	var out []byte
	err := n.net.Do(func() (err error) {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		n.t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// save returns all tables as input for restore.
func (n node) save() string {
	n.t.Helper()
	path, err := lookUp(program(n.f) + "-" + n.variant + "-save")
	if err != nil {
		n.t.Fatal(err)
	}
	return n.run("", path)
}

// restore replaces the tables with saved ones.
func (n node) restore(saved string) {
	n.t.Helper()
	n.run(saved, program(n.f)+"-restore")
}

func (n node) ensure(r *Rules, p Policy) []string {
	n.t.Helper()
	var changed []string
	if err := n.net.Do(func() (err error) { changed, err = r.Ensure(n.t.Context(), p); return err }); err != nil {
		n.t.Fatal(err)
	}
	return changed
}

// runs returns how often a restore program was run with rules.
func (n node) runs() int {
	n.t.Helper()
	b, err := os.ReadFile(n.log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

// all returns all chains, rules, and policies other than ACCEPT, as iptables -S prints them.
func (n node) all() (lines []string) {
	n.t.Helper()
	for line := range strings.Lines(n.save()) {
		line = strings.TrimSpace(line)
		chain, isChain := strings.CutPrefix(line, ":")
		switch name, policy, _ := strings.Cut(chain, " "); {
		case isChain && strings.HasPrefix(policy, "-"):
			lines = append(lines, "-N "+name)
		case isChain && !strings.HasPrefix(policy, "ACCEPT"):
			lines = append(lines, "-P "+name+" "+policy)
		case strings.HasPrefix(line, "-"):
			lines = append(lines, line)
		}
	}
	return lines
}

// foreign returns the lines that are not ours.
func foreign(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.Contains(l, "SELVAGE-") })
}

// wanted checks that both tables hold what p asks for and that Ensure changes nothing. It returns what all does.
func (n node) wanted(r *Rules, p Policy) (all []string) {
	n.t.Helper()
	all = n.all()
	for _, want := range p.tables(n.f) {
		jumps := slices.DeleteFunc(slices.Clone(all), func(l string) bool { return target(l) != want.chain })
		rules := slices.DeleteFunc(slices.Clone(all), func(l string) bool { return !strings.HasPrefix(l, "-A "+want.chain+" ") })
		for i := range rules {
			rules[i] = strings.TrimPrefix(rules[i], "-A "+want.chain+" ")
		}
		if !slices.Equal(rules, want.rules) {
			n.t.Errorf("%s holds\n%s\nwant\n%s", want.chain, strings.Join(rules, "\n"), strings.Join(want.rules, "\n"))
		}
		if on := len(want.rules) > 0; on && !slices.Equal(jumps, []string{"-A " + want.parent + " " + want.jump}) || !on && len(jumps) > 0 {
			n.t.Errorf("jumps to %s: %q", want.chain, jumps)
		}
		if there := slices.Contains(all, "-N "+want.chain); there != (len(want.rules) > 0) {
			n.t.Errorf("chain %s is there: %t", want.chain, there)
		}
	}
	runs := n.runs()
	if changed := n.ensure(r, p); len(changed) > 0 {
		n.t.Errorf("looking again changed %q", changed)
	}
	if again := n.runs() - runs; again > 0 {
		n.t.Errorf("looking again ran iptables-restore %d times", again)
	}
	if after := n.all(); !slices.Equal(all, after) {
		n.t.Errorf("looking again changed\n%s\nto\n%s", strings.Join(all, "\n"), strings.Join(after, "\n"))
	}
	return all
}

func TestEnsure(t *testing.T) {
	several := dualStack()
	several.Networks = append(several.Networks, prefixes("10.6.0.0/16", "fd00:6::/48")...)
	several.RandomFully = false
	eachKind(t, func(t *testing.T, n node) {
		r := New(n.f)
		if changed := n.ensure(r, Policy{}); len(changed) > 0 || n.runs() > 0 {
			t.Errorf("wanting nothing changed %q in %d runs", changed, n.runs())
		}
		for i, p := range []Policy{dualStack(), several, dualStack()} {
			changed := n.ensure(r, p)
			if len(changed) == 0 || n.runs() != 2*(i+1) {
				t.Errorf("policy %d: %q in %d runs, want one a table", i, changed, n.runs())
			}
			n.wanted(r, p)
			if i < 2 {
				n.wanted(New(n.f), p) // a daemon that was restarted
			}
		}
	})
}

// TestRepair does to the rules what others do, and looks that just that is mended.
func TestRepair(t *testing.T) {
	jump := []string{"-m", "comment", "--comment", "selvage: forwarding", "-j", ForwardChain}
	natJump := []string{"-m", "comment", "--comment", "selvage: masquerade", "-j", MasqueradeChain}
	insert := func(table, command, chain string, rule ...string) []string {
		return append([]string{"-t", table, command, chain}, rule...)
	}
	harms := map[string][][]string{
		"both tables flushed":          {{"-t", "filter", "-F"}, {"-t", "nat", "-F"}},
		"both tables flushed, emptied": {{"-t", "filter", "-F"}, {"-t", "nat", "-F"}, {"-t", "filter", "-X"}, {"-t", "nat", "-X"}},
		"chain flushed":                {{"-t", "nat", "-F", MasqueradeChain}},
		"rule deleted":                 {{"-t", "nat", "-D", MasqueradeChain, "2"}},
		"rule added":                   {{"-t", "filter", "-A", ForwardChain, "-j", "DROP"}},
		"rule replaced":                {{"-t", "filter", "-R", ForwardChain, "1", "-p", "tcp", "-j", "ACCEPT"}},
		"jump deleted":                 {insert("filter", "-D", "FORWARD", jump...)},
		"jump duplicated":              {insert("filter", "-I", "FORWARD", jump...), insert("filter", "-A", "FORWARD", jump...), insert("nat", "-A", "POSTROUTING", natJump...)},
		"jump of another form":         {insert("filter", "-I", "FORWARD", "-i", "eth9", "-j", ForwardChain)},
		"jump without its comment":     {insert("filter", "-D", "FORWARD", jump...), insert("filter", "-A", "FORWARD", "-j", ForwardChain)},
		"DROP put first":               {insert("filter", "-I", "FORWARD", "-j", "DROP")},
	}
	eachVariant(t, func(t *testing.T, n node) {
		r := New(n.f)
		n.iptables("-N", "OTHERS")
		n.iptables("-A", "FORWARD", "-m", "comment", "--comment", `an "other" -j SELVAGE-FWD`, "-j", "OTHERS")
		n.iptables("-t", "nat", "-A", "POSTROUTING", "-o", "lo", "-j", "ACCEPT")
		n.ensure(r, dualStack())
		n.iptables("-A", "FORWARD", "-i", "eth9", "-j", "DROP")
		inSync := n.save()
		for name, harm := range harms {
			t.Run(name, func(t *testing.T) {
				n.t = t
				n.restore(inSync)
				for _, args := range harm {
					n.iptables(args...)
				}
				before := foreign(n.all())
				if changed := n.ensure(r, dualStack()); len(changed) == 0 {
					t.Error("nothing was changed")
				}
				if after := foreign(n.wanted(r, dualStack())); !slices.Equal(before, after) {
					t.Errorf("the rules of others are\n%s\nwere\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
				}
			})
		}
	})
}

func TestBeforeBlockingRule(t *testing.T) {
	eachVariant(t, func(t *testing.T, n node) {
		n.iptables("-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT")
		n.iptables("-A", "FORWARD", "-m", "comment", "--comment", "the end", "-j", "REJECT")
		n.iptables("-A", "FORWARD", "-j", "DROP")
		r := New(n.f)
		n.ensure(r, dualStack())
		at := func() int {
			return slices.IndexFunc(n.iptables("-S", "FORWARD"), func(l string) bool { return target(l) == ForwardChain })
		}
		if got := at(); got != 2 { // -S begins with the policy
			t.Errorf("the jump is in line %d of\n%s", got, strings.Join(n.iptables("-S", "FORWARD"), "\n"))
		}
		n.wanted(r, dualStack())
		n.iptables("-I", "FORWARD", "-j", "DROP")
		n.ensure(r, dualStack())
		if got := at(); got != 1 {
			t.Errorf("with DROP in front, the jump is in line %d", got)
		}
		n.wanted(r, dualStack())
		n.iptables("-N", "WALL")
		n.iptables("-A", "WALL", "-p", "tcp", "-j", "ACCEPT")
		n.iptables("-A", "WALL", "-j", "DROP")
		n.iptables("-I", "FORWARD", "-j", "WALL")
		n.ensure(r, dualStack())
		if got := at(); got != 1 {
			t.Errorf("with a chain that ends in DROP in front, the jump is in line %d", got)
		}
		n.wanted(r, dualStack())
		n.iptables("-I", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
		n.iptables("-N", "POLICY")
		n.iptables("-A", "POLICY", "-p", "tcp", "--dport", "22", "-j", "DROP")
		n.iptables("-I", "FORWARD", "-j", "POLICY")
		n.ensure(r, dualStack())
		if got := at(); got != 3 {
			t.Errorf("with somebody's policy in front, the jump was moved to line %d", got)
		}
		n.wanted(r, dualStack())
	})
}

func TestSwitchedOff(t *testing.T) {
	eachVariant(t, func(t *testing.T, n node) {
		n.iptables("-A", "FORWARD", "-p", "udp", "-j", "ACCEPT")
		before := n.all()
		r := New(n.f)
		p := dualStack()
		n.ensure(r, p)
		p.Masquerade = false
		n.ensure(r, p)
		n.wanted(r, p)
		p.Masquerade, p.Forward = true, false
		n.ensure(r, p)
		n.wanted(r, p)
		p.Networks = nil
		n.ensure(r, p)
		if after := n.all(); !slices.Equal(before, after) {
			t.Errorf("a policy without networks left\n%s", strings.Join(after, "\n"))
		}

		n.ensure(r, dualStack())
		another := New(n.f) // as the daemon that is started to clear up after one that was killed
		var changed []string
		if err := n.net.Do(func() (err error) { changed, err = another.Remove(t.Context()); return err }); err != nil {
			t.Fatal(err)
		}
		if after := n.all(); len(changed) == 0 || !slices.Equal(before, after) {
			t.Errorf("Remove says %q and left\n%s", changed, strings.Join(after, "\n"))
		}
		// It stays removed without being looked for.
		n.net.Do(func() error { changed, _ = another.Remove(t.Context()); return nil })
		n.wanted(another, Policy{})
		// The first Rules knows nothing of that, and puts them back.
		n.ensure(r, dualStack())
		n.wanted(r, dualStack())
	})
}

// TestConcurrent has several daemons and several callers of each set rules at the same time.
func TestConcurrent(t *testing.T) {
	eachVariant(t, func(t *testing.T, n node) {
		rules := []*Rules{New(n.f), New(n.f), New(n.f)}
		var wait sync.WaitGroup
		errs := make([]error, 2*len(rules))
		for i := range errs {
			wait.Go(func() {
				errs[i] = n.net.Do(func() error {
					_, err := rules[i%len(rules)].Ensure(t.Context(), dualStack())
					return err
				})
			})
		}
		wait.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		n.wanted(rules[0], dualStack())
	})
}

// TestOtherSpelling has an iptables that prints a rule in other words than it was given: it must not be set for ever.
func TestOtherSpelling(t *testing.T) {
	n := newNode(t, "nft", subnet.IPv4)
	program, err := exec.LookPath("iptables")
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\n" + program + " \"$@\" >" + n.log + ".out || exit $?\n" +
		"sed -e 's,--mark 0x4000/0x4000,--mark 16384/16384,' -e 's,-m comment --comment \\(\"selvage: forwarding\"\\),--comment \\1,' " + n.log + ".out\n"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "iptables"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program+"-restore", filepath.Join(dir, "iptables-restore")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	r := New(n.f)
	if n.ensure(r, dualStack()); n.runs() != 2 {
		t.Errorf("%d runs, want one a table", n.runs())
	}
	runs := n.runs()
	if changed := n.ensure(r, dualStack()); len(changed) > 0 || n.runs() != runs {
		t.Errorf("looking again changed %q", changed)
	}
	n.iptables("-t", "nat", "-D", MasqueradeChain, "1")
	if changed := n.ensure(r, dualStack()); len(changed) != 1 {
		t.Errorf("a rule that reads otherwise was deleted; changed %q", changed)
	}
}

// TestClearIsRemembered looks that a table which was found clear is not read again, until something was wanted of it.
func TestClearIsRemembered(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	programs(t, map[string]string{"iptables": version + "echo >>" + log + "\n" + noChain, "iptables-restore": version})
	r := New(subnet.IPv4)
	for i, step := range []struct {
		p     Policy
		fails bool
		lists int
	}{
		{Policy{}, false, 4},                                  // a chain of the kernel's and one of ours, in two tables
		{Policy{}, false, 0},                                  // remembered
		{dualStack(), true, 4 * (attempts + 1)},               // the restore program does nothing
		{Policy{Networks: dualStack().Networks}, false, 4},    // what that left is not known
		{Policy{Networks: prefixes("10.9.0.0/16")}, false, 0}, // another way to want nothing
	} {
		if err := os.WriteFile(log, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Ensure(t.Context(), step.p); (err != nil) != step.fails {
			t.Fatalf("step %d: %v", i, err)
		}
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(b), "\n"); got != step.lists {
			t.Errorf("step %d: %d listings, want %d", i, got, step.lists)
		}
	}
}
