package filter

import (
	"errors"
	"fmt"
	"strings"
)

// Mode is by what our rules are kept.
type Mode string

// The modes.
const (
	NFTables Mode = "nftables" // a table of our own, over netlink
	IPTables Mode = "iptables" // chains of our own in the tables of iptables, by that program
)

// facts are what the choice of a mode rests on.
type facts struct {
	unsupported error    // why nftables cannot be used here, as far as it was tried
	legacy      []string // tables of the legacy iptables that hold rules which are not ours
	// undoable is a chain that drops the overlay's packets and would not with a rule of ours put before, which only iptables
	// can do.
	undoable string
	// programs tells whether iptables is there for that: asked for only where something speaks for it.
	programs bool
	// missing: rules are wanted, and there is no iptables to set them with. It is looked for only where that is wished.
	missing bool
}

// choose returns the mode for what the network config says (EnableNFTables), or does not, and why.
func choose(wish *bool, f facts) (m Mode, why string) {
	switch {
	case wish != nil && !*wish && f.missing && f.unsupported == nil:
		return NFTables, "EnableNFTables is false, and there is no iptables"
	case wish != nil && !*wish:
		return IPTables, "EnableNFTables is false"
	case f.unsupported != nil:
		return IPTables, "nftables cannot be used here"
	case wish != nil:
		return NFTables, "EnableNFTables is true"
	case len(f.legacy) > 0 && f.programs:
		return IPTables, "the legacy iptables is in use here, it has rules in " + strings.Join(f.legacy, ", ")
	case f.undoable != "" && f.programs:
		return IPTables, f.undoable + " drops the overlay's packets, which a rule before that undoes"
	case len(f.legacy) > 0 || f.undoable != "":
		return NFTables, "it works here, and there is no iptables that would fit"
	}
	return NFTables, "it works here, and nothing speaks for iptables"
}

// unmet is what is to be said if the network config's wish cannot be followed, and the other mode does it meanwhile.
func unmet(wish *bool, f facts) error {
	switch {
	case wish == nil:
		return nil
	case *wish && f.unsupported != nil:
		return fmt.Errorf("EnableNFTables is true, and nftables cannot be used here, so iptables is: %w "+
			"(masquerading by it needs Linux 5.2, with nf_tables, nft_nat and nft_masq; or set EnableNFTables to false)", f.unsupported)
	case !*wish && f.missing && f.unsupported == nil:
		return errNoIPTables
	}
	return nil
}

// errNoIPTables is nothing to wait for: the image from scratch has no iptables, and flannel's usual network config wants it.
var errNoIPTables = errors.New("EnableNFTables is false, and there is no iptables here, so nftables is used " +
	"(install the package iptables, or use an image with it; or leave EnableNFTables out, or set it to true)")
