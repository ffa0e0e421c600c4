package filter

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// host is a machine with one variant of iptables, "nft" or "legacy", under the plain names, or "none" at all.
type host struct {
	*nfttest.Foreign
	t      *testing.T
	ns     *sandbox.Host
	keeper *Keeper
	hidden []string // paths of programs
}

func newHost(t *testing.T, variant string) *host {
	t.Helper()
	ns, err := sandbox.NewHost("host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &host{t: t, ns: ns, Foreign: nfttest.New(t, ns)}
	if variant == "none" {
		h.hide()
	} else {
		links(t, variant)
	}
	h.restart()
	return h
}

// links puts a directory in front of PATH whose programs are links to those of one variant.
func links(t testing.TB, variant string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"iptables", "ip6tables"} {
		program, err := lookUp(name + "-" + variant)
		if err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"", "-restore"} {
			if err := os.Symlink(program+suffix, filepath.Join(dir, name+suffix)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// hide puts a file that nobody takes for a program over each iptables. Other hosts have other mounts.
func (h *host) hide() {
	h.t.Helper()
	h.do(func() error {
		const nothing = "/run/no-program"
		if err := os.WriteFile(nothing, nil, 0o644); err != nil {
			return err
		}
		for _, name := range []string{"iptables", "ip6tables"} {
			for _, p := range []string{name, name + "-nft", name + "-legacy", name + "-restore"} {
				over, err := resolve(p)
				if err != nil {
					continue // it is hidden already
				}
				if err := unix.Mount(nothing, over, "", unix.MS_BIND, ""); err != nil {
					return err
				}
				h.hidden = append(h.hidden, over)
			}
		}
		return nil
	})
}

// show takes back what hide did.
func (h *host) show() {
	h.t.Helper()
	h.do(func() error {
		for _, path := range h.hidden {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				return err
			}
		}
		return nil
	})
}

// resolve finds a program and follows links to the file that it is.
func resolve(program string) (string, error) {
	path, err := lookUp(program)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// restart puts another keeper in the place of the last one.
func (h *host) restart() {
	h.t.Helper()
	if h.keeper != nil {
		if err := h.keeper.Close(); err != nil {
			h.t.Error(err)
		}
	}
	k := NewKeeper()
	h.keeper = k
	h.t.Cleanup(func() { k.Close() })
}

func (h *host) do(fn func() error) {
	h.t.Helper()
	if err := h.ns.Do(fn); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) ensure(p Policy) (changed []string) {
	h.t.Helper()
	h.do(func() (err error) { changed, err = h.keeper.Ensure(h.t.Context(), p); return err })
	return changed
}

// iptables runs one command of a variant a line, such as "iptables -P FORWARD DROP".
func (h *host) iptables(variant string, rules ...string) {
	h.t.Helper()
	for _, r := range rules {
		program, rest, _ := strings.Cut(r, " ")
		h.Run(append([]string{program + "-" + variant, "--wait"}, strings.Fields(rest)...)...)
	}
}

// wishing is a usual policy with what a network config says of nftables.
func wishing(wish *bool) Policy {
	p := dualStack()
	p.NFTables, p.Devices = wish, []string{"flannel.1"}
	return p
}

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

// kept returns by what there are rules of ours: "nftables", "nft" and "legacy" for the variants of iptables.
func (h *host) kept() (by []string) {
	h.t.Helper()
	list := h.Listing()
	if strings.Contains(list, postroutingChain) {
		by = append(by, "nftables")
	}
	if strings.Contains(list, MasqueradeChain) {
		by = append(by, "nft")
	}
	var legacy []byte
	h.do(func() (err error) {
		path, err := lookUp("iptables-legacy-save")
		if err != nil {
			return nil // hidden: nobody made any then
		}
		legacy, err = exec.Command(path).CombinedOutput()
		return err
	})
	if strings.Contains(string(legacy), MasqueradeChain) {
		by = append(by, "legacy")
	}
	return by
}

// wants checks by what rules are kept, what the keeper says, and that there is nothing more to do.
func (h *host) wants(p Policy, m Mode, why string, by ...string) {
	h.t.Helper()
	if s := h.keeper.Status(); s.Mode != m || !strings.Contains(s.Why, why) {
		h.t.Errorf("the mode is %s (%s), want %s (%s)", s.Mode, s.Why, m, why)
	}
	if got := h.kept(); !slices.Equal(got, by) {
		h.t.Errorf("rules are kept by %v, want %v", got, by)
	}
	before := h.Listing()
	if changed := h.ensure(p); len(changed) > 0 {
		h.t.Errorf("looking again changed %q", changed)
	}
	h.Same(before)
}
