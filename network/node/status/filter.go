package status

import (
	"fmt"
	"net/netip"
)

// Filter is the packet filter.
type Filter struct {
	Mode    string `json:"mode,omitempty"` // how the rules in force are kept: "nftables" or "iptables"
	Code    Reason `json:"code,omitempty"` // why in this mode
	Why     Text   `json:"why,omitempty"`  // the same for people
	InForce bool   `json:"in_force"`
	// Foreign has a text for each of Drops, with what to do about it, and Trouble for each of Troubles.
	Foreign    []Text          `json:"foreign,omitempty"`
	Drops      []FilterDrop    `json:"drops,omitempty"`
	Left       []Text          `json:"left,omitempty"` // rules of an earlier run that could not be removed
	Trouble    []Text          `json:"trouble,omitempty"`
	Troubles   []FilterTrouble `json:"troubles,omitempty"`
	VTEPFilter bool            `json:"vtep_filter"`
}

// FilterDrop is a chain of another program that drops the overlay's packets.
type FilterDrop struct {
	Family   string       `json:"family"` // "IPv4" or "IPv6"
	Table    string       `json:"table"`  // with its family: "ip filter"; without it for legacy iptables
	Chain    string       `json:"chain"`
	Legacy   bool         `json:"legacy,omitempty"` // it belongs to legacy iptables
	Network  netip.Prefix `json:"network"`          // of the overlay, whose packets are dropped
	Text     Text         `json:"text"`             // what drops which packets
	Commands []string     `json:"commands"`         // shell commands that accept the packets
	Advice   Text         `json:"advice"`           // Commands, and alternatives
}

// FilterTrouble is a setting of the packet filter that cannot be applied as the network config asks.
type FilterTrouble struct {
	Code   Reason `json:"code"`
	Text   Text   `json:"text"`
	Advice Text   `json:"advice,omitempty"`
}

// String joins the text and the advice.
func (t FilterTrouble) String() string {
	if t.Advice == "" {
		return string(t.Text)
	}
	return fmt.Sprintf("%s (%s)", t.Text, t.Advice)
}
