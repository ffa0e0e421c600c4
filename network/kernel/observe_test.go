package kernel

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// TestNexthopGoneBetween: a nexthop object and its route came and went; a full read found neither, and what is received
// after it is that the route came and that the object went. Nobody says that the route went with it.
func TestNexthopGoneBetween(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		var s network.State
		route := network.Route{Link: testDevice, Gateway: addr4, OnLink: true, Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST}
		key := network.RouteKey{Prefix: netip.PrefixFrom(addr4, 24)}
		s.Routes = []network.Item[network.RouteKey, network.Route]{{Key: key, Value: s.Via(route)}}
		k.tables.Replace(network.Owner{Name: "peer"}, network.State{}, s)
		if err := k.Read(); err != nil {
			return err
		}
		came := encodeRoute(nil, unix.RTM_NEWROUTE, key, s.Routes[0].Value, 0)[unix.SizeofNlMsghdr:]
		came = attributeUint32(came, unix.RTA_OIF, uint32(k.byName[testDevice])) // as the kernel says, though we may not
		went := encodeNexthopDeletion(nil, s.Nexthops[0].Key)[unix.SizeofNlMsghdr:]
		k.enqueue(func() {
			k.queue = append(k.queue, message{typ: unix.RTM_NEWROUTE, data: came}, message{typ: unix.RTM_DELNEXTHOP, data: went})
		})
		err := k.Observe()
		if c := k.tables.Routes.Get(key); c.Present {
			t.Errorf("the route is taken to be there: %+v, %d pending", c.Have, k.tables.Routes.PendingCount())
		}
		return err
	})
}
