package filter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// programs makes a directory with shell scripts, by name, and makes it all there is in PATH.
func programs(t *testing.T, scripts map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

// version begins a script that answers like iptables when it is asked for its version; noChain is a chain of ours that is
// not there.
const (
	version = "if [ \"$1\" = --version ]; then echo 'iptables v1.8.9 (legacy)'; exit; fi\n"
	noChain = "case \"$*\" in *SELVAGE*) exit 1; esac\n"
)

func TestFind(t *testing.T) {
	says := func(name, v string) string { return "echo '" + name + " " + v + "'" }
	tests := []struct {
		name    string
		scripts map[string]string
		links   map[string]string // from, to
		want    tool              // paths below the directory
		err     string            // with DIR for it
	}{
		{name: "side by side", scripts: map[string]string{
			"iptables": says("iptables", "v1.8.9 (nf_tables)"), "iptables-restore": says("iptables-restore", "v1.8.9 (nf_tables)")},
			want: tool{path: "iptables", restorePath: "iptables-restore", nft: true, randomFully: true, lockWaitSecs: lockWait}},
		{name: "old ones, which name no variant", scripts: map[string]string{
			"iptables": says("iptables", "v1.6.1"), "iptables-restore": says("iptables-restore", "v1.6.1")},
			want: tool{path: "iptables", restorePath: "iptables-restore", lockWaitSecs: lockWait}},
		{name: "restore is of the other variant, but iptables is a link", scripts: map[string]string{
			"xt-legacy": says("iptables", "v1.8.9 (legacy)"), "xt-legacy-restore": says("iptables-restore", "v1.8.9 (legacy)"),
			"iptables-restore": says("iptables-restore", "v1.8.9 (nf_tables)")},
			links: map[string]string{"iptables": "alternative", "alternative": "xt-legacy"},
			want:  tool{path: "iptables", restorePath: "xt-legacy-restore", randomFully: true, lockWaitSecs: lockWait}},
		{name: "restore is of the other variant", scripts: map[string]string{
			"iptables": says("iptables", "v1.8.9 (legacy)"), "iptables-restore": says("iptables-restore", "v1.8.9 (nf_tables)")},
			err: "no iptables-restore found for DIR/iptables (legacy), candidates: DIR/iptables-restore (nf_tables): " +
				"install the whole package iptables, or set all its alternatives to one variant"},
		{name: "no restore", scripts: map[string]string{"iptables": says("iptables", "v1.8.9 (legacy)")},
			err: "no iptables-restore found for DIR/iptables (legacy), candidates: none: " +
				"install the whole package iptables, or set all its alternatives to one variant"},
		{name: "restore fails", scripts: map[string]string{"iptables": says("iptables", "v1.8.9 (legacy)"), "iptables-restore": "echo broken >&2; exit 3"},
			err: "DIR/iptables-restore: exit status 3: broken"},
		{name: "no version", scripts: map[string]string{"iptables": "echo hello"}, err: "DIR/iptables: failed to extract iptables version from [hello\n]: no iptables version found in string: hello\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := programs(t, tt.scripts)
			for from, to := range tt.links {
				if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := find(t.Context(), subnet.IPv4)
			if tt.err != "" {
				if want := strings.ReplaceAll(tt.err, "DIR", dir); err == nil || err.Error() != want {
					t.Fatalf("error\n%v\nwant\n%s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			want.path, want.restorePath = filepath.Join(dir, want.path), filepath.Join(dir, want.restorePath)
			if *got != want {
				t.Errorf("%+v, want %+v", *got, want)
			}
		})
	}
}

// TestMissing has neither PATH nor the system's own directories hold an iptables.
func TestMissing(t *testing.T) {
	programs(t, nil)
	if path, err := lookUp("ip6tables"); err != nil || filepath.Dir(path) == "." {
		t.Errorf("ip6tables, which is not in PATH, was found at %q: %v", path, err)
	}
	empty := t.TempDir()
	for _, dir := range sbin() {
		if err := unix.Mount(empty, dir, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
	}
	r := New(subnet.IPv4, subnet.IPv6)
	if changed, err := r.Ensure(t.Context(), Policy{Networks: dualStack().Networks}); err != nil || len(changed) > 0 {
		t.Errorf("a policy that needs no iptables: %q, %v", changed, err)
	}
	_, err := r.Ensure(t.Context(), dualStack())
	const want = `IPv4 packet filter: exec: "iptables": executable file not found in $PATH: install the package iptables, or run with --ip-masq=false --iptables-forward-rules=false
IPv6 packet filter: exec: "ip6tables": executable file not found in $PATH: install the package iptables, or run with --ip-masq=false --iptables-forward-rules=false`
	if err == nil || err.Error() != want || !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
}

// TestFailures has a program say what the real ones say, and looks that the error tells what to do.
func TestFailures(t *testing.T) {
	const nat = `  case "$*" in *"-t nat"*) `
	tests := []struct {
		name, script, restore string
		want                  []string // parts of the error
		off                   bool     // with a policy that wants nothing
	}{
		{name: "not permitted", script: "echo \"iptables v1.8.9 (legacy): can't initialize iptables table \\`filter': Permission denied (you must be root)\" >&2; exit 3",
			want: []string{"list chain FORWARD of table filter", "Permission denied", "CAP_NET_ADMIN"}},
		{name: "lock file", script: `echo "Fatal: can't open lock file /run/xtables.lock: Read-only file system" >&2; exit 4`,
			want: []string{"Read-only file system", "XTABLES_LOCKFILE"}},
		{name: "lock", script: `echo "Another app is currently holding the xtables lock. Stopped waiting after 5s." >&2; exit 4`,
			want: []string{"Stopped waiting after 5s", "fuser -v /run/xtables.lock"}},
		{name: "foreign nft rules", script: `[ "$6" = SELVAGE-FWD ] && exit 1; echo "table 'filter' is incompatible, use 'nft' tool." >&2; exit 1`,
			want: []string{"list chain FORWARD of table filter", "nft list ruleset"}},
		{name: "no such table", script: nat + `echo "can't initialize iptables table 'nat': Table does not exist (do you need to insmod?)" >&2; exit 3;; esac`,
			want: []string{"the kernel has no such table", "list chain POSTROUTING of table nat", "iptable_nat"}},
		{name: "no such table, and none needed", off: true,
			script: nat + `echo "can't initialize iptables table 'nat': Table does not exist (do you need to insmod?)" >&2; exit 3;; esac`},
		{name: "our chain cannot be listed", script: `case "$*" in *SELVAGE*) echo "out of memory" >&2; exit 4;; esac`,
			want: []string{"list chain SELVAGE-FWD of table filter", "exit status 4: out of memory"}},
		{name: "restore fails at a line", restore: "echo 'iptables-restore: line 4 failed' >&2; exit 1",
			want: []string{`set table filter, at "-A SELVAGE-FWD -d 10.5.0.0/16`, "set table nat, at", "line 4 failed"}},
		{name: "restore fails as a whole", restore: "echo 'iptables-restore: COMMIT expected at line 99' >&2; exit 2",
			want: []string{"set table filter: ", "exit status 2"}},
		{name: "restore does nothing", restore: "exit 0", want: []string{"table filter: another program keeps changing", "table nat: another program keeps changing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			programs(t, map[string]string{"iptables": version + tt.script + "\n" + noChain, "iptables-restore": version + tt.restore})
			p := dualStack()
			if tt.off {
				p = Policy{}
			}
			_, err := New(subnet.IPv4).Ensure(t.Context(), p)
			if len(tt.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
		})
	}
	if _, err := New(subnet.IPv4).Ensure(t.Context(), Policy{Networks: prefixes("10.5.1.0/16")}); err == nil {
		t.Error("a policy that is not valid was taken")
	}
}

// TestTableChangesUnderUs has each restore fail while somebody else changes the table: that is tried again, but not for
// ever.
func TestTableChangesUnderUs(t *testing.T) {
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	programs(t, map[string]string{
		"iptables":         version + noChain + "while read -r rule; do echo \"$rule\"; done <" + count,
		"iptables-restore": version + "echo '-A FORWARD -j SELVAGE-FWD' >>" + count + "\necho 'line 2 failed' >&2; exit 1",
	})
	if err := os.WriteFile(count, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := dualStack()
	p.Masquerade = false
	_, err := New(subnet.IPv4).Ensure(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "line 2 failed") {
		t.Errorf("error %v", err)
	}
	b, _ := os.ReadFile(count)
	if got := strings.Count(string(b), "\n"); got != attempts {
		t.Errorf("%d attempts, want %d", got, attempts)
	}
}

// TestLocked has somebody else hold the xtables lock for longer than we wait.
func TestLocked(t *testing.T) {
	n := newNode(t, "legacy", subnet.IPv4)
	lock, err := os.OpenFile("/run/xtables.lock", os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	r := New(n.f)
	if r.tools[n.f], err = find(t.Context(), n.f); err != nil {
		t.Fatal(err)
	}
	r.tools[n.f].lockWaitSecs = 1
	p := dualStack()
	p.Masquerade = false
	r.clear[n.f.String()+"nat"] = true
	err = n.net.Do(func() error { _, err := r.Ensure(t.Context(), p); return err })
	if err == nil || !strings.Contains(err.Error(), "fuser -v /run/xtables.lock") {
		t.Errorf("error %v", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	n.ensure(r, p)
	n.wanted(r, p)
}

// TestCancelled ends the context while a program runs that would run for ever.
func TestCancelled(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "started")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	programs(t, map[string]string{
		"iptables":         fmt.Sprintf("%secho >%s\nwhile :; do :; done", version, fifo),
		"iptables-restore": version,
	})
	stop := errors.New("the daemon is to end")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() {
		_, err := New(subnet.IPv4).Ensure(ctx, dualStack())
		ended <- err
	}()
	if _, err := os.ReadFile(fifo); err != nil { // waits for the program
		t.Fatal(err)
	}
	cancel(stop)
	if err := <-ended; !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
}

// sbin returns the directories that lookUp falls back to, by their true names.
func sbin() (dirs []string) {
	for _, dir := range fallbacks() {
		if to, err := filepath.EvalSymlinks(dir); err == nil && !slices.Contains(dirs, to) {
			dirs = append(dirs, to)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			panic(err)
		}
	}
	return dirs
}

// TestReplaced has the programs that were found go, as in an upgrade, and others come in another place.
func TestReplaced(t *testing.T) {
	scripts := map[string]string{"iptables": version + noChain, "iptables-restore": version}
	before := programs(t, scripts)
	r := New(subnet.IPv4)
	if _, err := r.Ensure(t.Context(), Policy{}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(before); err != nil {
		t.Fatal(err)
	}
	programs(t, scripts)
	if _, err := r.Ensure(t.Context(), dualStack()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want one that says the program is gone", err)
	}
	if _, err := r.Ensure(t.Context(), Policy{}); err != nil {
		t.Errorf("the new program was not looked for: %v", err)
	}
}

// TestNotified: only of what is built on nf_tables the kernel tells, and of nothing that has no tool yet.
func TestNotified(t *testing.T) {
	families := subnet.Families()
	r := New(families[:]...)
	for _, tt := range []struct {
		four, six *tool
		want      bool
	}{
		{nil, nil, false},
		{&tool{nft: true}, nil, true},
		{&tool{nft: true}, &tool{nft: true}, true},
		{&tool{nft: true}, &tool{}, false},
		{nil, &tool{}, false},
	} {
		r.tools = [2]*tool{subnet.IPv4: tt.four, subnet.IPv6: tt.six}
		if got := r.Notified(); got != tt.want {
			t.Errorf("%+v, %+v: %t", tt.four, tt.six, got)
		}
	}
}
