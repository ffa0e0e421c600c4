package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// A bridge outlives the subnet that it was made for: the node's lease was lost or taken away, the daemon got another
// one, and the bridge still holds the old subnet's gateway. The bridge plugin then refuses every container.

// conflict is a bridge with an address outside of this node's subnet.
type conflict struct {
	bridge string
	link   link
	holds  netip.Prefix // the conflicting address
	want   netip.Prefix // the desired address
}

// remedy tries to repair the bridge after an ADD that failed with cause and was undone.
func (c *call) remedy(ctx context.Context, d delegation, f subnetfile.File, cause error) ([]byte, error) {
	result, err := c.enableIPv6(ctx, d, f, cause)
	if err == nil {
		return result, nil
	}
	cause = c.diagnose(ctx, d, f, err)
	if e, ok := errors.AsType[*types.Error](cause); !ok || e.Code != codeBridge || !c.conf.RepairBridge {
		return nil, cause
	}
	if err := c.awaitRepairable(ctx, d, f); err != nil {
		return nil, withDetail(cause, fmt.Sprintf("repairBridge: not done: %v", err))
	}
	// The delegate does it: with this it takes away the address that is in the way. One that is right stays, so nothing
	// happens if another ADD has repaired the bridge meanwhile.
	forced, err := d.with("forceAddress", true)
	if err != nil {
		return nil, withDetail(cause, err.Error())
	}
	return c.attach(ctx, forced)
}

// emptyAfter is how long other ADDs that failed at the same moment get to take their interfaces off the bridge again.
const emptyAfter = time.Second

// awaitRepairable returns nil once the bridge may be given another address: nothing is attached to it, so no container
// uses the address as its gateway, and the address is one of the overlay's, so that it was ours to give.
func (c *call) awaitRepairable(ctx context.Context, d delegation, f subnetfile.File) error {
	for until := time.Now().Add(emptyAfter); ; {
		x, ok := findConflict(d, f)
		if !ok {
			return nil // another process repaired it
		}
		if !inNetworks(f, x.holds.Addr()) {
			return fmt.Errorf("%s is not of the overlay's networks", x.holds)
		}
		n, err := ports(x.link)
		switch {
		case err != nil:
			return fmt.Errorf("count what is attached to %s: %w", x.bridge, err)
		case n == 0:
			return nil
		case time.Now().After(until) || ctx.Err() != nil:
			return fmt.Errorf("interfaces attached to %s: %d", x.bridge, n)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// diagnose returns the root cause of a delegate's failed ADD if it is known, else cause.
func (c *call) diagnose(ctx context.Context, d delegation, f subnetfile.File, cause error) error {
	if x, ok := findConflict(d, f); ok {
		return fail(codeBridge, fmt.Sprintf("bridge %s holds %s, want %s", x.bridge, x.holds, x.want),
			fmt.Errorf("%s; the delegate says: %w", x.advice(f), cause))
	}
	list, err := c.conf.reservations()
	if err != nil {
		return cause // which has more detail
	}
	if full, size, ok := exhausted(f, list); ok {
		// Not those that name a container: which ones run is known at GC only.
		damaged := slices.DeleteFunc(list, func(r reservation) bool { return isName(r.holder.containerID) })
		if err := c.conf.freeDamaged(ctx, damaged); err == nil && len(damaged) > 0 {
			cause = withDetail(cause, fmt.Sprintf("damaged reservations were freed: %d", len(damaged)))
		}
		return fail(types.ErrTryAgainLater, fmt.Sprintf("no address left: all %d of %s are taken", size, full), cause)
	}
	return cause
}

// advice returns how to resolve a conflict.
func (x conflict) advice(f subnetfile.File) string {
	if !inNetworks(f, x.holds.Addr()) {
		return fmt.Sprintf("the address is in none of the overlay's networks: another program set it, or the "+
			"networks were changed since; remove it with \"ip address delete %s dev %s\", or name another bridge as "+
			"delegate.bridge", x.holds, x.bridge)
	}
	attached := "nothing is attached to it"
	if n, err := ports(x.link); err != nil || n > 0 {
		attached = fmt.Sprintf("interfaces attached to it: %d", n)
	}
	return fmt.Sprintf("the bridge has the gateway of this node's former subnet; %s; delete the containers attached "+
		"to it, then \"ip link delete %s\", and the next container creates it again; or set \"repairBridge\": true in "+
		"the network configuration, and the next container corrects it once nothing is attached", attached, x.bridge)
}

// findConflict looks at the bridge that the delegate uses, if it is the reference plugin and gives the bridge an
// address.
func findConflict(d delegation, f subnetfile.File) (conflict, bool) {
	config, ok := d.bridge()
	gateway := (config.IsGateway || config.IsDefaultGateway) && config.IPAM.Type == defaultIPAM
	if !ok || !gateway || config.ForceAddress || config.Vlan != 0 {
		return conflict{}, false
	}
	l, err := findLink(config.Bridge)
	if err != nil {
		return conflict{}, false // it is not there, or cannot be asked: then it is not what is in the way
	}
	holds, want, ok := inTheWay(f, l.addrs)
	return conflict{config.Bridge, l, holds, want}, ok
}

// inTheWay returns the first address that keeps the bridge plugin from giving a bridge the gateway's. That takes the
// first address of the family that is the gateway's or in the way; for IPv6, only one whose prefix overlaps is.
func inTheWay(f subnetfile.File, addrs []netip.Prefix) (holds, want netip.Prefix, ok bool) {
	for _, family := range subnet.Families() {
		if !f.Subnets[family].IsValid() {
			continue
		}
		want := subnet.Gateway(f.Subnets[family])
		for _, a := range addrs {
			if subnet.FamilyOf(a.Addr()) != family {
				continue
			}
			if a == want {
				break
			}
			if family == subnet.IPv4 || a.Overlaps(want) {
				return a, want, true
			}
		}
	}
	return holds, want, false
}

func inNetworks(f subnetfile.File, a netip.Addr) bool {
	for _, networks := range f.Networks {
		for _, n := range networks {
			if n.Contains(a) {
				return true
			}
		}
	}
	return false
}
