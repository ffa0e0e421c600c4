package cases

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// manyPeers are leases of nodes that do not exist.
func manyPeers(t *testing.T, n int) (leases []subnet.Lease) {
	t.Helper()
	for i := range n {
		key, err := wgtypes.GenerateKey() // random bytes serve as a public key
		if err != nil {
			t.Fatal(err)
		}
		high, low := byte(i>>8), byte(i)
		leases = append(leases, subnet.Lease{
			BackendType: "wireguard", NodeName: fmt.Sprintf("absent%d", i),
			Endpoints: [2]subnet.Endpoint{subnet.IPv4: {
				Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 | high, low, 0}), 24),
				PublicIP: netip.AddrFrom4([4]byte{172, 32, high, low}),
				Data:     fmt.Sprintf(`{"PublicKey":"%s","Port":51820}`, key),
			}},
		})
	}
	return leases
}

// usage is a process's CPU time, and its resident memory in MB.
func usage(t *testing.T, pid int) (cpu time.Duration, resident float64) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // from the third field of proc(5) on
	const tick, page = 10 * time.Millisecond, 4096
	var numbers []int
	for _, i := range []int{11, 12, 21} { // utime, stime, rss
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return time.Duration(numbers[0]+numbers[1]) * tick, float64(numbers[2]) * page / 1e6
}

// TestManyPeers measures a start among 5,000 peers, one change and the cost at rest, beside wg syncconf of the same peers.
func TestManyPeers(t *testing.T) {
	const peers = 5000
	leases := manyPeers(t, peers)
	c := newCluster(t, lab.Options{Nodes: 1, Families: families(subnet.IPv4)})
	n := c.Nodes()[0]
	c.must(n.Stop(c.ctx))
	c.must(c.Store().PutConfig(c.ctx, `{"Network":"10.128.0.0/9","SubnetLen":24,"SubnetMin":"10.255.0.0",`+
		`"EnableNFTables":true,"Backend":{"Type":"wireguard"}}`))
	c.must(c.Store().PutLeases(c.ctx, leases))

	began := time.Now()
	c.must(n.Start())
	c.must(n.WaitReady(c.ctx))
	start := time.Since(began)
	c.healthy(peers, n)
	if got := len(c.device(n, "flannel-wg").Peers); got != peers {
		t.Fatalf("%d peers, want %d", got, peers)
	}

	var text strings.Builder
	text.WriteString("[Interface]\nPrivateKey = " + psk + "\n")
	for _, l := range leases {
		e := l.Endpoints[subnet.IPv4]
		var data struct{ PublicKey string }
		if _, err := fmt.Sscanf(e.Data, `{"PublicKey":%q`, &data.PublicKey); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "[Peer]\nPublicKey = %s\nEndpoint = %s:51820\nAllowedIPs = %s\n", data.PublicKey, e.PublicIP, e.Subnet)
	}
	c.on(n, func() error { return os.WriteFile("/run/peers.conf", []byte(text.String()), 0o600) })
	c.run(n.Endpoint, "ip link add other type wireguard")
	began = time.Now()
	c.run(n.Endpoint, "wg syncconf other /run/peers.conf")
	sync := time.Since(began)
	began = time.Now()
	c.run(n.Endpoint, "wg syncconf other /run/peers.conf")
	again := time.Since(began)
	c.run(n.Endpoint, "ip link delete other")

	// One change: a lease is deleted and written again, with another endpoint.
	last := leases[peers-1]
	last.Endpoints[subnet.IPv4].PublicIP = netip.MustParseAddr("172.33.0.1")
	key := ""
	_, err := fmt.Sscanf(last.Endpoints[subnet.IPv4].Data, `{"PublicKey":%q`, &key)
	c.must(err)
	began = time.Now()
	c.must(c.Store().PutLeases(c.ctx, []subnet.Lease{last}))
	var change time.Duration
	testctx.Eventually(t, func() string {
		seen := time.Now()
		for _, p := range c.device(n, "flannel-wg").Peers {
			if p.PublicKey.String() == key && p.Endpoint.IP.String() == "172.33.0.1" {
				change = seen.Sub(began)
				return ""
			}
		}
		return "the peer's new endpoint"
	})

	const rest = 60 * time.Second
	before, _ := usage(t, n.PID())
	time.Sleep(rest)
	after, resident := usage(t, n.PID())
	t.Logf("measured: %d peers: start %.2f of one wg syncconf (%.2f of two); a change seen after at most %.2f of it; "+
		"resident %.0f MB, of the processor at rest %.1f %%", peers, float64(start)/float64(sync),
		float64(start)/float64(sync+again), float64(change)/float64(sync), resident, 100*float64(after-before)/float64(rest))
	t.Logf("measured: in instructions (10⁹): start %.2f, wg syncconf %.2f and again %.2f, change at most %.2f",
		start.Seconds(), sync.Seconds(), again.Seconds(), change.Seconds())
}
