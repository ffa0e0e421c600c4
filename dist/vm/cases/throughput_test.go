package cases

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// transfer sends so many bytes from one endpoint to another over TCP, and returns how long that took.
func (c *cluster) transfer(from, to *lab.Endpoint, bytes int64) time.Duration {
	c.t.Helper()
	var listener net.Listener
	c.must(to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to.Addr(subnet.IPv4), 0).String())
		return err
	}))
	defer listener.Close()
	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			var n int64
			if n, err = io.Copy(io.Discard, conn); n != bytes {
				err = errors.Join(err, fmt.Errorf("%d bytes received, want %d", n, bytes))
			}
			conn.Close()
		}
		received <- err
	}()
	var conn net.Conn
	c.must(from.Do(func() (err error) { conn, err = net.Dial("tcp", listener.Addr().String()); return err }))
	began := time.Now()
	_, err := io.CopyN(conn, zeros{}, bytes)
	c.must(errors.Join(err, conn.Close(), <-received))
	return time.Since(began)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// datagrams sends batches of datagrams from one endpoint to another, each after all of the one before were received, and
// returns how long a datagram took.
func (c *cluster) datagrams(from, to *lab.Endpoint, batches, batch, size int) time.Duration {
	c.t.Helper()
	var in net.PacketConn
	var out net.Conn
	c.must(to.Do(func() (err error) {
		in, err = net.ListenPacket("udp", netip.AddrPortFrom(to.Addr(subnet.IPv4), 0).String())
		return err
	}))
	defer in.Close()
	c.must(from.Do(func() (err error) { out, err = net.Dial("udp", in.LocalAddr().String()); return err }))
	defer out.Close()
	b := make([]byte, size)
	exchange := func(n int) error {
		for range n {
			if _, err := out.Write(b); err != nil {
				return err
			}
		}
		for range n {
			if err := in.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				return err
			}
			if _, _, err := in.ReadFrom(b); err != nil {
				return err
			}
		}
		return nil
	}
	c.must(exchange(1)) // resolves addresses
	began := time.Now()
	for range batches {
		c.must(exchange(batch))
	}
	return time.Since(began) / time.Duration(batches*batch)
}

// TestThroughput measures what WireGuard costs beside VXLAN and the bare underlay. Emulated on one processor that has no
// other work, a nanosecond is an instruction, of both ends and of all between them.
func TestThroughput(t *testing.T) {
	const bytes, size = 4 << 20, 1350
	type cost struct{ tcp, wire, udp time.Duration }
	costs := map[string]cost{}
	for _, backend := range []string{"vxlan", "wireguard"} {
		t.Run(backend, func(t *testing.T) {
			c := newCluster(t, lab.Options{Nodes: 2, Families: families(subnet.IPv4)})
			c.begin(families(subnet.IPv4), `{"Type":"`+backend+`"}`)
			measure := func(from, to *lab.Endpoint) (x cost) {
				c.transfer(from, to, 1<<20)
				x.tcp = c.transfer(from, to, bytes)
				x.udp = c.datagrams(from, to, 40, 32, size)
				return x
			}
			if backend == "vxlan" {
				costs["the underlay"] = measure(c.Nodes()[0].Endpoint, c.Nodes()[1].Endpoint)
			}
			from, to := c.pods[0].Endpoint, c.pods[1].Endpoint
			x := measure(from, to)
			for _, n := range c.Nodes() { // no packet larger than the MTU leaves the uplink
				c.run(n.Endpoint, "ip link set eth0 gso_max_segs 1")
			}
			x.wire = c.transfer(from, to, bytes)
			costs[backend] = x
		})
	}
	if len(costs) != 3 || t.Failed() {
		return
	}
	for _, name := range []string{"the underlay", "vxlan", "wireguard"} {
		x := costs[name]
		text := fmt.Sprintf("%s: instructions for a datagram of %d bytes %d, for a kB of TCP %.0f", name, size, x.udp,
			float64(x.tcp)*1000/bytes)
		if x.wire > 0 {
			text += fmt.Sprintf(", and %.0f where no packet on the underlay is larger than the MTU", float64(x.wire)*1000/bytes)
		}
		t.Logf("measured: %s", text)
	}
	v, w := costs["vxlan"], costs["wireguard"]
	t.Logf("measured: wireguard's throughput as a part of vxlan's, if all instructions took the same time: "+
		"datagrams %.2f, TCP %.2f, and %.2f where no packet is larger than the MTU",
		float64(v.udp)/float64(w.udp), float64(v.tcp)/float64(w.tcp), float64(v.wire)/float64(w.wire))
}
