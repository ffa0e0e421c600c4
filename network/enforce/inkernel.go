package enforce

import (
	"errors"
	"net/netip"
	"path"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
)

// InKernel is what nf_tables has about a pod of this node in one direction.
type InKernel struct {
	Table string // of family inet
	Chain string // of the pod; empty: no policy decides about it in this direction
	// InForce: nf_tables has the rules and addresses that policies demand for the pod, as they are known now.
	InForce bool
	// Bypassed is the setting for bridged packets because of which packets to and from other pods of this node are not
	// judged, although policies decide about them: it is not 1, or does not exist. Empty: they are judged.
	Bypassed string
	Closed   bool   // all packets of the pod are denied until its rules are in force
	Denied   uint64 // packets that the pod's chain denied since its rules were set
}

// InKernel reads what nf_tables has about the address of a pod of this node, in the network namespace of the calling
// thread. It takes some milliseconds for 10,000 addresses, in which the engine goes on.
func (e *Engine) InKernel(d policy.Direction, a netip.Addr) (k InKernel, err error) {
	e.mu.Lock()
	enforcing, current := !e.pass.rules.Empty(), e.synced && e.applied == e.version
	part, chain := e.pass.rules.Part(d, a)
	k.Closed = e.closed[a]
	e.mu.Unlock()
	c, err := nft.Dial()
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	k.Table, k.Chain = e.options.Scope.Name(Table), chain
	t := c.TableIn(nftables.TableFamilyINet, k.Table)
	if !enforcing {
		exists, _, err := t.Check(nft.Content{})
		k.InForce = current && !exists
		return k, err
	}
	holds, err := t.Holds(part)
	k.InForce = current && holds
	if chain != "" {
		setting := BridgedPackets()[0]
		if a.Is6() {
			setting = BridgedPackets()[1]
		}
		if value, err := readSetting(setting); err != nil || value != "1" {
			k.Bypassed = path.Base(setting)
		}
	}
	if err == nil && chain != "" {
		k.Denied, err = t.CountPackets(chain)
	}
	return k, err
}
