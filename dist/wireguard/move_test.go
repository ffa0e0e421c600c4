package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

const (
	vxlanBackend     = `{"Type":"vxlan"}`
	wireguardBackend = `{"Type":"wireguard","PSK":"` + psk + `"}`
)

// streamEvery is the interval of a stream's datagrams. A WireGuard in user space with the race detector on a machine with
// load 30 does not keep up with one every 2 ms: its sockets' buffers overflow, whatever the daemons do.
const streamEvery = 10 * time.Millisecond

// stream sends packets between the pods, both ways and in all families, until stop, which fails the test if one was
// lost.
func (c *cluster) stream(t *testing.T) (stop func()) {
	t.Helper()
	type result struct {
		report lab.StreamReport
		err    error
	}
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan result, 2)
	for _, ends := range [][2]*lab.Pod{{c.pods[0], c.pods[1]}, {c.pods[1], c.pods[0]}} {
		go func() {
			r, err := c.Stream(ctx, ends[0].Endpoint, ends[1].Endpoint, streamEvery)
			done <- result{r, err}
		}()
	}
	return func() {
		t.Helper()
		cancel()
		for range 2 {
			if r := <-done; r.err != nil || r.report.Lost != 0 {
				t.Errorf("%s, %v, want none lost", r.report, r.err)
			}
		}
	}
}

// state waits until the status of a node is as ok says: what it lacks, or nothing.
func (c *cluster) state(t *testing.T, n *lab.Node, ok func(status.Backend) bool) {
	t.Helper()
	testctx.Eventually(t, func() string {
		s, err := n.Status(c.ctx)
		if err != nil || s.Backend == nil {
			return fmt.Sprint(err, s.Backend)
		}
		if !ok(*s.Backend) || len(s.Problems) > 0 {
			return fmt.Sprintf("%s: %+v, move %+v, problems %v", n.Name(), *s.Backend, s.Backend.Move, s.Problems)
		}
		return ""
	})
}

// moved waits until the nodes have the devices of one backend alone.
func (c *cluster) moved(t *testing.T, backend string, encrypted bool) {
	t.Helper()
	for _, n := range c.Nodes() {
		c.state(t, n, func(b status.Backend) bool {
			all := b.Encrypted != nil && *b.Encrypted == len(c.Nodes())-1
			return b.Type == backend && b.Move == nil && (all && encrypted || b.Encrypted == nil && !encrypted)
		})
		testctx.Eventually(t, func() (left string) {
			for _, name := range []string{"flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6"} {
				c.do(t, n, func() error {
					_, err := netlink.LinkByName(name)
					if err == nil && strings.HasPrefix(name, "flannel-wg") != encrypted {
						left += name + " is left; "
					}
					return nil
				})
			}
			return left
		})
	}
}

// TestMove: nodes move from VXLAN to WireGuard and back while packets are sent, and none is lost.
func TestMove(t *testing.T) {
	for _, x := range []struct {
		name     string
		families []subnet.Family
		o        lab.Options
	}{
		{"IPv4", families(subnet.IPv4), lab.Options{}},
		{"dual stack in Kubernetes", families(subnet.IPv4, subnet.IPv6), lab.Options{Store: subnet.StoreKubernetes}},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.o.Families = x.families
			c := open(t, x.o)
			c.begin(t, vxlanBackend)
			c.probe(t)
			stop := c.stream(t)
			c.configureNetwork(t, wireguardBackend)
			c.moved(t, "wireguard", true)
			c.probe(t)
			c.configureNetwork(t, vxlanBackend)
			c.moved(t, "vxlan", false)
			stop()
			c.probe(t)
		})
	}
}

