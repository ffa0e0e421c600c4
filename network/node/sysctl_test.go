package node

import (
	"slices"
	"testing"

	"github.com/selvage-net/selvage/network"
)

func TestForwarding(t *testing.T) {
	for _, tt := range []struct {
		name     string
		families [2]bool
		ra       string
		want     []string
	}{
		{"IPv4", [2]bool{true, false}, "1", []string{
			"sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv4.conf.eth0.forwarding=1", "sysctl -w net.ipv4.conf.dev.forwarding=1",
		}},
		{"IPv6 with router advertisements", [2]bool{false, true}, "1", []string{
			"sysctl -w net.ipv6.conf.eth0.accept_ra=2", "sysctl -w net.ipv6.conf.all.forwarding=1",
			"sysctl -w net.ipv6.conf.eth0.forwarding=1", "sysctl -w net.ipv6.conf.dev.forwarding=1",
			"sysctl -w net.ipv6.conf.dev.disable_ipv6=0",
		}},
		{"IPv6 with router advertisements refused", [2]bool{false, true}, "0", []string{
			"sysctl -w net.ipv6.conf.all.forwarding=1",
			"sysctl -w net.ipv6.conf.eth0.forwarding=1", "sysctl -w net.ipv6.conf.dev.forwarding=1",
			"sysctl -w net.ipv6.conf.dev.disable_ipv6=0",
		}},
	} {
		s := network.State{Sysctls: forwarding(tt.families, "eth0", []string{"dev"}, func(string) string { return tt.ra })}
		if got := s.Commands(); !slices.Equal(got, tt.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
	}
}
