package enforce

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/policy"
)

// realPod makes a pod with a TCP stack of its own, behind one more port of the bridge.
func (l *lab) realPod(port, address string) *sandbox.Net {
	l.t.Helper()
	ns, err := sandbox.NewNet()
	l.must(err)
	l.t.Cleanup(func() {
		l.remove(port)
		if err := ns.Close(); err != nil {
			l.t.Error(err)
		}
	})
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: port})
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(ns.Fd())
	l.must(netlink.LinkAdd(veth))
	bridge, err := netlink.LinkByName("pods0")
	l.must(err)
	l.must(netlink.LinkSetMaster(veth, bridge))
	l.must(netlink.LinkSetUp(veth))
	l.must(ns.Do(func() error { l.up("eth0", address+"/24"); return nil }))
	return ns
}

// TestNoStall: a TCP connection goes on that transferred more than its window while packets between pods were not
// tracked.
func TestNoStall(t *testing.T) {
	l := newLab(t)
	server, client := l.realPod("port20", "10.0.0.20"), l.realPod("port21", "10.0.0.21")
	e, _ := start(t, Options{})
	set := webAndClient(t)
	apply(t, e, func(to policy.Objects) {
		set(to)
		for app, address := range map[string]string{"web": "10.0.0.20", "client": "10.0.0.21"} {
			p := podAt(0, app)
			p.UID, p.Name, p.Addresses = "real "+app, "real-"+app, [2]netip.Addr{netip.MustParseAddr(address)}
			to.SetPod(p)
		}
	})
	var listener net.Listener
	var from, to net.Conn
	l.must(server.Do(func() (err error) { listener, err = net.Listen("tcp4", "10.0.0.20:80"); return err }))
	defer listener.Close()
	l.must(client.Do(func() (err error) {
		from, err = net.DialTimeout("tcp4", "10.0.0.20:80", patient)
		return err
	}))
	defer from.Close()
	to, err := listener.Accept()
	l.must(err)
	defer to.Close()
	limit := time.Now().Add(patient)
	l.must(from.SetDeadline(limit))
	l.must(to.SetDeadline(limit))
	transfer := func(what string, size int64) {
		t.Helper()
		sent := make(chan error, 1)
		go func() { _, err := from.Write(make([]byte, size)); sent <- err }()
		if n, err := io.CopyN(io.Discard, to, size); err != nil {
			t.Errorf("%s: %d of %d bytes arrived: %v", what, n, size, err)
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	bridged := func(value string) { l.must(write(map[string]string{"bridge/bridge-nf-call-iptables": value})) }
	transfer("tracked", 1<<20)
	bridged("0")
	transfer("not tracked", 64<<20)
	bridged("1")
	e.Bypassed()
	transfer("tracked again", 1<<20)
}
