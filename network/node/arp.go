package node

import (
	"maps"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// arpCheck is how often it is read at least whether the bridges of pods answer ARP requests: the kernel does not notify
// of changes to arp_ignore.
const arpCheck = 10 * time.Second

// arpSilent is the value of arp_ignore with which the kernel answers no ARP request, see ip-sysctl.rst in its
// documentation. With lower values it still answers for the pods' gateway, which is an address of the bridge.
const arpSilent = "8"

// silentBridges returns the bridges on which the kernel answers no ARP request, with the setting that is the reason.
// The greater one of the bridge's setting and that of all interfaces is in force.
func silentBridges(bridges []string, read func(path string) string) map[string]string {
	silent := map[string]string{}
	for _, name := range bridges {
		for _, link := range []string{name, "all"} {
			if path := "net/ipv4/conf/" + link + "/arp_ignore"; read(path) == arpSilent {
				silent[name] = path
			}
		}
	}
	return silent
}

// arpProblems calls add for each bridge of pods with IPv4 on which the kernel answers no ARP request. The setting may
// be there for other interfaces, so it is not changed.
func (o *ownSide) arpProblems(add func(code status.Reason, key, id, format string, args ...any)) {
	var bridges []string
	for _, x := range o.state.Addresses {
		if x.Key.Prefix.Addr().Is4() && !slices.Contains(bridges, x.Key.Link) {
			bridges = append(bridges, x.Key.Link)
		}
	}
	silent := silentBridges(bridges, readSysctl)
	for _, name := range slices.Sorted(maps.Keys(silent)) {
		add(status.ARPIgnored, name, name, "the kernel answers no ARP request on %s, so pods do not find their "+
			"gateway (arp_ignore is %s): sysctl -w %s=0", name, arpSilent, silent[name])
	}
}
