package node

import (
	"bufio"
	"io"
	"os"
	"strings"
)

// ipvsFile lists the services of IPVS in the network namespace (ip_vs_info_seq_show in net/netfilter/ipvs/ip_vs_ctl.c).
// It does not exist before the module is loaded.
const ipvsFile = "/proc/net/ip_vs"

// hasIPVS reports whether a file such as [ipvsFile] has a service: kube-proxy in IPVS mode, or kube-router as a service
// proxy. It reads as far as the first one.
func hasIPVS(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return listsService(f)
}

// listsService reports whether a list in the format of [ipvsFile] has a service. Their lines begin with the protocol,
// or with FWM for a mark; all others are the three lines of the head, and the destinations.
func listsService(r io.Reader) bool {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		switch first, _, _ := strings.Cut(lines.Text(), " "); first {
		case "TCP", "UDP", "SCTP", "FWM":
			return true
		}
	}
	return false
}
