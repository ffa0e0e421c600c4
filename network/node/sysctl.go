package node

import (
	"os"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// forwarding returns the settings without which the kernel does not pass packets on, for the families in use: for the
// node as a whole, for the uplink and for the overlay's devices. read returns what a setting is now, or nothing.
//
// A node that forwards IPv6 is a router, and a router takes no default route from router advertisements. Where the
// uplink takes them (accept_ra 1), that is changed to 2, which keeps it.
func forwarding(
	families [2]bool, uplink string, devices []string, read func(path string) string,
) (out []network.Item[string, network.Sysctl]) {
	want := func(path string, v network.Sysctl) {
		out = append(out, network.Item[string, network.Sysctl]{Key: path, Value: v})
	}
	for _, f := range subnet.Families() {
		if !families[f] {
			continue
		}
		conf, all := "net/ipv4/conf/", "net/ipv4/ip_forward"
		if f == subnet.IPv6 {
			conf, all = "net/ipv6/conf/", "net/ipv6/conf/all/forwarding"
			if ra := read(conf + uplink + "/accept_ra"); ra == "1" || ra == "2" {
				want(conf+uplink+"/accept_ra", "2")
			}
		}
		want(all, "1")
		for _, link := range append([]string{uplink}, devices...) {
			want(conf+link+"/forwarding", "1")
		}
		if f == subnet.IPv6 { // else our own devices take no address; what a host sets for all is for its own
			for _, link := range devices {
				want(conf+link+"/disable_ipv6", "0")
			}
		}
	}
	return out
}

// checksSources reports whether the kernel drops IPv4 packets that come in on an interface and whose source it would
// not send to by the same one (rp_filter 1), or is less strict on this interface (2).
func checksSources(link string, read func(path string) string) bool {
	own := read("net/ipv4/conf/" + link + "/rp_filter")
	return own == "1" || own == "2" || read("net/ipv4/conf/all/rp_filter") == "1"
}

func readSysctl(path string) string {
	data, _ := os.ReadFile("/proc/sys/" + path) // what is not there says nothing
	return strings.TrimSpace(string(data))
}
