package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// useIPTables has all that runs on a host find one variant of iptables, "nft" or "legacy", under the plain names. With
// "none" it finds no iptables at all, and with "" that of the machine. What there is gets covered with something else, which
// concerns no other host: each has mounts of its own.
func useIPTables(host *sandbox.Host, variant string) error {
	covers, err := iptablesCovers(variant)
	if err != nil || len(covers) == 0 {
		return err
	}
	return host.Do(func() error {
		// exec.LookPath, a shell and the kernel take no file for a program that is not executable.
		if err := os.WriteFile(noProgram, nil, 0o644); err != nil {
			return err
		}
		for over, program := range covers {
			if err := unix.Mount(program, over, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("%s: put %s in the place of %s: %w", host.Name(), program, over, err)
			}
		}
		return nil
	})
}

// noProgram is a file that is put over a program to hide it.
const noProgram = "/run/no-program"

// iptablesCovers returns which programs to cover, and each with what.
func iptablesCovers(variant string) (map[string]string, error) {
	covers := map[string]string{}
	if variant == "" {
		return covers, nil
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			var err error
			if variant == "none" {
				hide(covers, family+suffix, family+"-nft"+suffix, family+"-legacy"+suffix)
			} else {
				err = cover(covers, family+suffix, family+"-"+variant+suffix)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return covers, nil
}

// cover puts program under the name over, unless that is what it is.
func cover(covers map[string]string, over, program string) error {
	what, err := resolve(over)
	if err != nil {
		return err
	}
	with, err := resolve(program)
	if err != nil {
		return fmt.Errorf("%w: it belongs to the package iptables", err)
	}
	if what != with {
		covers[what] = with // all six are links to one file, which goes by the name that it is run by
	}
	return nil
}

// hide hides those of the programs that there are.
func hide(covers map[string]string, programs ...string) {
	for _, p := range programs {
		if file, err := resolve(p); err == nil {
			covers[file] = noProgram
		}
	}
}

// resolve finds a program and follows links to the file that it is.
func resolve(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}
