package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestCost measures what a device in user space takes: the memory of its process, with one peer, with 100, and after a
// stream; and the throughput of one flow of TCP, beside VXLAN and the bare underlay. It judges none of it.
func TestCost(t *testing.T) {
	c := open(t, lab.Options{Families: families(subnet.IPv4), DaemonArgs: []string{"--peer-grace=0s"}})
	c.begin(t, `{"Type":"wireguard"}`)
	c.probe(t)
	n := c.Nodes()[0]
	pid := c.process(t, n, "flannel-wg")
	t.Logf("measured: memory of the process, one peer: %s", memory(t, pid))
	used, err := c.Store().Leases(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	const peers = 100
	var leases []subnet.Lease
	for i := 0; len(leases) < peers-1; i++ {
		l, err := subnet.ParseLease(fmt.Sprintf("10.5.%d.0-24", 100+i), fmt.Appendf(nil,
			`{"PublicIP":"172.31.0.%d","BackendType":"wireguard","BackendData":{"PublicKey":"%s"}}`, 100+i,
			newKey(t).PublicKey()))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(used, func(u subnet.Lease) bool { return u.Endpoints[0].Subnet == l.Endpoints[0].Subnet }) {
			leases = append(leases, l)
		}
	}
	if err := c.Store().PutLeases(c.ctx, leases); err != nil {
		t.Fatal(err)
	}
	testctx.Eventually(t, func() string {
		d, err := c.device(n, "flannel-wg")
		if err != nil || len(d.Peers) != peers {
			return fmt.Sprintf("%d peers, %v, want %d", len(d.Peers), err, peers)
		}
		return ""
	})
	t.Logf("measured: memory of the process, %d peers: %s", peers, memory(t, pid))
	if err := c.Store().DeleteLeases(c.ctx, leases); err != nil {
		t.Fatal(err)
	}

	const rounds = 3
	measured := map[string][]float64{}
	paths := []string{"wireguard", "underlay", "vxlan"}
	note := func(path string, from, to *lab.Endpoint) {
		t.Helper()
		for range rounds {
			measured[path] = append(measured[path], throughput(t, from, to))
		}
	}
	note("wireguard", c.pods[0].Endpoint, c.pods[1].Endpoint)
	t.Logf("measured: memory of the process, after %d seconds of TCP: %s", rounds*int(flowTime/time.Second), memory(t, pid))
	note("underlay", c.Nodes()[0].Endpoint, c.Nodes()[1].Endpoint)
	c.configureNetwork(t, vxlanBackend)
	c.moved(t, "vxlan", false)
	note("vxlan", c.pods[0].Endpoint, c.pods[1].Endpoint)
	for _, p := range paths {
		slices.Sort(measured[p])
		t.Logf("measured: TCP, one flow, %s: %.2f Gbit/s (%.2f to %.2f)", p, measured[p][rounds/2], measured[p][0],
			measured[p][rounds-1])
	}
}

// memory returns the resident memory of a process: all of it, and what it shares with no file, such as the binary.
func memory(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	mb := func(name string) float64 {
		m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s: %s", name, text)
		}
		kb, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return float64(kb) / 1000
	}
	return fmt.Sprintf("%.1f MB resident, of which %.1f MB are its own", mb("VmRSS"), mb("RssAnon"))
}

// flowTime is how long one flow of TCP lasts.
const flowTime = 2 * time.Second

// throughput returns that of one flow of TCP, in Gbit/s.
func throughput(t *testing.T, from, to *lab.Endpoint) float64 {
	t.Helper()
	var l net.Listener
	var out net.Conn
	err := to.Do(func() (err error) {
		l, err = net.Listen("tcp4", net.JoinHostPort(to.Addr(subnet.IPv4).String(), "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan int64, 1)
	go func() {
		in, err := l.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer in.Close()
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, make([]byte, 1<<18))
		received <- n
	}()
	err = from.Do(func() (err error) {
		out, err = net.DialTimeout("tcp4", l.Addr().String(), lab.TestPatience)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	begin := time.Now()
	if err := out.SetDeadline(begin.Add(flowTime)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<18)
	for err = nil; err == nil; {
		_, err = out.Write(buf)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := out.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	n := <-received
	return float64(n) * 8 / time.Since(begin).Seconds() / 1e9
}
