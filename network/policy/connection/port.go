package connection

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/selvage-net/selvage/network/policy"
)

// ICMP is the number of the protocol. For a connection over IPv6, it stands for ICMPv6.
const ICMP policy.Protocol = 1

// Port is the protocol and the destination ports of a connection. The zero value is any protocol and port.
type Port struct {
	Protocol    policy.Protocol // zero: that of the named port; any, if there is no name
	Name        string          // of a port of the destination pod; empty: First to Last
	First, Last uint16
}

// ErrPort is returned for a text that names no port.
var ErrPort = errors.New("want a port such as 80, 80/UDP, 8000-8999/TCP or http, or a protocol: TCP, UDP, SCTP or ICMP")

// ParsePort reads a port: "80" (of TCP), "80/UDP", "8000-8999/TCP", "http", "http/TCP", "TCP" for all its ports, "ICMP"
// for an echo request, or nothing for any protocol and port.
func ParsePort(text string) (p Port, err error) {
	failed := fmt.Errorf("port %q: %w", text, ErrPort)
	if text == "" {
		return Port{}, nil
	}
	if strings.EqualFold(text, "ICMP") {
		return Port{Protocol: ICMP}, nil
	}
	if protocol, ok := protocolNamed(text); ok {
		return Port{Protocol: protocol, Last: 0xffff}, nil
	}
	numbers, protocol, hasProtocol := strings.Cut(text, "/")
	if hasProtocol {
		if p.Protocol, hasProtocol = protocolNamed(protocol); !hasProtocol {
			return Port{}, failed
		}
	}
	if numbers == "" {
		return Port{}, failed
	}
	if numbers[0] < '0' || numbers[0] > '9' || strings.Trim(numbers, "0123456789-") != "" {
		p.Name = numbers
		return p, nil
	}
	if p.Protocol == 0 {
		p.Protocol = policy.TCP
	}
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || from < 1 || from > to {
		return Port{}, failed
	}
	p.First, p.Last = uint16(from), uint16(to)
	return p, nil
}

func protocolNamed(text string) (policy.Protocol, bool) {
	for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		if strings.EqualFold(p.String(), text) {
			return p, true
		}
	}
	return 0, false
}

// String returns the port as [ParsePort] takes it, and "any" for the zero value.
func (p Port) String() string {
	switch {
	case p == Port{}:
		return "any"
	case p.Protocol == ICMP:
		return "ICMP"
	case p.Name != "" && p.Protocol == 0:
		return p.Name
	case p.Name != "":
		return p.Name + "/" + p.Protocol.String()
	}
	return policy.PortText(p.Protocol, p.First, p.Last)
}

// resolve returns the ports that a port with a name stands for, at a destination.
func (p Port) resolve(to End) (all []Port, err error) {
	if p.Name == "" {
		return []Port{p}, nil
	}
	if to.Pod != nil {
		for have := range to.Pod.Ports.All() {
			if have.Name == p.Name && (p.Protocol == 0 || p.Protocol == have.Protocol) {
				all = append(all, Port{Protocol: have.Protocol, First: have.Number, Last: have.Number})
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no port with the name %s", to, p)
	}
	return all, nil
}

// SplitDestination splits "DST:PORT/PROTO" as the command line has it. An IPv6 address with a port is in brackets, and
// one without a port need not be.
func SplitDestination(text string) (to, port string) {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		address, port, _ := strings.Cut(rest, "]")
		return address, strings.TrimPrefix(port, ":")
	}
	if strings.Count(text, ":") > 1 {
		return text, ""
	}
	to, port, _ = strings.Cut(text, ":")
	return to, port
}
