package explain

import (
	"fmt"

	"github.com/selvage-net/selvage/network/node/status"
)

// fastPath says whether packets of established connections to a peer are fast, or why not. That decides about no
// packet's fate.
func (e *explanation) fastPath() {
	f, p := e.facts.Fast, e.facts.Peer
	const kind = "fast path"
	switch {
	case f == nil:
	case !f.InUse:
		e.step(kind, "not in use", status.Note, fmt.Sprint(f.Why))
	case !p.Fast:
		e.step(kind, "not to this node", status.Note, "its programs do not know the subnet")
	default:
		e.step(kind, "established connections", status.Right, "")
		for _, s := range f.Slow {
			e.step(kind, "not by "+s.Port, status.Note, fmt.Sprint(s.Why))
		}
	}
}
