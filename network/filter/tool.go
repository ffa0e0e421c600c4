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

// lockWait is how long a program waits for the xtables lock, in seconds. The legacy variant takes it for every run.
const lockWait = 5

// errNoTable means that the kernel has no such table for this family, so it cannot hold rules of ours.
var errNoTable = errors.New("the kernel has no such table")

// tool is the iptables of one family: the program and the matching restore program.
type tool struct {
	path         string
	restorePath  string
	nft          bool // the variant on nf_tables, not the legacy one
	randomFully  bool // MASQUERADE supports --random-fully
	lockWaitSecs int
}

// find searches for the iptables of family f in PATH and then in the system's sbin directories, which the PATH of an
// ordinary user, and of some service managers, lacks.
func find(ctx context.Context, f subnet.Family) (*tool, error) {
	t, err := findProgram(ctx, program(f))
	if errors.Is(err, exec.ErrNotFound) {
		const advice = "install the package iptables, or run with --ip-masq=false --iptables-forward-rules=false"
		return nil, fmt.Errorf("%w: %s", err, advice)
	}
	return t, err
}

func program(f subnet.Family) string {
	return [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[f]
}

// findProgram is find for a program name.
func findProgram(ctx context.Context, name string) (*tool, error) {
	path, err := lookUp(name)
	if err != nil {
		return nil, err
	}
	// go-iptables knows which version has which feature. It does not run the programs: it takes no context, so a daemon
	// that is to end would wait for the xtables lock with it, and it does not support iptables-restore.
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

// findRestore returns the restore program for the iptables at path, of the given variant. The two variants write to
// different tables in the kernel: rules restored with one do not show in a listing of the other.
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
		tried = []string{"none"}
	}
	return "", fmt.Errorf("no iptables-restore found for %s (%s), candidates: %s: "+
		"install the whole package iptables, or set all its alternatives to one variant",
		path, want, strings.Join(tried, ", "))
}

// restoreCandidates returns the paths of the restore program beside path, and beside each program that path is a
// symbolic link to: iptables may be a link to iptables-legacy, whose restore program is iptables-legacy-restore.
func restoreCandidates(path string) []string {
	candidates := []string{path + "-restore"}
	for range 10 { // more links are a loop
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

// variant returns what a program prints in parentheses after its version: "nf_tables" or "legacy". Before 1.8 there was
// only the legacy variant, which printed neither.
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

// read returns the actual content of a table, as far as plan needs it.
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

// listIfThere is list for a chain that may not exist. The variants print different messages for that (nf_tables prints
// "incompatible"). The table was just read without an error, so exit code 1 means that the chain does not exist.
func (t *tool) listIfThere(ctx context.Context, table, chain string) (rules []string, exists bool, err error) {
	rules, err = t.list(ctx, table, chain)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, false, nil
	}
	return rules, err == nil, err
}

// list returns the rules of one chain, without the leading "-A CHAIN ".
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

// restore applies input, completely or not at all.
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

// run runs a program, and kills it when ctx ends. That is safe at any time: each of these programs changes the kernel
// in one step or not at all.
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

// explain adds a program's message, and what to do, to its error.
func explain(path, message string, err error) error {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(message, p) {
				return true
			}
		}
		return false
	}
	err = fmt.Errorf("%s: %w: %s", path, err, message)
	switch {
	case has("xtables lock"):
		return fmt.Errorf("%w (if it persists, find the program that holds the lock: fuser -v /run/xtables.lock)", err)
	case has("can't open lock file"):
		return fmt.Errorf("%w (make /run writable, or set XTABLES_LOCKFILE to a file that all programs here share)",
			err)
	case has("Permission denied", "Operation not permitted", "you must be root") || errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (run as root, or with the capability CAP_NET_ADMIN)", err)
	case has("can't initialize", "Table does not exist"):
		return fmt.Errorf("%w: %w (load its kernel module, such as iptable_nat or ip6table_nat)", errNoTable, err)
	case has("incompatible, use 'nft' tool"):
		return fmt.Errorf("%w (another program added rules with nft that iptables cannot read: see nft list ruleset)",
			err)
	default:
		return err
	}
}
