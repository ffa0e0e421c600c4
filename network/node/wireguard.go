package node

// topicWireGuard is of problems to read WireGuard devices.
const topicWireGuard = "WireGuard"

// followWireGuard reads what is on WireGuard devices now and then: the kernel reports no change there. Until the next
// time, a change by another process stays.
func (n *node) followWireGuard(wake *alarm) {
	if len(n.device.WireGuards) == 0 {
		return
	}
	if !wake.now.Before(n.peersAt) {
		n.peersAt = wake.now.Add(n.kernel.WireGuardInterval())
		if err := n.kernel.ReadWireGuard(); err != nil {
			n.journal.problem(topicWireGuard, err)
		} else {
			n.journal.resolved(topicWireGuard)
		}
	}
	wake.set(n.peersAt)
}
