package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// check calls the delegate's CHECK, and then compares the container's interface with the subnet file, which the
// delegate does not know.
func (c *call) check(ctx context.Context) error {
	st, err := c.store.load(c.a)
	if err != nil {
		return fail(types.ErrIOFailure, "read the kept configuration", err)
	}
	d, err := c.recall(st)
	if err != nil {
		return err
	}
	if _, err := c.delegate(ctx, "CHECK", d, c.path); err != nil {
		return err
	}
	f, err := subnetfile.Read(c.conf.SubnetFile)
	if err != nil {
		return fileError(err, 0)
	}
	want, err := expect(c.conf, d, f)
	if err != nil {
		return fail(types.ErrInternal, "decode the delegate's configuration", err)
	}
	var faults []string
	err = inNamespace(c.netns, func() error {
		l, err := findLink(c.a.ifName)
		if err != nil {
			faults = append(faults, err.Error())
			return nil
		}
		table, err := routes()
		faults = want.compare(l, table)
		return err
	})
	if err != nil {
		return fail(types.ErrInvalidNetNS, "look at container "+c.a.containerID, err)
	}
	if len(faults) > 0 {
		return fail(codeMismatch,
			fmt.Sprintf("interface %s of container %s does not fit this node's subnet file",
				c.a.ifName, c.a.containerID),
			errors.New(strings.Join(faults, "; ")+"; restart the container"))
	}
	return nil
}

// expectation is the desired state of a container's interface.
type expectation struct {
	mtu      int               // at most; 0: any
	subnets  [2]netip.Prefix   // by Family, masked; invalid: none
	gateways [2]netip.Addr     // by Family
	networks [2][]netip.Prefix // by Family
}

// expect makes an expectation of the subnet file and of the configuration with which the container was added. Addresses
// and routes that another IPAM plugin than host-local chose are its own business.
func expect(n netConf, d delegation, f subnetfile.File) (expectation, error) {
	e := expectation{mtu: f.MTU}
	var added struct {
		IPAM struct {
			Type   string
			Ranges [][]struct{ Subnet netip.Prefix }
		}
	}
	if err := json.Unmarshal(d.config, &added); err != nil {
		return e, err
	}
	if own, ok := n.Delegate["mtu"]; ok { // the user's value overrides the subnet file's
		if err := json.Unmarshal(own, &e.mtu); err != nil {
			return e, fmt.Errorf("mtu is %.80s, want a number", own)
		}
	}
	if added.IPAM.Type != defaultIPAM {
		return e, nil
	}
	for _, set := range added.IPAM.Ranges {
		for _, r := range set { // only these families: a container may be older than the node's other family
			if family := subnet.FamilyOf(r.Subnet.Addr()); f.Subnets[family].IsValid() {
				e.subnets[family] = f.Subnets[family].Masked()
				e.gateways[family] = subnet.Gateway(f.Subnets[family]).Addr()
				e.networks[family] = f.Networks[family]
			}
		}
	}
	return e, nil
}

// compare returns the faults of a container's interface, given the routes of its namespace.
func (e expectation) compare(l link, table []route) (faults []string) {
	add := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if !l.up {
		add("it is down")
	}
	// A smaller one works, and a later plugin of the chain may have set it.
	if e.mtu != 0 && l.mtu > e.mtu {
		add("its MTU is %d, and the overlay carries %d", l.mtu, e.mtu)
	}
	for _, family := range subnet.Families() {
		own := e.subnets[family]
		if !own.IsValid() {
			continue
		}
		if !holds(l.addrs, own) {
			add("it has no address of %s but %v", own, l.addrs)
		}
		for _, network := range e.networks[family] {
			switch r, ok := lookup(table, network); {
			case !ok:
				add("there is no route to %s", network)
			case r.link == l.index && r.via.IsValid() && r.via != e.gateways[family]:
				add("the route to %s leads to %s, want %s", network, r.via, e.gateways[family])
			}
		}
	}
	return faults
}

// holds reports whether an address belongs to the subnet, with its length.
func holds(addrs []netip.Prefix, own netip.Prefix) bool {
	for _, a := range addrs {
		if a.Masked() == own {
			return true
		}
	}
	return false
}

// lookup returns the most specific route that leads to all of a network.
func lookup(table []route, network netip.Prefix) (best route, ok bool) {
	for _, r := range table {
		if r.dst.Bits() <= network.Bits() && r.dst.Contains(network.Addr()) && (!ok || r.dst.Bits() > best.dst.Bits()) {
			best, ok = r, true
		}
	}
	return best, ok
}
