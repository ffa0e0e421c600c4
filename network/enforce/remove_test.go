package enforce

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// TestRemove: the tables of one scope are removed, and no others.
func TestRemove(t *testing.T) {
	f := nfttest.New(t, here{})
	other := network.NewScope("/other", 0).Tag()
	for _, tag := range []string{"", other} {
		for _, x := range []nftables.Table{
			{Family: nftables.TableFamilyINet, Name: Table}, {Family: nftables.TableFamilyINet, Name: ClosedTable},
			{Family: nftables.TableFamilyBridge, Name: SourcesTable}, {Family: nftables.TableFamilyIPv4, Name: Table},
		} {
			f.AddTable(&nftables.Table{Family: x.Family, Name: network.Tagged(x.Name, tag)})
		}
	}
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	names := func(tag string) (all []string) {
		for _, name := range []string{"inet " + Table, "inet " + ClosedTable, "bridge " + SourcesTable} {
			all = append(all, "table "+network.Tagged(name, tag))
		}
		return all
	}
	for _, x := range []struct {
		tag    string
		dryRun bool
		want   []string
	}{
		{"", true, names("")}, {"", false, names("")}, {"", false, nil}, {other, true, names(other)}, {other, false, names(other)},
	} {
		if got, err := Remove(x.tag, x.dryRun); err != nil || !slices.Equal(got, x.want) {
			t.Errorf("tag %q, dry run %t: %q, %v; want %q", x.tag, x.dryRun, got, err, x.want)
		}
	}
	// A table that the kernel refuses to remove, as one that another process owns, does not keep the others.
	f.Own(&nftables.Table{Family: nftables.TableFamilyINet, Name: Table})
	f.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: SourcesTable})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := Remove("", false)
	if !slices.Equal(got, names("")[2:]) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), names("")[0]) {
		t.Errorf("beside a table that is kept: %q, %v", got, err)
	}
	f.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: Table})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	left, err := f.ListTables()
	if err != nil || len(left) != 2 || left[0].Family != nftables.TableFamilyIPv4 || left[1].Family != nftables.TableFamilyIPv4 {
		t.Errorf("left are %v, %v; want those of family ip", left, err)
	}
	for _, x := range left {
		f.DelTable(x)
	}
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
}
