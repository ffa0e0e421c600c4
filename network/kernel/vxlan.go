package kernel

import (
	"encoding/binary"
	"errors"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// makeVXLAN makes a VXLAN device, without a lower device: one made with it is deleted together with it, and the route decides
// as well. The library cannot say that there are to be no UDP checksums, and refuses to change VXLAN devices, so the
// messages are put together here.
//
// Over IPv4 packets have no UDP checksum, as RFC 7348, section 5, has it: NAT on the way would get it wrong where the inner
// checksum is left to an interface (inet_proto_csum_replace4 takes the outer one for a partial one). IPv6 has to have one.
func (k *Kernel) makeVXLAN(name string, want network.Link) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	request.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(want.MTU))))
	request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, want.MAC[:]))
	data := liveData(want)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(want.VNI))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, want.Port))
	if want.Local.Is4() {
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_CSUM, []byte{0})
	}
	if want.GBP {
		data.AddRtAttr(nl.IFLA_VXLAN_GBP, nil)
	}
	return k.sendVXLAN(request, data)
}

// changeVXLAN sets the attributes that a live device lets change.
func (k *Kernel) changeVXLAN(index int, want network.Link) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	request.AddData(msg)
	return k.sendVXLAN(request, liveData(want))
}

// liveData returns the IFLA_INFO_DATA with what a live device lets change.
func liveData(want network.Link) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IFLA_INFO_DATA, nil)
	local := nl.IFLA_VXLAN_LOCAL
	if want.Local.Is6() {
		local = nl.IFLA_VXLAN_LOCAL6
	}
	data.AddRtAttr(local, want.Local.AsSlice())
	learning := byte(0)
	if want.Learning {
		learning = 1
	}
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{learning})
	return data
}

func (k *Kernel) sendVXLAN(request *nl.NetlinkRequest, data *nl.RtAttr) error {
	request.Sockets = k.raw
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	info.AddChild(data)
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// flushFDB deletes the FDB entries of a device whose IPv6 local address has changed: each caches the route to its remote
// together with the source address (dst_cache in struct vxlan_rdst), and goes on sending from the old one as long as that
// route is valid, which over IPv6 is not bound to its source. They are made anew in the same pass.
func (k *Kernel) flushFDB(name string, index int) error {
	var failed error
	for key, c := range k.tables.FDB.All {
		if c.Present && key.Link == name {
			entry := neighbourEntry{family: unix.AF_BRIDGE, flags: unix.NTF_SELF, index: index, mac: key.MAC}
			k.batch.add(encodeNeighbour(k.batch.buf, unix.RTM_DELNEIGH, entry), func(err error) {
				failed = errors.Join(failed, unlessGone("delete FDB entry", key, err))
			})
		}
	}
	k.batch.send()
	return failed
}
