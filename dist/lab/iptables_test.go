package lab

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

func TestUseIPTables(t *testing.T) {
	version := func(h *sandbox.Host, program string) (string, error) {
		out, err := in(h.Do, func() ([]byte, error) { return exec.Command(program, "--version").Output() })
		return string(out), err
	}
	untouched, err := sandbox.NewHost("untouched")
	if err != nil {
		t.Fatal(err)
	}
	defer untouched.Close()
	before, err := version(untouched, "iptables")
	if err != nil {
		t.Fatal(err)
	}
	for variant, want := range map[string]string{"nft": "(nf_tables)", "legacy": "(legacy)", "none": ""} {
		h, err := sandbox.NewHost(variant)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := useIPTables(h, variant); err != nil {
			t.Fatal(err)
		}
		for _, program := range []string{"iptables", "ip6tables", "iptables-save", "ip6tables-restore"} {
			got, err := version(h, program)
			if variant == "none" {
				if !errors.Is(err, exec.ErrNotFound) {
					t.Errorf("%s without iptables: %q, %v", program, got, err)
				}
			} else if err != nil || !strings.Contains(got, want) {
				t.Errorf("%s of %s: %q, %v", program, variant, got, err)
			}
		}
		if now, err := version(untouched, "iptables"); now != before || err != nil {
			t.Errorf("%s: another host has %q, %v, want %q", variant, now, err, before)
		}
	}
}
