package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"github.com/selvage-net/selvage/subnet"
)

// lockWait is how many seconds a program waits for the xtables lock, which the legacy variant takes for every run.
const lockWait = 5

// errNoTable means that the kernel has no such table for this family, so that nothing of ours can be in it.
var errNoTable = errors.New("the kernel has no such table")

// tool is the iptables of one family: the program and the restore program that belongs to it.
type tool struct {
	path         string
	restorePath  string
	nft          bool // the variant on nf_tables, not the legacy one
	randomFully  bool // MASQUERADE knows --random-fully
	lockWaitSecs int
}

// find looks for the iptables of family f in PATH, then where the system keeps it: an ordinary user's PATH, and that of
// some service managers, leaves sbin out.
func find(ctx context.Context, f subnet.Family) (*tool, error) {
	t, err := findProgram(ctx, program(f))
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w: install the package iptables, or run with --ip-masq=false --iptables-forward-rules=false", err)
	}
	return t, err
}

func program(f subnet.Family) string {
	return [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[f]
}

// findProgram is find for a program by its name.
func findProgram(ctx context.Context, name string) (*tool, error) {
	path, err := lookUp(name)
	if err != nil {
		return nil, err
	}
	// go-iptables knows which version has which feature. It does not do the running: it takes no context, so a daemon that
	// is to end would wait with it for the xtables lock, and it knows no restore.
	known, err := iptables.New(iptables.Path(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t := &tool{path: path, randomFully: known.HasRandomFully(), lockWaitSecs: lockWait}
	kind, err := variant(ctx, path)
	if err != nil {
		return nil, err
	}
	t.nft = kind == "nf_tables"
	t.restorePath, err = findRestore(ctx, path, kind)
	return t, err
}

func lookUp(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range fallbacks() {
		if path, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			return path, nil
		}
	}
	return "", err
}

func fallbacks() []string { return []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} }

// findRestore returns the restore program of the wanted variant that belongs to the iptables at path. The two variants write to
// different tables of the kernel: to list with one and restore with the other would never agree.
func findRestore(ctx context.Context, path, want string) (string, error) {
	var tried []string
	for _, candidate := range restoreCandidates(path) {
		if _, err := exec.LookPath(candidate); err != nil {
			continue
		}
		have, err := variant(ctx, candidate)
		if err != nil {
			return "", err
		}
		if have == want {
			return candidate, nil
		}
		tried = append(tried, fmt.Sprintf("%s (%s)", candidate, have))
	}
	if len(tried) == 0 {
		tried = []string{"nothing"}
	}
	return "", fmt.Errorf("no iptables-restore found that belongs to %s (%s); looked at: %s; "+
		"install the package iptables in whole, or set its alternatives alike", path, want, strings.Join(tried, ", "))
}

// restoreCandidates names the restore program beside path, and beside each program that path is a symbolic link to:
// iptables may be a link to iptables-legacy, whose restore is iptables-legacy-restore.
func restoreCandidates(path string) []string {
	candidates := []string{path + "-restore"}
	for range 10 { // more links than that are a loop
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
		candidates = append(candidates, path+"-restore")
	}
	return candidates
}

// variant returns what a program says in parentheses behind its version: "nf_tables" or "legacy". Before 1.8 there was
// only the latter, and it did not say so.
func variant(ctx context.Context, path string) (string, error) {
	out, err := run(ctx, "", path, "--version")
	if err != nil {
		return "", err
	}
	if m := regexp.MustCompile(`\((\w+)\)`).FindStringSubmatch(out); m != nil {
		return m[1], nil
	}
	return "legacy", nil
}

// read returns what a table holds that plan needs to know.
func (t *tool) read(ctx context.Context, want table) (state, error) {
	var s state
	var err error
	if s.parent, err = t.list(ctx, want.name, want.parent); err != nil {
		return s, err
	}
	if s.rules, s.exists, err = t.listIfThere(ctx, want.name, want.chain); err != nil {
		return s, err
	}
	if want.networks == nil {
		return s, nil
	}
	s.blocking = map[string]bool{}
	for _, r := range s.parent {
		s.blocking[r] = blocks(r, want.networks, func(chain string) []string {
			rules, _, e := t.listIfThere(ctx, want.name, chain)
			err = errors.Join(err, e)
			return rules
		})
	}
	return s, err
}

// listIfThere is list for a chain that may not exist. The variants have different words for that ("incompatible", says
// nf_tables); it is asked about a table that was read with no complaint, so that is what exit code 1 means.
func (t *tool) listIfThere(ctx context.Context, table, chain string) (rules []string, exists bool, err error) {
	rules, err = t.list(ctx, table, chain)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, false, nil
	}
	return rules, err == nil, err
}

// list returns the rules of one chain, less the leading "-A CHAIN ".
func (t *tool) list(ctx context.Context, table, chain string) ([]string, error) {
	out, err := run(ctx, "", t.path, "--wait", strconv.Itoa(t.lockWaitSecs), "-t", table, "-S", chain)
	if err != nil {
		return nil, fmt.Errorf("list chain %s of table %s: %w", chain, table, err)
	}
	var rules []string
	for line := range strings.Lines(out) {
		if r, ok := strings.CutPrefix(strings.TrimSpace(line), "-A "+chain+" "); ok {
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// restore applies input, in whole or not at all.
func (t *tool) restore(ctx context.Context, input string) error {
	_, err := run(ctx, input, t.restorePath, "--noflush", "--wait", strconv.Itoa(t.lockWaitSecs))
	if err == nil {
		return nil
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(input, "*"), "\n")
	if m := regexp.MustCompile(`line:? (\d+)`).FindStringSubmatch(err.Error()); m != nil {
		lines := strings.Split(input, "\n")
		if n, _ := strconv.Atoi(m[1]); n >= 1 && n <= len(lines) {
			return fmt.Errorf("set table %s, at %q: %w", name, lines[n-1], err)
		}
	}
	return fmt.Errorf("set table %s: %w", name, err)
}

// run runs a program to its end, or until ctx ends, which kills it: each of these programs changes the kernel in one step
// or not at all, so that it can be killed at any time.
func run(ctx context.Context, stdin string, path string, args ...string) (stdout string, err error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second // a child of a wrapper script may hold the pipes open
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("%s: %w", path, context.Cause(ctx))
		}
		return "", explain(path, strings.Join(strings.Fields(errs.String()), " "), err)
	}
	return out.String(), nil
}

// explain adds to the failure of a program what it said, and what to do.
func explain(path, said string, err error) error {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(said, p) {
				return true
			}
		}
		return false
	}
	err = fmt.Errorf("%s: %w: %s", path, err, said)
	switch {
	case has("xtables lock"):
		return fmt.Errorf("%w (if it stays: find the program that holds the lock with: fuser -v /run/xtables.lock)", err)
	case has("can't open lock file"):
		return fmt.Errorf("%w (make /run writable, or point XTABLES_LOCKFILE at a file that all programs here share)", err)
	case has("Permission denied", "Operation not permitted", "you must be root") || errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (run as root, or with the capability CAP_NET_ADMIN)", err)
	case has("can't initialize", "Table does not exist"):
		return fmt.Errorf("%w: %w (load the kernel's module for it, such as iptable_nat or ip6table_nat)", errNoTable, err)
	case has("incompatible, use 'nft' tool"):
		return fmt.Errorf("%w (another program put rules there with nft that iptables cannot read: see nft list ruleset)", err)
	default:
		return err
	}
}
