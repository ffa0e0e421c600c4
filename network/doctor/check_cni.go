package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// rewrite is the command after which the daemon writes the subnet file again.
const rewrite = "systemctl restart selvaged, which writes it again"

func checkSubnetFile(f Facts) (all []Finding) {
	if f.Status != nil && f.Status.State == status.Starting {
		return nil // the daemon writes it last
	}
	switch {
	case errors.Is(f.File.Err, fs.ErrNotExist):
		advice := rewrite
		if f.Status == nil {
			advice = "systemctl start selvaged, which writes it"
		}
		return []Finding{failure(advice, "subnet file %s is missing: no pod can be started", f.File.Path)}
	case f.File.Err != nil:
		return []Finding{failure(rewrite, "%v", f.File.Err)}
	case f.Status == nil || f.Status.Lease == nil:
		return []Finding{passed("%s has %s", f.File.Path, join(f.own()))}
	}
	for _, own := range f.Status.Lease.Subnets {
		if has := f.File.Content.Subnets[subnet.FamilyOf(own.Addr())]; has != subnet.Gateway(own) {
			found := "no subnet"
			if has.IsValid() {
				found = has.String()
			}
			all = append(all, failure(rewrite, "subnet file %s has %s, and this node's lease is %s: "+
				"new pods get addresses that other nodes do not reach", f.File.Path, found, own))
		}
	}
	if mtu := f.podMTU(); f.File.Content.MTU != mtu {
		all = append(all, failure(rewrite, "subnet file %s has MTU %d, and the overlay carries %d",
			f.File.Path, f.File.Content.MTU, mtu))
	}
	if list, ok := f.CNI.own(); ok && list.SubnetFile != "" && list.SubnetFile != f.File.Path {
		all = append(all, failure("use one path for both: subnetFile there, or --subnet-file of selvaged",
			"%s reads the subnet file %s, and selvaged writes %s", list.File, list.SubnetFile, f.File.Path))
	}
	if len(all) == 0 {
		all = append(all, passed("%s matches the lease", f.File.Path))
	}
	return all
}

func join(all []netip.Prefix) string {
	text := make([]string, len(all))
	for i, p := range all {
		text[i] = p.String()
	}
	return strings.Join(text, " ")
}

// checkBridge compares the pods' bridge with the node's subnet and the pod MTU.
func checkBridge(f Facts) (all []Finding) {
	bridge, ok := f.bridge()
	if !ok {
		return nil // no pods yet, or pods without a bridge
	}
	if bridge.Ports == 0 { // the kernel sets its MTU to 1500, and the next pod's ADD corrects the rest
		return []Finding{passed("%s has no pods", bridge.Name)}
	}
	for _, own := range f.own() {
		want, found, others := subnet.Gateway(own), false, []string{}
		for _, a := range bridge.Addresses {
			if subnet.FamilyOf(a.Addr()) != subnet.FamilyOf(own.Addr()) || a.Addr().IsLinkLocalUnicast() {
				continue
			}
			found = found || a == want
			others = append(others, a.String())
		}
		if len(others) > 0 && !found {
			advice := "delete the pods of this node, then ip link delete " + bridge.Name +
				"; the next pod creates it again"
			all = append(all, failure(advice, "bridge %s has %s, and this node's subnet needs %s: "+
				"no pod can be started, and other nodes do not reach the pods there",
				bridge.Name, strings.Join(others, " "), want))
		}
	}
	want := f.podMTU()
	if list, ok := f.CNI.own(); ok && list.MTU != 0 {
		want = list.MTU
	}
	if want != 0 && bridge.MTU != want {
		effect := "larger packets to its pods are dropped"
		if bridge.MTU > want {
			effect = "pods that use it send packets that the overlay does not carry"
		}
		advice := fmt.Sprintf("ip link set %s mtu %d; then restart the pods with another MTU", bridge.Name, want)
		all = append(all, warning(advice, "bridge %s has MTU %d, and the pod MTU is %d: %s",
			bridge.Name, bridge.MTU, want, effect))
	}
	if len(all) == 0 {
		all = append(all, passed("%s has this node's subnet and MTU", bridge.Name))
	}
	return all
}

// checkCNI examines the CNI configurations and plugins as a container runtime finds them.
func checkCNI(f Facts) (all []Finding) {
	c := f.CNI
	switch {
	case c.Dir == "":
		return nil
	case errors.Is(c.DirErr, fs.ErrNotExist):
		return []Finding{warning("selvaged install-cni installs plugin and configuration; "+
			"--cni-conf-dir names another directory, an empty one skips this check",
			"%s, where container runtimes look for CNI configurations, does not exist", c.Dir)}
	case c.DirErr != nil:
		return []Finding{failure("ls -ld "+c.Dir, "%v", c.DirErr)}
	}
	own, ok := c.own()
	if !ok {
		all = append(all, failure("selvaged install-cni, with --cni-conf-dir="+c.Dir+" unless that is the default",
			"no CNI configuration in %s has a plugin of type selvage or flannel", c.Dir))
	} else if first := c.Lists[0]; first.File != own.File {
		what := "of another network"
		if first.Err != nil {
			what = "unreadable: " + first.Err.Error()
		}
		all = append(all, failure(fmt.Sprintf("mv %s %s.off, if pods should use this overlay", first.File, first.File),
			"runtimes use the first CNI configuration, %s (%s), not %s", first.File, what, own.File))
	}
	for _, typ := range slices.Sorted(maps.Keys(c.Plugins)) {
		err := c.Plugins[typ]
		if err == nil || !ok || !slices.Contains(own.Types, typ) {
			continue
		}
		var at *pluginError
		if errors.As(err, &at) {
			all = append(all, failure("chmod 755 "+at.path,
				"CNI plugin %s, which %s uses, is not executable", at.path, own.File))
			continue
		}
		all = append(all, failure(fmt.Sprintf("install %s into %s", typ, c.BinDirs[0]),
			"CNI plugin %s, which %s uses, is missing from %s", typ, own.File, strings.Join(c.BinDirs, ", ")))
	}
	if len(all) == 0 {
		all = append(all, passed("%s is first, and its plugins are installed", own.File))
	}
	return all
}
