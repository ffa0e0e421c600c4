package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/etcd"
)

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

const manyLeases = 5000

// patience is how long a node may take to start, with the race detector on a machine that is busy.
const patience = 2 * time.Minute

// largeNode runs a node in the sandbox, on a real etcd that has so many leases and a real kernel that is to hold what
// they ask for. It returns the URL of its metrics.
func largeNode(tb testing.TB) (metrics string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	up := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "uplink0"}}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 31, 0, 11), Mask: net.CIDRMask(24, 32)}}
	if err := errors.Join(netlink.LinkAdd(up), netlink.AddrAdd(up, address), netlink.LinkSetUp(up)); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = netlink.LinkDel(up) }) // it ends with the sandbox anyway
	server, err := etcdserver.Start(ctx, etcdserver.Options{Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(server.Kill)
	if err := writeLeases(ctx, server.Endpoint()); err != nil {
		tb.Fatal(err)
	}
	log := logrus.New()
	log.Out = io.Discard
	store, err := etcd.New(etcd.Options{Endpoints: []string{server.Endpoint()}, Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	serves, err := api.Listen(api.Options{Metrics: at, Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	running, stop := context.WithCancel(context.Background())
	dir := tb.TempDir()
	go func() {
		ended <- node.Run(running, node.Options{
			Store: store, Uplink: uplink.Options{Ifaces: []string{"uplink0"}}, NodeName: "node1", Version: "test",
			SubnetFile: filepath.Join(dir, "subnet.env"), StateDir: dir, IPMasq: true, Forward: true, VTEPFilter: true,
			RulesResync: time.Minute, Resync: time.Hour, PeerGrace: time.Minute, LeaseTTL: time.Hour,
			API: serves, Ready: func() { close(ready) }, Log: log,
		})
	}()
	tb.Cleanup(func() { stop(); <-ended; store.Close() })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		tb.Fatalf("the node ended: %v", err)
	case <-ctx.Done():
		tb.Fatal("the node is not ready")
	}
	return "http://" + at + "/metrics"
}

func writeLeases(ctx context.Context, endpoint string) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	const prefix, batch = "/coreos.com/network", 100
	if _, err := client.Put(ctx, prefix+"/config", `{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}`); err != nil {
		return err
	}
	for i := 0; i < manyLeases; i += batch {
		var ops []clientv3.Op
		for j := i; j < i+batch; j++ {
			l := subnet.Lease{BackendType: "vxlan", NodeName: fmt.Sprintf("absent%d", j)}
			l.Endpoints[subnet.IPv4] = subnet.Endpoint{
				Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + j>>8), byte(j), 0}), 24),
				PublicIP: netip.AddrFrom4([4]byte{100, 64, byte(j >> 8), byte(j)}),
				Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"0e:ab:00:00:%02x:%02x"}`, j>>8, j&255),
			}
			value, err := l.Value()
			if err != nil {
				return err
			}
			ops = append(ops, clientv3.OpPut(prefix+"/subnets/"+l.Key(), string(value)))
		}
		if _, err := client.Txn(ctx).Then(ops...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

// scrape asks for metrics, and returns them.
func scrape(url string) (string, error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(body), err
}

// TestScrape: what a scrape costs a node with thousands of peers does not hang on how many they are, and neither does
// how long the answer is. What is allocated is that of both ends.
func TestScrape(t *testing.T) {
	url := largeNode(t)
	text, err := scrape(url) // the first one costs more: there are connections to be made, and buffers
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"selvage_build_info{version=\"test\"} 1\n", fmt.Sprintf("selvage_leases %d\n", manyLeases+1), fmt.Sprintf("selvage_peers{state=\"programmed\"} %d\n", manyLeases),
		fmt.Sprintf("selvage_entries_wanted{kind=\"route\"} %d\n", manyLeases), fmt.Sprintf("selvage_entries_present{kind=\"fdb\"} %d\n", manyLeases),
		"selvage_entries_pending{kind=\"route\"} 0\n",
		// The kernel itself sends a few packets that have no peer, such as MLD reports once IPv6 is forwarded.
		`selvage_device_transmit_dropped_packets_total{device="flannel.1"} `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	const mostBytes, mostLines = 1 << 20, 310
	if lines := strings.Count(text, "\n"); lines > mostLines {
		t.Errorf("%d lines, want %d at the most", lines, mostLines)
	}
	// The least of several times, and until the node is at rest: after a start it writes files and frees memory.
	least := uint64(math.MaxUint64)
	for start := time.Now(); least > mostBytes && time.Since(start) < patience; {
		var before, after runtime.MemStats
		const rounds = 5
		runtime.ReadMemStats(&before)
		for range rounds {
			if _, err := scrape(url); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		least = min(least, (after.TotalAlloc-before.TotalAlloc)/rounds)
	}
	t.Logf("%d bytes a scrape", least)
	if least > mostBytes {
		t.Errorf("%d bytes are allocated for a scrape, want %d at the most", least, mostBytes)
	}
}

// BenchmarkScrape is a scrape of a node with 5,000 peers: over HTTP, and with what the client of it allocates.
func BenchmarkScrape(b *testing.B) {
	url := largeNode(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := scrape(url); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStatus is one status of a node with 5,000 peers, asked for over HTTP (/healthz, whose answer is two bytes).
func BenchmarkStatus(b *testing.B) {
	url := strings.TrimSuffix(largeNode(b), "/metrics") + "/healthz"
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := scrape(url); err != nil {
			b.Fatal(err)
		}
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "CPU-ns/op")
}
