package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/node"
)

// defaultBPFFS is where BPF file systems are mounted by convention.
const defaultBPFFS = "/sys/fs/bpf"

// fastPathFlags are the flags that concern the fast path.
type fastPathFlags struct{ mode, bpffs string }

func (p *fastPathFlags) register(s *pflag.FlagSet) {
	s.StringVar(&p.mode, "fast-path", string(node.FastPathOff),
		"take established connections between pods past most of the network stack by eBPF: off, auto or on "+
			"(a problem in the status if that cannot be)")
	s.StringVar(&p.bpffs, "bpffs", defaultBPFFS,
		"BPF file system that keeps the fast path over a restart of the daemon; without one, it ends with the daemon")
}

// finish checks the flags and turns them into options.
func (p *fastPathFlags) finish(o *node.Options) error {
	o.FastPath, o.BPFFS = node.FastPathMode(p.mode), p.bpffs
	switch o.FastPath {
	case node.FastPathOff, node.FastPathAuto, node.FastPathOn:
		return nil
	}
	return fmt.Errorf("--fast-path: %q, want %s, %s or %s", p.mode, node.FastPathOn, node.FastPathOff,
		node.FastPathAuto)
}
