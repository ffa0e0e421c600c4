package status

import "time"

// FastPath is the state of the fast path, by which packets of established connections between pods go past most of the
// kernel's network stack.
type FastPath struct {
	Mode  string `json:"mode"` // auto or on
	InUse bool   `json:"in_use"`
	// Code and Why say why it is not in use.
	Code   Reason    `json:"code,omitempty"`
	Why    Text      `json:"why,omitempty"`
	Since  time.Time `json:"since,omitzero"` // since when it is in use, or is not
	Pinned bool      `json:"pinned"`         // it outlives the daemon
	Ports  int       `json:"ports"`          // of pods that use it
	// Slow are the ports of pods that do not, although it is in use otherwise.
	Slow  []SlowPort `json:"slow_ports,omitempty"`
	Peers int        `json:"peers"` // subnets of other nodes that are reached by it
	// Packets counts packets by what became of them since the programs were loaded: sent, received and
	// received_decapsulated were fast; the others are reasons why a packet was not, or why nothing was learned from it.
	Packets map[string]uint64 `json:"packets,omitempty"`
	Flushes uint64            `json:"flushes"` // times that all that was learned was made void, since the start
}

// SlowPort is the port of a pod whose packets are not fast.
type SlowPort struct {
	Port string `json:"port"`
	Code Reason `json:"code"`
	Why  Text   `json:"why"`
}

// Fast counts the packets that were fast: sent to other nodes, and received from them.
func (f FastPath) Fast() (sent, received uint64) {
	return f.Packets["sent"], f.Packets["received"] + f.Packets["received_decapsulated"]
}
