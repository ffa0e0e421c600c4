package fastpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Missing says what the fast path needs and this process or kernel does not have, each with what to do. pins is as in
// [Options]. It loads tiny programs to find out; nothing of them stays.
func Missing(pins string) (missing []string) {
	if lacking := lackingCapabilities(); len(lacking) > 0 {
		return lacking // without them the kernel says no more about itself
	}
	if err := features.HaveProgramType(ebpf.SchedCLS); err != nil {
		const what = "programs for packets (CONFIG_BPF_SYSCALL; the kernel refuses them in a user namespace)"
		return []string{fmt.Sprintf("%s: %v", what, err)}
	}
	for _, helper := range []struct {
		fn    asm.BuiltinFunc
		since string
	}{{asm.FnRedirectPeer, "5.10"}, {asm.FnKtimeGetCoarseNs, "5.11"}} {
		if err := features.HaveProgramHelper(ebpf.SchedCLS, helper.fn); err != nil {
			missing = append(missing, fmt.Sprintf("kernel function %s (Linux %s)", helper.fn, helper.since))
		}
	}
	_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		missing = append(missing, "tcx, where programs are attached to interfaces (Linux 6.6)")
	}
	missing = append(missing, missingFunctions()...)
	if pins != "" && !IsBPFFS(pins) {
		missing = append(missing, "a BPF file system at "+pins+" (mount -t bpf bpf /sys/fs/bpf)")
	}
	return missing
}

// Permitted reports whether this process may load programs at all: if not, that is what [Missing] is about.
func Permitted() bool {
	return len(lackingCapabilities()) == 0 &&
		!errors.Is(features.HaveProgramType(ebpf.SchedCLS), unix.EPERM) // in a user namespace
}

// lackingCapabilities are those that the kernel asks for. CAP_SYS_ADMIN stands for two of them (capabilities(7)).
func lackingCapabilities() (lacking []string) {
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return []string{fmt.Sprintf("capabilities, which cannot be read: %v", err)}
	}
	has := func(c int) bool { return caps[c/32].Effective&(1<<(c%32)) != 0 }
	for _, c := range []struct {
		number int
		name   string
		admin  bool
	}{
		{unix.CAP_BPF, "CAP_BPF", true}, {unix.CAP_PERFMON, "CAP_PERFMON", true},
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", false},
	} {
		if !has(c.number) && !(c.admin && has(unix.CAP_SYS_ADMIN)) {
			lacking = append(lacking, "capability "+c.name)
		}
	}
	return lacking
}

// missingFunctions are conntrack's functions for programs (net/netfilter/nf_conntrack_bpf.c) that the kernel has not.
func missingFunctions() (missing []string) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return []string{"the kernel's description of its types (CONFIG_DEBUG_INFO_BTF)"}
	}
	specs := []*btf.Spec{kernel}
	if module, err := btf.LoadKernelModuleSpec("nf_conntrack"); err == nil {
		specs = append(specs, module)
	}
	for _, name := range []string{"bpf_skb_ct_lookup", "bpf_ct_release", "bpf_ct_change_timeout"} {
		var fn *btf.Func
		found := false
		for _, s := range specs {
			found = found || s.TypeByName(name, &fn) == nil
		}
		if !found {
			missing = append(missing, "kernel function "+name+" (Linux 6.0, with nf_conntrack loaded)")
		}
	}
	return missing
}

// IsBPFFS reports whether a directory, or the nearest one above that exists, is in a BPF file system (bpf(2)).
func IsBPFFS(dir string) bool {
	for {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if err == nil {
			return s.Type == unix.BPF_FS_MAGIC
		}
		if !errors.Is(err, os.ErrNotExist) || dir == "/" || dir == "." {
			return false
		}
		dir = filepath.Dir(dir)
	}
}
