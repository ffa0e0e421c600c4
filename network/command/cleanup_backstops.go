package command

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
)

// backstops removes the blackhole routes of the backend wireguard: they are longer than flannel's one route to the
// network, and take precedence over it.
func (o cleanup) backstops(_ context.Context, say func(string)) error {
	tables, k, err := o.tables()
	if err != nil {
		return err
	}
	defer k.Close()
	var batch []network.Update[network.RouteKey, network.Route]
	for key, c := range tables.Routes.Pending {
		if !c.Wanted && c.Have.Type == network.Blackhole {
			batch = append(batch, network.Update[network.RouteKey, network.Route]{Key: key, Change: c})
		}
	}
	slices.SortFunc(batch, func(a, b network.Update[network.RouteKey, network.Route]) int {
		return a.Key.Prefix.Addr().Compare(b.Key.Prefix.Addr())
	})
	if !o.dryRun {
		k.Routes(batch)
	}
	var errs []error
	for _, u := range batch {
		if u.Err != nil {
			errs = append(errs, fmt.Errorf("remove route %s: %w", u.Key, u.Err))
			continue
		}
		say("route " + u.Key.String())
	}
	return errors.Join(errs...)
}

// tables returns what the kernel holds, with nothing desired. The caller closes k.
func (o cleanup) tables() (tables *network.Tables, k *kernel.Kernel, err error) {
	tables = network.NewTables()
	tables.Own(o.network.ownership(o.alone))
	if k, err = kernel.Open(tables); err != nil {
		return nil, nil, err
	}
	if err := k.Read(); err != nil {
		k.Close()
		return nil, nil, err
	}
	return tables, k, nil
}
