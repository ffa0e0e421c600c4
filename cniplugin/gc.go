package cniplugin

import (
	"context"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	records "github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/wholefile"
)

// gc ends the attachments of the network that the runtime does not know: what is kept of them, and the addresses that
// host-local has reserved for them, which neither it nor bridge collects by itself. Then it passes the verb on. An
// error does not keep it from going on (CNI spec, section GC).
func (c *call) gc(ctx context.Context) error {
	var errs []error
	if c.conf.listsValid { // without a list, containers are not assumed to be gone
		errs = c.collect(ctx, validSet(c.conf))
	}
	d, err := c.recallOrGuess(stored{})
	if err != nil {
		return all(append(errs, err))
	}
	if c.conf.listsValid {
		if d, err = d.with("cni.dev/valid-attachments", c.conf.valid); err != nil {
			return all(append(errs, fail(types.ErrInternal, "render the delegate's configuration", err)))
		}
	}
	plugins := []string{d.plugin}
	if ipam, err := c.conf.IPAM.pluginType(defaultIPAM); err == nil {
		plugins = append(plugins, ipam) // bridge does not pass it on
	}
	for _, plugin := range plugins {
		if _, err := c.delegate(ctx, "GC", delegation{plugin, d.config}, c.path); err != nil {
			errs = append(errs, err)
		}
	}
	return all(errs)
}

// valid returns the attachments to keep.
type valid map[attachment]bool

func validSet(n netConf) valid {
	v := make(valid, 2*len(n.valid))
	for _, a := range n.valid {
		v[attachment{n.Name, a.ContainerID, a.IfName}] = true
		v[attachment{n.Name, a.ContainerID, ""}] = true // for what names no interface
	}
	return v
}

// collect ends the attachments that are not valid.
func (c *call) collect(ctx context.Context, v valid) (errs []error) {
	reserved, err := c.conf.reservations()
	if err != nil {
		errs = append(errs, fail(types.ErrIOFailure, "list host-local's reservations", err))
	}
	tried := map[attachment]bool{}
	end := func(a attachment) {
		if v[a] || tried[a] {
			return
		}
		tried[a] = true
		if err := c.end(ctx, a); err != nil {
			errs = append(errs, withDetail(err,
				fmt.Sprintf("interface %q of container %s was not collected", a.ifName, a.containerID)))
		}
	}
	// Reservations first: they name the interface also where flannel's plugin kept a file by container alone.
	var damaged []reservation
	for _, r := range reserved {
		switch {
		case !r.damaged():
			end(r.holder)
		case !v[attachment{c.conf.Name, r.holder.containerID, ""}]:
			damaged = append(damaged, r)
		}
	}
	if err := c.conf.freeDamaged(ctx, damaged); err != nil {
		errs = append(errs, fail(types.ErrIOFailure, "free the addresses of damaged reservations", err))
	}
	kept, err := c.store.list(c.conf.Name)
	if err != nil {
		errs = append(errs, fail(types.ErrIOFailure, "list the kept configurations", err))
	}
	recorded, err := c.recorded()
	if err != nil {
		errs = append(errs, fail(types.ErrIOFailure, "list the records of attachments", err))
	}
	for _, a := range append(kept, recorded...) {
		end(a)
	}
	for _, dir := range []string{c.store.dir, records.Dir(c.conf.SubnetFile)} {
		wholefile.Sweep(dir, time.Now().Add(-abandonedAfter))
	}
	return errs
}

// abandonedAfter is the age at which a temporary file belongs to no ADD that still runs.
const abandonedAfter = time.Hour

// end is DEL for an attachment that the runtime does not know. Its namespace may be taken to be gone (CNI spec, section
// GC).
func (c *call) end(ctx context.Context, a attachment) error {
	st, err := c.store.load(a)
	if err != nil {
		return fail(types.ErrIOFailure, "read the kept configuration", err)
	}
	d, err := c.recallOrGuess(st)
	if err != nil {
		return err
	}
	ifName := a.ifName
	if ifName == "" {
		ifName = "eth0" // the verb needs one; it is as good as any
	}
	if _, err := c.delegate(ctx, "DEL", d, c.path,
		"CNI_CONTAINERID="+a.containerID, "CNI_IFNAME="+ifName, "CNI_NETNS="); err != nil {
		return err
	}
	c.forget(a)
	if err := c.store.remove(st); err != nil {
		return fail(types.ErrIOFailure, "remove the kept configuration", err)
	}
	return nil
}
