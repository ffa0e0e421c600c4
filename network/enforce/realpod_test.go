package enforce

import (
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// realPod makes a pod with a network stack of its own, behind one more port of the bridge. The lab's pods have the
// lower numbers.
func (l *lab) realPod(i int) *sandbox.Net {
	l.t.Helper()
	ns, err := sandbox.NewNet()
	l.must(err)
	port := portName(i)
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
	l.must(ns.Do(func() error {
		l.up("eth0", podAddress(i, false).String()+"/24", podAddress(i, true).String()+"/64")
		return nil
	}))
	return ns
}
