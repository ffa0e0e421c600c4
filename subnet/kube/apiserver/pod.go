package apiserver

import "fmt"

const (
	maxPodIPs      = 16
	maxPodPorts    = 1000
	maxPortName    = 63
	restartsAlways = "Always"
)

// pod decodes a Pod.
func (d decoder) pod(m message) (p Pod) {
	var single string
	p.Object = d.object(m, func(f field) error {
		switch f.number {
		case podSpec:
			return p.spec(f.bytes)
		case podStatus:
			return p.status(f.bytes, &single)
		}
		return nil
	})
	if len(p.Addresses) == 0 && single != "" {
		p.Addresses = []string{single}
	}
	return p
}

// spec decodes a PodSpec.
func (p *Pod) spec(m message) error {
	return m.each(func(f field) (err error) {
		switch f.number {
		case podSpecNodeName:
			p.NodeName, err = f.bytes.text("nodeName", maxName)
			p.NodeName = intern(p.NodeName)
		case podSpecHostNetwork:
			p.HostNetwork = f.num != 0
		case podSpecContainers:
			err = p.container(f.bytes, false)
		case podSpecInitContainers:
			err = p.container(f.bytes, true)
		}
		return err
	})
}

// container decodes the ports of a Container. Those of an init container count only if it always restarts: it runs
// beside the others then.
func (p *Pod) container(m message, init bool) error {
	before, restart := len(p.Ports), ""
	err := m.each(func(f field) (err error) {
		switch f.number {
		case containerRestart:
			restart, err = f.bytes.text("restartPolicy", maxName)
		case containerPorts:
			err = p.port(f.bytes)
		}
		return err
	})
	if init && restart != restartsAlways {
		p.Ports = p.Ports[:before]
	}
	return err
}

// port decodes a ContainerPort, and keeps it if it has a name.
func (p *Pod) port(m message) error {
	port := PodPort{Protocol: "TCP"}
	err := m.each(func(f field) (err error) {
		switch f.number {
		case portName:
			port.Name, err = f.bytes.text("name of a port", maxPortName)
		case portNumber:
			port.Number = int32(f.num)
		case portProtocol:
			port.Protocol, err = f.bytes.text("protocol of a port", maxPortName)
		}
		return err
	})
	switch {
	case err != nil || port.Name == "":
		return err
	case len(p.Ports) == maxPodPorts:
		return fmt.Errorf("%w: more than %d named ports", ErrMalformed, maxPodPorts)
	}
	p.Ports = append(p.Ports, port)
	return nil
}

// status decodes a PodStatus.
func (p *Pod) status(m message, single *string) error {
	return m.each(func(f field) (err error) {
		switch f.number {
		case podStatusPhase:
			p.Phase, err = f.bytes.text("phase", maxName)
		case podStatusStart:
			p.Started, err = f.bytes.time()
		case podStatusIP:
			*single, err = f.bytes.text("podIP", maxName)
		case podStatusIPs:
			if len(p.Addresses) == maxPodIPs {
				return fmt.Errorf("%w: more than %d podIPs", ErrMalformed, maxPodIPs)
			}
			err = f.bytes.each(func(f field) error {
				if f.number != podIPAddress {
					return nil
				}
				text, err := f.bytes.text("podIP", maxName)
				p.Addresses = append(p.Addresses, text)
				return err
			})
		}
		return err
	})
}
