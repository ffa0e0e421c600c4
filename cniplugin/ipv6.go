package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// An interface inherits disable_ipv6 from net.ipv6.conf.default when it is made. On a host that disables IPv6 for its
// own interfaces this way, the bridge takes no IPv6 address (ipv6_add_addr in net/ipv6/addrconf.c), and the bridge
// plugin fails with a raw errno.

const ipv6Settings = "/proc/sys/net/ipv6/conf/"

// enableIPv6 repairs what keeps the bridge from taking an IPv6 address, after an ADD that failed with cause and was
// undone, and tries again. It returns cause if that is not what failed. The host's setting for other interfaces stays.
func (c *call) enableIPv6(ctx context.Context, d delegation, f subnetfile.File, cause error) ([]byte, error) {
	config, _ := d.bridge()
	setting := disabledIPv6(config.Bridge, f)
	if setting == "" {
		return nil, cause
	}
	if setting != "default" {
		err := os.WriteFile(ipv6Settings+setting+"/disable_ipv6", []byte("0"), 0)
		if err == nil {
			return c.attach(ctx, d)
		}
		cause = withDetail(cause, err.Error())
	}
	name := "net.ipv6.conf." + strings.ReplaceAll(setting, ".", "/") + ".disable_ipv6"
	return nil, fail(codeIPv6, fmt.Sprintf("%s is 1, and this node's subnet is %s", name, f.Subnets[subnet.IPv6]),
		fmt.Errorf("sysctl -w %s=0, and find what sets it: grep -rs disable_ipv6 /etc/sysctl.conf /etc/sysctl.d "+
			"/run/sysctl.d /usr/lib/sysctl.d; the delegate says: %w", name, cause))
}

// disabledIPv6 returns whose setting keeps an interface that the delegate uses from taking an IPv6 address: the
// bridge's, if there is one, or "default", from which every new interface inherits it; empty: none does.
func disabledIPv6(bridge string, f subnetfile.File) string {
	if !f.Subnets[subnet.IPv6].IsValid() {
		return ""
	}
	for _, of := range []string{bridge, "default"} {
		value, err := os.ReadFile(ipv6Settings + of + "/disable_ipv6")
		if of == "" || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil && strings.TrimSpace(string(value)) == "1" {
			return of
		}
		return "" // the bridge exists, so it has inherited what there is to inherit
	}
	return ""
}
