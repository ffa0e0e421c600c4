package filter

import (
	"fmt"
	"strings"
)

// Mode is how our rules are set.
type Mode string

// The modes.
const (
	NFTables Mode = "nftables" // a table of our own, over netlink
	IPTables Mode = "iptables" // chains of our own in the tables of iptables, by that program
)

// facts are the inputs to the choice of a mode.
type facts struct {
	unsupported error    // why nftables cannot be used; nil: it can, or was not tried
	legacy      []string // tables of the legacy iptables with rules of other programs
	// overridable is a chain that drops overlay traffic, and would not if a rule before it accepted that traffic. Only
	// iptables can add such a rule.
	overridable string
	programs    bool // a suitable iptables is installed; set only if legacy or overridable is
	missing     bool // rules are desired and iptables is not installed; set only if EnableNFTables is false
}

// Reason is why a [Mode] was chosen, for programs.
type Reason int

// The reasons for a mode.
const (
	Default     Reason = iota + 1 // nothing requires another mode
	Configured                    // the network config asks for it
	NoIPTables                    // the network config asks for iptables, which is not installed
	NoNFTables                    // nftables is not supported
	LegacyInUse                   // the legacy iptables has rules
	ForeignDrop                   // a chain drops overlay traffic, and only an iptables rule before it can accept that
)

// choose returns the mode, and why. enable is EnableNFTables of the network config, nil if it is not set.
func choose(enable *bool, f facts) (m Mode, code Reason, why string) {
	switch {
	case enable != nil && !*enable && f.missing && f.unsupported == nil:
		return NFTables, NoIPTables, "EnableNFTables is false, and iptables is not installed"
	case enable != nil && !*enable:
		return IPTables, Configured, "EnableNFTables is false"
	case f.unsupported != nil:
		return IPTables, NoNFTables, "nftables is not supported"
	case enable != nil:
		return NFTables, Configured, "EnableNFTables is true"
	case len(f.legacy) > 0 && f.programs:
		return IPTables, LegacyInUse, "the legacy iptables is in use: it has rules in " + strings.Join(f.legacy, ", ")
	case f.overridable != "" && f.programs:
		return IPTables, ForeignDrop, f.overridable +
			" drops overlay traffic, and an iptables rule before it can accept that"
	case len(f.legacy) > 0 || f.overridable != "":
		return NFTables, Default, "supported, and no suitable iptables is installed"
	}
	return NFTables, Default, "supported, and nothing requires iptables"
}

// Unmet is why the mode that the network config asks for is not used.
type Unmet struct {
	Text   string // in one sentence
	Advice string // what to do about it
	Err    error  // why nftables cannot be used; nil: iptables is missing
}

// Error implements error.
func (u *Unmet) Error() string { return u.Text + " (" + u.Advice + ")" }

// Unwrap returns the cause, if there is one.
func (u *Unmet) Unwrap() error { return u.Err }

// unmet returns why the mode that the network config asks for cannot be used, or nil if it is.
func unmet(enable *bool, f facts) *Unmet {
	switch {
	case enable == nil:
		return nil
	case *enable && f.unsupported != nil:
		return &Unmet{
			Text: fmt.Sprintf("EnableNFTables is true, but nftables is not supported, so iptables is used: %v",
				f.unsupported),
			Advice: "use Linux 5.2 or later with nf_tables, nft_nat and nft_masq, or set EnableNFTables to false",
			Err:    f.unsupported,
		}
	case !*enable && f.missing && f.unsupported == nil:
		// Waiting would not help: the image from scratch has no iptables, and flannel's usual network config asks for
		// it.
		return &Unmet{
			Text:   "EnableNFTables is false, but iptables is not installed, so nftables is used",
			Advice: "install the package iptables, or use an image with it; or unset EnableNFTables, or set it to true",
		}
	}
	return nil
}
