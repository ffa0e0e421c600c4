package apiserver

import "fmt"

const (
	maxPodCIDRs  = 16
	maxAddresses = 64
	maxMessage   = 4 << 10 // of a condition; longer ones are left out
)

// node decodes a Node.
func (d decoder) node(m message) (n Node) {
	var single string
	n.Object = d.object(m, func(f field) error {
		switch f.number {
		case nodeSpec:
			return n.spec(f.bytes, &single)
		case nodeStatus:
			return n.status(f.bytes)
		}
		return nil
	})
	if len(n.PodCIDRs) == 0 && single != "" {
		n.PodCIDRs = []string{single}
	}
	return n
}

// spec decodes a NodeSpec.
func (n *Node) spec(m message, single *string) error {
	return m.each(func(f field) (err error) {
		switch f.number {
		case specPodCIDR:
			*single, err = f.bytes.text("podCIDR", maxName)
		case specPodCIDRs:
			if len(n.PodCIDRs) == maxPodCIDRs {
				return fmt.Errorf("%w: more than %d podCIDRs", ErrMalformed, maxPodCIDRs)
			}
			var text string
			text, err = f.bytes.text("podCIDR", maxName)
			n.PodCIDRs = append(n.PodCIDRs, text)
		}
		return err
	})
}

// status decodes a NodeStatus.
func (n *Node) status(m message) error {
	return m.each(func(f field) error {
		switch f.number {
		case statusConditions:
			return n.condition(f.bytes)
		case statusAddresses:
			if len(n.Addresses) == maxAddresses {
				return fmt.Errorf("%w: more than %d addresses", ErrMalformed, maxAddresses)
			}
			a, err := f.bytes.address()
			if err != nil {
				return err
			}
			n.Addresses = append(n.Addresses, a)
		}
		return nil
	})
}

// address decodes a NodeAddress.
func (m message) address() (a NodeAddress, err error) {
	err = m.each(func(f field) (err error) {
		switch f.number {
		case addressType:
			a.Type, err = f.bytes.text("type of an address", maxName)
		case addressAddress:
			a.Address, err = f.bytes.text("address", maxName)
		}
		return err
	})
	return a, err
}

// condition decodes a NodeCondition.
func (n *Node) condition(m message) error {
	var c Condition
	wanted := false
	err := m.each(func(f field) (err error) {
		switch f.number {
		case conditionType:
			wanted = string(f.bytes.rest) == NetworkUnavailable && !f.bytes.cut
		case conditionStatus:
			c.Status, err = f.bytes.text("status of a condition", maxName)
		case conditionHeartbeat:
			c.Heartbeat, err = f.bytes.time()
		case conditionTransition:
			c.Transition, err = f.bytes.time()
		case conditionReason:
			c.Reason, _ = f.bytes.text("reason", maxMessage)
		case conditionMessage:
			c.Message, _ = f.bytes.text("message", maxMessage)
		}
		return err
	})
	if err == nil && wanted {
		n.NetworkUnavailable = &c
	}
	return err
}

// podNode returns spec.nodeName of a Pod.
func podNode(m message) (name string, err error) {
	err = m.each(func(f field) error {
		if f.number != podSpec {
			return nil
		}
		return f.bytes.each(func(f field) (err error) {
			if f.number == podSpecNodeName {
				name, err = f.bytes.text("nodeName", maxName)
			}
			return err
		})
	})
	return name, err
}
