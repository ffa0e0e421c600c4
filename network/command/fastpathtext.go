package command

import (
	"fmt"

	"github.com/selvage-net/selvage/network/node/status"
)

// fastPathLines describe the fast path in a line, and the pods' ports that do not use it. There is none if the daemon's
// flags turn it off.
func fastPathLines(f *status.FastPath) (lines []string) {
	if f == nil {
		return nil
	}
	sent, received := f.Fast()
	text := fmt.Sprintf("%d pods' ports, %d subnets of other nodes; %d packets sent, %d received",
		f.Ports, f.Peers, sent, received)
	switch {
	case !f.InUse:
		text = fmt.Sprintf("not in use: %s", f.Why)
	case !f.Pinned:
		text += "; it ends with the daemon, as there is no BPF file system"
	}
	lines = append(lines, text)
	for _, p := range f.Slow {
		lines = append(lines, fmt.Sprintf("not %s: %s", p.Port, p.Why))
	}
	return lines
}
