package doctor

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/selvage-net/selvage/network/filter/engines"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// gather reads everything except what takes long: the store's state, and the paths to other nodes.
func gather(ctx context.Context, o Options) (f Facts) {
	f.Now = o.Now()
	client := status.NewClient(o.Socket)
	var wg sync.WaitGroup
	wg.Go(func() { f.askDaemon(ctx, client) })
	f.CNI = gatherCNI(o.CNIConfDir, o.CNIBinDirs)
	f.Kernel = gatherKernel()
	f.Links = gatherLinks()
	f.Thresholds = NeighbourLimits()
	wg.Wait()
	f.File = gatherSubnetFile(f.subnetFile(o))
	f.Pods, f.Damaged = gatherPods(f.File.Path)
	f.Routes = gatherRoutes(f.networks())
	f.Sysctls = f.gatherSysctls()
	if data, err := os.ReadFile("/proc/net/stat/nf_conntrack"); err == nil {
		f.Invalid = InvalidPackets(string(data))
	}
	f.Drops, f.KubeProxy = f.gatherFilter()
	f.Engines, _ = engines.Read() // on an error they are not known
	return f
}

func (f *Facts) askDaemon(ctx context.Context, c *status.Client) {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil {
		f.DaemonErr = err
		return
	}
	f.Status = &s
	if f.Peers, err = c.Peers(ctx); err != nil {
		f.DaemonErr = err
	}
	parse := subnet.ParseConfig
	if f.kind() == subnet.StoreKubernetes { // which gives nodes their subnets
		parse = subnet.ParseAllocatedConfig
	}
	if config, err := parse(s.Config); len(s.Config) > 0 && err == nil {
		f.Config = &config
	}
}

// askStore asks the daemon, if it runs, for the state of the store.
func askStore(ctx context.Context, c *status.Client, daemon bool) (*status.StoreReport, error) {
	if !daemon {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r, err := c.Store(ctx)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// subnetFile returns the path of the subnet file: the daemon's, the CNI configuration's or the default.
func (f *Facts) subnetFile(o Options) string {
	if f.Status != nil && f.Status.SubnetFile != "" {
		return f.Status.SubnetFile
	}
	if list, ok := f.CNI.own(); ok && list.SubnetFile != "" {
		return list.SubnetFile
	}
	return o.SubnetFile
}

func gatherSubnetFile(path string) SubnetFile {
	content, err := subnetfile.Read(path)
	return SubnetFile{path, content, err}
}

// gatherSysctls reads the sysctls that the checks use.
func (f *Facts) gatherSysctls() map[string]string {
	paths := []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter",
		"net/ipv4/conf/all/arp_ignore",
		bridgeSetting(subnet.IPv4), bridgeSetting(subnet.IPv6),
		"net/ipv6/conf/default/disable_ipv6", beLiberal,
	}
	for _, l := range f.Links {
		paths = append(paths, "net/ipv4/conf/"+l.Name+"/rp_filter")
		if f.concerns(l) {
			paths = append(paths, "net/ipv4/conf/"+l.Name+"/forwarding", "net/ipv4/conf/"+l.Name+"/arp_ignore",
				"net/ipv6/conf/"+l.Name+"/forwarding", "net/ipv6/conf/"+l.Name+"/accept_ra",
				"net/ipv6/conf/"+l.Name+"/disable_ipv6")
		}
	}
	values := map[string]string{}
	for _, p := range paths {
		if data, err := os.ReadFile("/proc/sys/" + p); err == nil {
			values[p] = strings.TrimSpace(string(data))
		}
	}
	return values
}

// concerns reports whether an interface forwards overlay traffic: the uplink, the bridge or an overlay device.
func (f *Facts) concerns(l Link) bool {
	uplink, _ := f.uplink()
	bridge, _ := f.bridge()
	return l.Name == uplink.Name || l.Name == bridge.Name ||
		slices.ContainsFunc(f.devices(), func(d status.Device) bool { return d.Name == l.Name })
}

// inside reports whether one of the networks contains a prefix.
func inside(p netip.Prefix, networks []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool {
		return n.Bits() <= p.Bits() && n.Contains(p.Addr())
	})
}
