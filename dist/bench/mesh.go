package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/network/mesh"
)

const (
	// meshTurns is how often the clients of the part "mesh" connect and disconnect.
	meshTurns = 10
	meshPort  = "8473"
	// strangers, slow and asking are how many clients of each kind there are at a time, and pauses are between two
	// connections of one. So few that neither core is full: this is about the daemon's loop.
	strangers     = 4
	slow          = 8
	asking        = 1
	strangerPause = 100 * time.Millisecond
	askingPause   = 200 * time.Millisecond
	// hugeRequest is the size of a request that is too large, in bytes.
	hugeRequest = 1 << 20
)

// meshArms are the loads beside the changes: none, clients of another node's daemon, which take the same CPU time of
// this machine, and clients of the daemon that is measured.
const (
	noClients = iota
	othersClients
	ownClients
	meshArms
)

// meshes measures how long a change of a lease takes while strangers, slow clients and nodes ask for the node's
// summary, in turns with a time without them, and with one in which they ask another node.
func meshes(ctx context.Context, b *bench) error {
	c, err := b.cluster(ctx, few, ipv4())
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-mesh-") // a node has a /run of its own
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ca, err := certs.New(dir, "ca")
	if err == nil {
		err = ca.Sign(filepath.Join(dir, "node"), func(x *x509.Certificate) { x.DNSNames = []string{"nodes"} })
	}
	if err != nil {
		return err
	}
	cert := filepath.Join(dir, "node")
	p := b.programs("--peer-grace=0s", "--mesh-addr=:"+meshPort,
		"--mesh-cafile="+ca.File, "--mesh-certfile="+cert+".pem",
		"--mesh-keyfile="+cert+".key")[0]
	var took [meshArms][]float64
	var clients [meshArms]meshClients
	measure := func(n *node, d *daemon) error {
		if clients[ownClients], err = newMeshClients(n, ca.File, cert); err != nil {
			return err
		}
		index := few
		for turn := range meshArms * meshTurns {
			arm := turn % meshArms
			stop := func() {}
			if arm != noClients {
				stop = clients[arm].start(ctx)
			}
			for range max(1, b.Changes/meshTurns) {
				for _, change := range []string{"added", "changed", "removed"} {
					t, err := c.change(ctx, n, d, index, change)
					if err != nil {
						stop()
						return fmt.Errorf("lease %s: %w", change, err)
					}
					took[arm] = append(took[arm], milliseconds(t))
					if !pause(ctx, between) {
						stop()
						return ctx.Err()
					}
				}
				index = few + (index-few+1)%1000
			}
			stop()
		}
		return nil
	}
	_, err = b.start(ctx, p, c, settle, func(other *node, _ *daemon) error {
		bridge, err := netlink.LinkByName(underlay)
		for number := 1; err == nil && number <= strangers+slow+asking+1; number++ {
			err = addAddress(bridge, clientAddress(number).String()+"/16")
		}
		if err == nil {
			clients[othersClients], err = newMeshClients(other, ca.File, cert)
		}
		if err == nil {
			_, err = b.start(ctx, p, c, settle, measure)
		}
		return err
	})
	if err != nil {
		return err
	}
	own, others := clients[ownClients], clients[othersClients]
	if own.connections.Load() == 0 || own.answers.Load() == 0 || others.answers.Load() == 0 {
		return fmt.Errorf("%d connections and %d answers: that is no load", own.connections.Load(), own.answers.Load())
	}
	for _, q := range []struct {
		name string
		p    float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		with, beside := quantile(q.p, took[ownClients]), quantile(q.p, took[othersClients])
		without := quantile(q.p, took[noClients])
		what := fmt.Sprintf("%d leases: one added, changed or removed, %s", few, q.name)
		b.report.add(Figure{
			Name: "MeshLoad/none/" + q.name, What: what + ", without clients", Unit: "ms", Value: without,
		})
		b.report.add(Figure{
			Name: "MeshLoad/" + q.name, What: what + ", with clients of --mesh-addr", Unit: "ms", Value: with,
			Floor: &Reference{What: "with the same clients of another node's daemon, in turns", Value: beside},
		})
		ratio := Figure{
			Name: "MeshLoad/ratio/" + q.name, What: "the same, divided by its floor", Unit: "times",
			Value: with / beside,
		}
		if q.p > 0.5 {
			ratio.Limit = atMost(1.5)
		}
		b.report.add(ratio)
	}
	b.report.note("load of --mesh-addr: %d connections, of which %d were answered with a summary, "+
		"in %d turns of %d changes",
		own.connections.Load(), own.answers.Load(), meshTurns, 3*max(1, b.Changes/meshTurns))
	return nil
}

// meshClients are clients of a node's --mesh-addr.
type meshClients struct {
	address              string
	stranger, holder     *tls.Config
	connections, answers *atomic.Int64
}

func newMeshClients(n *node, authority, cert string) (m meshClients, err error) {
	m = meshClients{connections: &atomic.Int64{}, answers: &atomic.Int64{}}
	pem, err := os.ReadFile(authority)
	if err != nil {
		return m, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	own, err := tls.LoadX509KeyPair(cert+".pem", cert+".key")
	if err != nil {
		return m, err
	}
	m.stranger = &tls.Config{RootCAs: roots, ServerName: "nodes", MinVersion: tls.VersionTLS13}
	m.holder = m.stranger.Clone()
	m.holder.Certificates = []tls.Certificate{own}
	m.address = net.JoinHostPort(n.address, meshPort)
	return m, nil
}

// clientAddress returns the address of a client: the daemon limits the connections of each.
func clientAddress(number int) net.IP { return net.IPv4(172, 30, 0, byte(10+number)) }

// start has all clients come until stop is called, each from an address of its own.
func (m meshClients) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	number := 0
	add := func(count int, wait time.Duration, do func(net.Conn)) {
		for range count {
			number++
			from := &net.TCPAddr{IP: clientAddress(number)}
			clients.Go(func() {
				for ctx.Err() == nil {
					m.connect(ctx, from, do)
					pause(ctx, wait)
				}
			})
		}
	}
	const request = "GET " + mesh.Path + " HTTP/1.1\r\nHost: x\r\n"
	add(strangers, strangerPause, func(c net.Conn) { // without a certificate
		_, _ = io.WriteString(tls.Client(c, m.stranger), request+"\r\n")
	})
	add(slow, strangerPause, func(c net.Conn) { // until the daemon disconnects it
		_, _ = io.Copy(io.Discard, c)
	})
	add(asking, askingPause, func(c net.Conn) {
		x := tls.Client(c, m.holder)
		_, _ = io.WriteString(x, request+"\r\n")
		if all, _ := io.ReadAll(x); strings.HasPrefix(string(all), "HTTP/1.1 200") {
			m.answers.Add(1)
		}
	})
	add(1, askingPause, func(c net.Conn) {
		x := tls.Client(c, m.holder)
		_, _ = io.WriteString(x, request+"X: "+strings.Repeat("x", hugeRequest)+"\r\n\r\n")
		_, _ = io.Copy(io.Discard, x)
	})
	return func() { cancel(); clients.Wait() }
}

// connect opens a connection, and closes it when the client is done or ctx ends.
func (m meshClients) connect(ctx context.Context, from net.Addr, do func(net.Conn)) {
	c, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", m.address)
	if err != nil {
		return
	}
	m.connections.Add(1)
	end := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer end()
	defer c.Close()
	do(c)
}
