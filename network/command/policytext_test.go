package command

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

// TestVerdictInKernel: what nf_tables has about an end of a connection is shown for each family.
func TestVerdictInKernel(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.0.1"), netip.MustParseAddr("fd00::1")
	// No ports, so that only the kernel's lines follow.
	verdict := func(a netip.Addr, kernel ...status.PolicyKernel) status.PolicyVerdict {
		return status.PolicyVerdict{
			Source: status.PolicyEnd{Address: a, Pod: "shop/web"}, Destination: status.PolicyEnd{Address: a}, Kernel: kernel,
		}
	}
	kernel := func(a netip.Addr) status.PolicyKernel {
		return status.PolicyKernel{Direction: "egress", Address: a, Table: "selvage-policy"}
	}
	inForce, closed, bypassed, allowed := kernel(four), kernel(four), kernel(four), kernel(six)
	inForce.InForce, inForce.Chain, inForce.Denied = true, "egress/1", 12
	closed.Closed, closed.InForce = true, true
	bypassed.InForce, bypassed.Chain, bypassed.Bypassed = true, "egress/1", "bridge-nf-call-iptables"
	allowed.InForce = true
	var b strings.Builder
	showVerdicts(&b, style{}, []status.PolicyVerdict{verdict(four, inForce, closed, bypassed), verdict(six, kernel(six), allowed)})
	const want = `shop/web (10.244.0.1, fd00::1) -> 10.244.0.1, fd00::1
  kernel     egress   10.244.0.1: in force, chain egress/1 of table inet selvage-policy; it denied 12 packets
  kernel     egress   10.244.0.1: closed: all its packets are denied until its rules are in force
  kernel     egress   10.244.0.1: not in force between pods of this node: net.bridge.bridge-nf-call-iptables is not 1; see selvaged status
  kernel     egress   fd00::1: not in force: nf_tables does not have what the policies demand; see selvaged status
  kernel     egress   fd00::1: in force: no rules, since no policy decides
`
	if b.String() != want {
		t.Errorf("%s\nwant %s", b.String(), want)
	}
}
