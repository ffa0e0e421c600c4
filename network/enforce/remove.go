package enforce

import (
	"errors"
	"fmt"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/nft"
)

// Remove removes the tables that an engine left in the network namespace of the calling thread, and returns their
// names, such as "table inet selvage-policy". It must not run beside the engine. tag is that of the engine's scope.
// With dryRun it only returns the names. Without nf_tables there are none. A table that cannot be removed does not keep
// the others.
func Remove(tag string, dryRun bool) (names []string, err error) {
	conn, err := nft.Dial()
	if errors.Is(err, ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var failed []error
	for _, t := range []struct {
		family nftables.TableFamily
		base   string
	}{
		{nftables.TableFamilyINet, Table}, {nftables.TableFamilyINet, ClosedTable},
		{nftables.TableFamilyBridge, SourcesTable},
	} {
		table := conn.TableIn(t.family, network.Tagged(t.base, tag))
		name := fmt.Sprintf("table %s %s", nft.FamilyName(t.family), network.Tagged(t.base, tag))
		exists, _, err := table.Check(nft.Content{})
		if err == nil && exists && !dryRun {
			err = table.Remove()
		}
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("remove %s: %w", name, err))
		case exists:
			names = append(names, name)
		}
	}
	return names, errors.Join(failed...)
}
