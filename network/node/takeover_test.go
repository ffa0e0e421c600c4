package node

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest/memstore"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// TestNodeTakesOverFlannels: a node's first start finds the lease of the flannel that ran there, and nothing is wrong
// with that: it is not reported as another node's with this node's public IP. A lease that is one is reported.
func TestNodeTakesOverFlannels(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	flannels := vxlanLease(11) // with the address of the uplink
	flannels.InstanceID, flannels.NodeName = "", ""
	own := flannels.Endpoints[subnet.IPv4].Subnet
	stranger := vxlanLease(7)
	stranger.Endpoints[subnet.IPv4].PublicIP = flannels.Endpoints[subnet.IPv4].PublicIP
	for name, open := range map[string]func() (store subnet.Store, share func()){
		"etcd": func() (subnet.Store, func()) {
			store := newMemStore()
			store.putConfig(config)
			store.put(flannels)
			return etcdStore{store}, func() { store.put(stranger) }
		},
		"Kubernetes": func() (subnet.Store, func()) {
			server := memstore.NewAllocating()
			t.Cleanup(server.Close)
			server.Write("config", config)
			for name, l := range map[string]subnet.Lease{"this": flannels, "other": stranger} {
				server.AddNode(name)
				server.Allocate(name, l.Endpoints[subnet.IPv4].Subnet)
			}
			server.Publish("this", flannels)
			return newNodesStore(server, "this"), func() { server.Publish("other", stranger) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			ownUplink(t)
			dir := t.TempDir()
			f := subnetfile.File{
				Networks: [2][]netip.Prefix{{netip.MustParsePrefix("10.5.0.0/16")}},
				Subnets:  [2]netip.Prefix{netip.PrefixFrom(own.Addr().Next(), own.Bits())}, MTU: 1450,
			}
			if err := subnetfile.Write(filepath.Join(dir, "subnet.env"), f); err != nil {
				t.Fatal(err)
			}
			store, share := open()
			n := startNode(t, store, dir)
			n.waitSubnet(t, own)
			if strings.Contains(n.log.String(), "lease rejected") {
				t.Errorf("flannel's lease of this node was rejected:\n%s", n.log.String())
			}
			share()
			n.waitLog(t, "public IP 172.31.0.11 is our own")
			n.waitReason(t, status.PublicIPShared)
			n.stop()
			// At the next start it is there from the beginning.
			n = startNode(t, store, dir)
			n.waitReason(t, status.PublicIPShared)
			n.waitLog(t, "public IP 172.31.0.11 is our own")
		})
	}
}
