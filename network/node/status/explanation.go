package status

import "net/netip"

// Explanation is how a node reaches an address, step by step.
type Explanation struct {
	Address netip.Addr `json:"address"`
	Verdict Text       `json:"verdict"` // one sentence
	OK      bool       `json:"ok"`
	Steps   []Step     `json:"steps"`
}

// Mark is the state of a step.
type Mark string

// The marks of a step.
const (
	Right   Mark = "ok"      // desired, and in sync
	Missing Mark = "missing" // desired, and missing or different
	Foreign Mark = "foreign" // not selvage's
	Note    Mark = "-"       // none of these
)

// Step is one step of a packet's path.
type Step struct {
	Kind string `json:"kind"` // lease, route, nexthop, neighbour, fdb, device, uplink, mtu, filter
	Text Text   `json:"text"` // in the syntax of ip and bridge, where it has one
	Mark Mark   `json:"mark"`
	Note Text   `json:"note,omitempty"` // the actual state, or an explanation
}
