package kernel

import (
	"errors"
	"fmt"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// txChecksum is ethtool's name of NETIF_F_HW_CSUM (net/ethtool/common.c).
const txChecksum = "tx-checksum-ip-generic"

// readTxChecksum returns the state of a device's checksum offload, [network.AsItIs] if it cannot be read.
//
// It is not part of rtnetlink (ethtool netlink came with Linux 5.6, too late for the kernels that need this), but the
// kernel sends an RTM_NEWLINK when it changes.
func (k *Kernel) readTxChecksum(name string) network.Offload {
	features, err := k.features()
	if err != nil {
		return network.AsItIs
	}
	all, err := features.Features(name)
	if err != nil {
		return network.AsItIs
	}
	switch on, known := all[txChecksum]; {
	case !known:
		return network.AsItIs
	case on:
		return network.On
	default:
		return network.Off
	}
}

func (k *Kernel) setTxChecksum(name string, want network.Offload) error {
	features, err := k.features()
	if err != nil {
		return err
	}
	err = features.Change(name, map[string]bool{txChecksum: want == network.On})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: this kernel cannot switch it; run with --vxlan-tx-checksum=on, or another kernel", err)
	}
	return err
}

// features returns the socket that reads and sets offloads; most nodes never need it.
func (k *Kernel) features() (*ethtool.Ethtool, error) {
	if k.ethtool != nil {
		return k.ethtool, nil
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	k.ethtool = e
	return e, nil
}
