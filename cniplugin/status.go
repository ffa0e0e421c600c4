package cniplugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// status reports whether an ADD could succeed now: the subnet has a free address, the daemon reports the overlay as
// usable, and the delegates agree. It does not wait: runtimes poll it.
func (c *call) status(ctx context.Context) error {
	f, err := subnetfile.Read(c.conf.SubnetFile)
	if err != nil {
		return fail(types.ErrPluginNotAvailable, "this node has no usable subnet file", err)
	}
	if err := c.daemonStatus(); err != nil {
		return err
	}
	d, err := c.render(f)
	if err != nil {
		return err
	}
	if _, err := findPlugin(d.plugin, c.path); err != nil {
		return fail(types.ErrPluginNotAvailable, "not all is installed", err)
	}
	list, err := c.conf.reservations()
	if err != nil {
		return fail(types.ErrPluginNotAvailable, "read host-local's reservations", err)
	}
	if full, size, ok := exhausted(f, list); ok {
		return fail(types.ErrPluginNotAvailable, "no address left", fmt.Errorf("all %d of %s are taken", size, full))
	}
	_, err = c.delegate(ctx, "STATUS", d, c.path)
	if e, ok := errors.AsType[*types.Error](err); ok && e.Code != types.ErrLimitedConnectivity {
		return types.NewError(types.ErrPluginNotAvailable, e.Msg, e.Details) // of all codes, STATUS has these two
	}
	return err
}

// daemonStatus returns the status that the daemon wrote beside the subnet file.
func (c *call) daemonStatus() error {
	s, err := subnetfile.ReadStatus(c.conf.SubnetFile)
	switch {
	case err != nil:
		return fail(types.ErrPluginNotAvailable, "not known whether the overlay is usable", err)
	case s.Usable:
		return nil
	}
	if s.Reason == "" {
		s.Reason = "the daemon does not say why; see its log"
	}
	if s.Limited {
		return fail(types.ErrLimitedConnectivity, "the overlay does not work", errors.New(s.Reason))
	}
	return fail(types.ErrPluginNotAvailable, "the overlay is not usable", errors.New(s.Reason))
}
