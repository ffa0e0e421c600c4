package doctor

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

const fastPathCheck = "fast-path"

// beLiberal is a setting that the fast path needs.
const beLiberal = "net/netfilter/nf_conntrack_tcp_be_liberal"

// checkFastPath checks that the fast path is in use where it is to be.
func checkFastPath(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil
	}
	for _, p := range f.Status.Problems {
		if p.Code == status.FastPathNotRemoved {
			all = append(all, warning(log+" shows the kernel's error; the programs do nothing any more", "%s", p.Text))
		}
	}
	fast := f.Status.FastPath
	if fast == nil {
		return append(all, passed("the fast path is off"))
	}
	if !fast.InUse {
		text := "the fast path is not in use, for " + f.Now.Sub(fast.Since).Round(time.Second).String()
		remedy := fastPathRemedies()[fast.Code]
		switch {
		case fast.Mode == "on" && fast.Code != status.FastPathStarting:
			all = append(all, failure(remedy, "%s: %s", text, fast.Why))
		default:
			found := passed("%s: %s", text, fast.Why)
			found.Advice = remedy
			all = append(all, found)
		}
		return all
	}
	if !fast.Pinned {
		all = append(all, warning("mount -t bpf bpf /sys/fs/bpf, and restart selvaged",
			"the fast path ends with the daemon, because there is no BPF file system"))
	}
	for _, s := range fast.Slow {
		all = append(all, warning(fastPathRemedies()[s.Code],
			"the port %s of a pod does not use the fast path: %s", s.Port, s.Why))
	}
	return append(all, f.checkConntrack()...)
}

// checkConntrack checks that conntrack does not take packets for invalid after others of their connection were fast.
func (f Facts) checkConntrack() []Finding {
	if value, known := f.Sysctls[beLiberal]; known && value != "1" {
		return []Finding{failure("sysctl -w "+sysctlName(beLiberal)+"=1; find what sets it to "+value,
			"%s is %s: conntrack takes packets for invalid after others of their connection were fast, and packet "+
				"filters drop these", sysctlName(beLiberal), value)}
	}
	fast := f.Status.FastPath
	sent, received := fast.Fast()
	return []Finding{passed("the fast path is in use by %d pods' ports, for %d subnets of other nodes: "+
		"%d packets were sent by it, %d received; conntrack has taken %d of all packets for invalid",
		fast.Ports, fast.Peers, sent, received, f.Invalid)}
}

// InvalidPackets adds up the column "invalid" of /proc/net/stat/nf_conntrack: a line of names, then one of hexadecimal
// numbers for each processor (ct_cpu_seq_show in net/netfilter/nf_conntrack_standalone.c).
func InvalidPackets(text string) (total uint64) {
	column := -1
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if column < 0 {
			if column = slices.Index(fields, "invalid"); column < 0 {
				return 0
			}
			continue
		}
		if column < len(fields) {
			n, _ := strconv.ParseUint(fields[column], 16, 64) // the kernel writes numbers
			total += n
		}
	}
	return total
}

// fastPathRemedies says what to do about the reasons why the fast path is not in use.
func fastPathRemedies() map[status.Reason]string {
	const otherwise, harmless = "; otherwise set --fast-path=off", "; if that has to be there, there is nothing to do"
	return map[status.Reason]string{
		status.Unsupported: "boot Linux 6.6 or later with CONFIG_DEBUG_INFO_BTF, and modprobe nf_conntrack" + otherwise,
		status.NotPermitted: "give the daemon CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and run it outside of a user " +
			"namespace" + otherwise,
		status.FastPathBackend: "set --fast-path=off: only the backends vxlan and host-gw have a fast path",
		status.FastPathFailed:  log + " shows the kernel's error",
		status.FastPathQueue:   "\"tc qdisc show\" and \"tc filter show\" list what is there" + harmless,
		status.FastPathProgram: "\"bpftool net\" lists the programs" + harmless,
		status.FastPathChain:   "\"nft list ruleset\" shows the chain" + harmless,
	}
}
