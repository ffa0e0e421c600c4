package vxlan

import (
	"fmt"

	"github.com/selvage-net/selvage/network"
)

// TxChecksum decides on the checksum offload of VXLAN devices: setting is "on", "off" or "auto", release the kernel's,
// as uname -r prints it.
//
// Before Linux 5.7 the kernel's NAT updated the checksum of UDP packets that have none, as VXLAN's over IPv4 have
// (ea64d8d6c675, "netfilter: nat: never update the UDP checksum when it's 0"). Together with an uplink that is to fill
// in the checksum, masqueraded VXLAN packets then leave with a wrong one: connections to a service stall for 63
// seconds, until TCP has given up on the offload. "auto" switches the offload off there, and on kernels from 5.7 on
// leaves it as it is. Some distributions have the fix in older kernels, which the release does not show;
// there it only costs a little time.
func TxChecksum(setting, release string) (network.Offload, error) {
	switch setting {
	case "on":
		return network.On, nil
	case "off":
		return network.Off, nil
	case "auto":
		var major, minor int
		if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 5 || major == 5 && minor < 7) {
			return network.Off, nil
		}
		return network.AsItIs, nil
	default:
		return network.AsItIs, fmt.Errorf("--vxlan-tx-checksum: %q, want auto, on or off", setting)
	}
}