// TestMoveWaits: a node whose daemon does not run keeps all others from leaving the old backend, and loses nothing;
// neither do nodes whose daemons are restarted in between, or a config that is taken back.
func TestMoveWaits(t *testing.T) {
	c := open(t, lab.Options{})
	c.begin(t, vxlanBackend)
	c.probe(t)
	stop := c.stream(t)
	runs, dead := c.Nodes()[0], c.Nodes()[1]
	dead.Kill()
	c.configureNetwork(t, wireguardBackend)
	waits := func(b status.Backend) bool {
		return b.Type == "wireguard" && b.Encrypted != nil && *b.Encrypted == 0 && b.Move != nil && b.Move.From == "vxlan" &&
			len(b.Move.Waiting) == 1 && strings.Contains(fmt.Sprint(b.Move.Waiting[0].Why), "vxlan only")
	}
	c.state(t, runs, waits)
	if err := errors.Join(runs.Restart(c.ctx), runs.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	c.state(t, runs, waits)
	c.examine(t, runs)
	c.probe(t)
	c.configureNetwork(t, vxlanBackend)
	c.state(t, runs, func(b status.Backend) bool { return b.Type == "vxlan" && b.Move == nil })
	c.gone(t, runs, "flannel-wg")
	c.configureNetwork(t, wireguardBackend)
	c.state(t, runs, waits)
	if err := errors.Join(dead.Start(), dead.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	c.moved(t, "wireguard", true)
	stop()
	c.probe(t)
}

// TestMoveOneWay: where WireGuard's handshakes succeed, and what is sent in one direction is lost, packets in that
// direction go by VXLAN until they arrive by WireGuard.
func TestMoveOneWay(t *testing.T) {
	c := open(t, lab.Options{Families: families(subnet.IPv4)})
	c.begin(t, vxlanBackend)
	c.probe(t)
	stop := c.stream(t)
	sender, receiver := c.Nodes()[0], c.Nodes()[1]
	iptables := func(command string) string {
		t.Helper()
		out, err := receiver.Output(c.ctx, strings.Fields("iptables "+command)...)
		if err != nil {
			t.Fatalf("iptables %s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	// Packets of the IP lengths 176 and 120 are an initiation and a response.
	iptables("-I INPUT -p udp --dport 51820 -j DROP")
	for _, length := range []string{"176", "120"} {
		iptables("-I INPUT -p udp --dport 51820 -m length --length " + length + " -j ACCEPT")
	}
	c.configureNetwork(t, wireguardBackend)
	c.state(t, receiver, func(b status.Backend) bool { return b.Encrypted != nil && *b.Encrypted == 1 })
	const several = 8 // requests of either kind, and keep-alive packets
	testctx.Eventually(t, func() string {
		counters := iptables("-L INPUT -n -v -x")
		for _, line := range strings.Split(counters, "\n") {
			var packets, bytes int
			var target string
			if _, err := fmt.Sscan(line, &packets, &bytes, &target); err == nil && target == "DROP" && packets >= several {
				return ""
			}
		}
		return counters
	})
	c.state(t, sender, func(b status.Backend) bool {
		return b.Encrypted != nil && *b.Encrypted == 0 && b.Move != nil && len(b.Move.Waiting) == 1 &&
			strings.Contains(fmt.Sprint(b.Move.Waiting[0].Why), "not answered")
	})
	if d, err := c.device(sender, "flannel-wg"); err != nil || len(d.Peers) != 1 || d.Peers[0].LastHandshakeTime.IsZero() {
		t.Errorf("%+v, %v, want a peer with a handshake", d, err)
	}
	c.probe(t)
	iptables("-D INPUT -p udp --dport 51820 -j DROP")
	c.moved(t, "wireguard", true)
	stop()
	c.probe(t)
}

// TestEncryptionRequired: in a move, nodes that do not encrypt are refused once all do, and stay refused over a restart
// of the daemon. Until then they are peers.
func TestEncryptionRequired(t *testing.T) {
	const required = wireguardBackend + `,"Encryption":"required"`
	c := open(t, lab.Options{})
	c.begin(t, vxlanBackend)
	c.probe(t)
	stop := c.stream(t)
	runs, late := c.Nodes()[0], c.Nodes()[1]
	late.Kill()
	c.configureNetwork(t, required)
	c.state(t, runs, func(b status.Backend) bool {
		return b.Encryption == status.EncryptionAwaited && b.Move != nil && len(b.Move.Waiting) == 1
	})
	c.probe(t)
	if err := errors.Join(late.Start(), late.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	c.moved(t, "wireguard", true)
	stop()
	plain, err := subnet.ParseLease("10.5.200.0-24",
		[]byte(`{"PublicIP":"172.31.0.200","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:c8"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Store().PutLeases(c.ctx, []subnet.Lease{plain}); err != nil {
		t.Fatal(err)
	}
	refused := func() {
		t.Helper()
		testctx.Eventually(t, func() string {
			s, err := runs.Status(c.ctx)
			if err != nil {
				return err.Error()
			}
			text := fmt.Sprintf("%+v", s.Quarantined)
			if !strings.Contains(text, "10.5.200.0-24") || !strings.Contains(text, "the network config requires encryption") ||
				s.Backend == nil || s.Backend.Encryption != status.EncryptionRequired {
				return fmt.Sprintf("%s, backend %+v", text, s.Backend)
			}
			return ""
		})
	}
	refused()
	if err := errors.Join(runs.Restart(c.ctx), runs.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	refused()
	c.configureNetwork(t, vxlanBackend+`,"Encryption":"required"`)
	testctx.Eventually(t, func() string {
		s, err := runs.Status(c.ctx)
		if text := fmt.Sprint(err, s.Problems); !strings.Contains(text, "the backend vxlan does not encrypt") {
			return text
		}
		return ""
	})
	c.probe(t)
}
