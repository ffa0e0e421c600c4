package apiserver

import "fmt"

const (
	maxPodCIDRs  = 16
	maxAddresses = 64
	maxMessage   = 4 << 10 // of a condition; longer ones are left out
)

// node decodes a Node: 1 metadata, 2 spec, 3 status.
func (d decoder) node(m message) (n Node) {
	var single string
	n.Object = d.object(m, func(f field) error {
		switch f.number {
		case 2:
			return n.spec(f.bytes, &single)
		case 3:
			return n.status(f.bytes)
		}
		return nil
	})
	if len(n.PodCIDRs) == 0 && single != "" {
		n.PodCIDRs = []string{single}
	}
	return n
}

// spec decodes a NodeSpec: 1 podCIDR, 7 podCIDRs.
func (n *Node) spec(m message, single *string) error {
	return m.each(func(f field) (err error) {
		switch f.number {
		case 1:
			*single, err = f.bytes.text("podCIDR", maxName)
		case 7:
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

// status decodes a NodeStatus: 4 conditions, 5 addresses.
func (n *Node) status(m message) error {
	return m.each(func(f field) error {
		switch f.number {
		case 4:
			return n.condition(f.bytes)
		case 5:
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

// address decodes a NodeAddress: 1 type, 2 address.
func (m message) address() (a NodeAddress, err error) {
	err = m.each(func(f field) (err error) {
		switch f.number {
		case 1:
			a.Type, err = f.bytes.text("type of an address", maxName)
		case 2:
			a.Address, err = f.bytes.text("address", maxName)
		}
		return err
	})
	return a, err
}

// condition decodes a NodeCondition: 1 type, 2 status, 3 lastHeartbeatTime, 4 lastTransitionTime, 5 reason, 6 message.
func (n *Node) condition(m message) error {
	var c Condition
	wanted := false
	err := m.each(func(f field) (err error) {
		switch f.number {
		case 1:
			wanted = string(f.bytes.rest) == NetworkUnavailable && !f.bytes.cut
		case 2:
			c.Status, err = f.bytes.text("status of a condition", maxName)
		case 3:
			c.Heartbeat, err = f.bytes.time()
		case 4:
			c.Transition, err = f.bytes.time()
		case 5:
			c.Reason, _ = f.bytes.text("reason", maxMessage)
		case 6:
			c.Message, _ = f.bytes.text("message", maxMessage)
		}
		return err
	})
	if err == nil && wanted {
		n.NetworkUnavailable = &c
	}
	return err
}

// podNode returns spec.nodeName of a Pod: 2 spec, of which 10 nodeName.
func podNode(m message) (name string, err error) {
	err = m.each(func(f field) error {
		if f.number != 2 {
			return nil
		}
		return f.bytes.each(func(f field) (err error) {
			if f.number == 10 {
				name, err = f.bytes.text("nodeName", maxName)
			}
			return err
		})
	})
	return name, err
}
