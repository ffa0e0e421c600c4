package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// legacyNames are what the legacy programs are called when the system's alternatives point to them.
var legacyNames = map[string]string{
	"iptables": "iptables-legacy", "iptables-save": "iptables-legacy-save", "iptables-restore": "iptables-legacy-restore",
	"ip6tables": "ip6tables-legacy", "ip6tables-save": "ip6tables-legacy-save", "ip6tables-restore": "ip6tables-legacy-restore",
}

// useLegacy has everybody find the legacy iptables in PATH: daemons, CNI plugins and faults. It says how to end that. PATH
// is the process's, so there can be one such suite at a time and no other beside it.
func useLegacy(dir string) (end func() error, err error) {
	bin := filepath.Join(dir, "legacy")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return nil, err
	}
	for name, legacy := range legacyNames {
		program, err := exec.LookPath(legacy)
		if err != nil {
			program, err = exec.LookPath(filepath.Join("/usr/sbin", legacy)) // not in an ordinary user's PATH
		}
		if err != nil {
			return nil, fmt.Errorf("%w: the package iptables has it, where the legacy variant still exists", err)
		}
		if err := os.Symlink(program, filepath.Join(bin, name)); err != nil {
			return nil, err
		}
	}
	before := os.Getenv("PATH")
	if err := os.Setenv("PATH", bin+":"+before); err != nil {
		return nil, err
	}
	return func() error { return os.Setenv("PATH", before) }, nil
}

// legacyFaults lists the faults for a suite whose iptables is the legacy one.
func legacyFaults() (legacy []Fault) {
	for _, f := range allFaults() {
		if f.Class == Rules && !f.NFTables {
			legacy = append(legacy, f)
		}
	}
	return legacy
}
