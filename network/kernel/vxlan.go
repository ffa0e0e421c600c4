package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// vxlan is the [deviceKind] of VXLAN devices. The library cannot say that there are to be no UDP checksums, and refuses
// to change VXLAN devices, so the messages are put together here.
type vxlan struct{}

// create implements [deviceKind]. The device has no lower device: one made with it is deleted together with it, and the
// route decides as well.
//
// Over IPv4 packets have no UDP checksum, as RFC 7348, section 5, has it: NAT on the way would get it wrong where the
// inner checksum is left to an interface (inet_proto_csum_replace4 takes the outer one for a partial one). IPv6 has to
// have one.
func (vxlan) create(k *Kernel, name string, want network.Link) error {
	settings, err := vxlanSettings(want.Settings)
	if err != nil {
		return err
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	request.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(want.MTU))))
	request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, want.MAC[:]))
	data := liveData(settings)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(settings.VNI))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, settings.Port))
	if settings.Local.Is4() {
		data.AddRtAttr(nl.IFLA_VXLAN_UDP_CSUM, []byte{0})
	}
	if settings.GBP {
		data.AddRtAttr(nl.IFLA_VXLAN_GBP, nil)
	}
	return k.sendVXLAN(request, data)
}

// change implements [deviceKind].
func (vxlan) change(k *Kernel, name string, index int, have, want network.LinkSettings) (flushed bool, err error) {
	settings, err := vxlanSettings(want)
	if err != nil {
		return false, err
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	request.AddData(msg)
	if err := k.sendVXLAN(request, liveData(settings)); err != nil {
		return false, err
	}
	if before, _ := have.(network.VXLAN); !settings.Local.Is6() || before.Local == settings.Local {
		return false, nil
	}
	return true, k.flushFDB(name, index)
}

// decode implements [deviceKind].
func (vxlan) decode(b []byte) network.LinkSettings {
	var v network.VXLAN
	for typ, data := range attributes(b) {
		switch typ {
		case nl.IFLA_VXLAN_ID:
			v.VNI = attrUint32(data)
		case nl.IFLA_VXLAN_PORT:
			if len(data) >= 2 {
				v.Port = binary.BigEndian.Uint16(data)
			}
		case nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_LOCAL6:
			v.Local = attrAddr(data)
		case nl.IFLA_VXLAN_LEARNING:
			v.Learning = len(data) > 0 && data[0] != 0
		case nl.IFLA_VXLAN_GBP:
			v.GBP = true
		}
	}
	return v
}

// excludes implements [deviceKind]: there is one device with a VNI and port in each family (vxlan_configure in
// drivers/net/vxlan/vxlan_core.c). One with neither an IPv6 local address nor an IPv6 group runs over IPv4.
func (x vxlan) excludes(b []byte, want network.LinkSettings) bool {
	settings, err := vxlanSettings(want)
	have, _ := x.decode(b).(network.VXLAN)
	inet6 := false
	for typ := range attributes(b) {
		inet6 = inet6 || typ == nl.IFLA_VXLAN_LOCAL6 || typ == nl.IFLA_VXLAN_GROUP6
	}
	return err == nil && have.VNI == settings.VNI && have.Port == settings.Port && inet6 == settings.Local.Is6()
}

// vxlanSettings are the settings of a device that is to be a VXLAN device.
func vxlanSettings(s network.LinkSettings) (network.VXLAN, error) {
	v, ok := s.(network.VXLAN)
	if !ok {
		return v, fmt.Errorf("a VXLAN device cannot have settings of type %T", s)
	}
	return v, nil
}

// liveData returns the IFLA_INFO_DATA of the settings that can be changed on a live device.
func liveData(want network.VXLAN) *nl.RtAttr {
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
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(network.KindVXLAN))
	info.AddChild(data)
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// flushFDB deletes the FDB entries of a device whose IPv6 local address has changed: each caches the route to its
// remote together with the source address (dst_cache in struct vxlan_rdst), and goes on sending from the old one as
// long as that route is valid, which over IPv6 is not bound to its source. The same pass adds them again.
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
