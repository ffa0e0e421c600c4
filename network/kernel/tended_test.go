package kernel

import (
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// TestTendedForgotten: what was noted of a device is dropped with the device, also if its removal was not observed.
func TestTendedForgotten(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1"}, PeerName: "veth2"}
		if err := errors.Join(netlink.LinkAdd(pair), k.Read()); err != nil {
			return err
		}
		if !k.IsVeth("veth1") || len(k.tended.veths) != 2 {
			t.Errorf("veths %v, want two", k.tended.veths)
		}
		if err := errors.Join(netlink.LinkDel(pair), k.Read()); err != nil {
			return err
		}
		if len(k.tended.veths) != 0 {
			t.Errorf("veths %v after their removal", k.tended.veths)
		}
		k.Tend(map[string]network.PodDevice{"cni0": {MAC: network.MAC{2, 0, 0, 0, 0, 1}}})
		k.Tend(nil)
		if len(k.tended.macs) != 0 {
			t.Errorf("MAC addresses %v, and no pod depends on a bridge", k.tended.macs)
		}
		return nil
	})
}

// TestBridgeNameTaken: a device of another kind that took a bridge's name a moment ago is not changed.
func TestBridgeNameTaken(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}, PeerName: "far0"}); err != nil {
			return err
		}
		want := network.Bridge{Kind: network.KindBridge, MTU: 1400, Up: true}
		_, err := k.Bridge("cni0", network.Change[network.Bridge]{Want: want, Wanted: true})
		if !errors.Is(err, network.ErrForeign) {
			t.Errorf("%v, want ErrForeign", err)
		}
		link, err := netlink.LinkByName("cni0")
		if err == nil && (link.Attrs().MTU != 1500 || link.Attrs().Flags&net.FlagUp != 0) {
			t.Errorf("the device was changed: %+v", link.Attrs())
		}
		return err
	})
}

// TestBridgeSettings: a spanning tree and the filtering of VLANs are turned off; one that is desired stays. Not every
// kernel filters VLANs, so the messages are made here.
func TestBridgeSettings(t *testing.T) {
	settings := func(stp, vlans byte) []byte {
		data := nl.NewRtAttr(nl.IFLA_INFO_DATA, nil)
		data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(uint32(stp)))
		data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, []byte{vlans})
		return data.Serialize()[unix.SizeofRtAttr:]
	}
	for _, x := range []struct{ stp, vlans byte }{{0, 0}, {1, 0}, {2, 0}, {0, 1}} {
		if stp, vlans := decodeBridge(settings(x.stp, x.vlans)); stp != (x.stp != 0) || vlans != (x.vlans != 0) {
			t.Errorf("%+v: %v, %v", x, stp, vlans)
		}
	}
	vlan := func(value ...byte) *nl.RtAttr { return nl.NewRtAttr(nl.IFLA_BR_VLAN_FILTERING, value) }
	other := nl.NewRtAttr(nl.IFLA_BR_VLAN_DEFAULT_PVID, nl.Uint16Attr(1))
	for _, x := range []struct {
		name string
		data []*nl.RtAttr
		want bool
	}{
		{"a kernel that filters no VLANs", []*nl.RtAttr{other}, false},
		{"after another setting", []*nl.RtAttr{other, vlan(1)}, true},
		{"before another setting", []*nl.RtAttr{vlan(1), other}, true},
		{"without a value", []*nl.RtAttr{vlan()}, false},
		{"nothing", nil, false},
	} {
		// The whole message, in which a port's settings have the same numbers.
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = 7
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		for _, a := range x.data {
			data.AddChild(a)
		}
		info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
		info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, []byte{1})
		b := slices.Concat(msg.Serialize(), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("cni0")).Serialize(), info.Serialize())
		if m, ok := decodeLink(b); !ok || m.vlans != x.want || m.stp || m.name != "cni0" {
			t.Errorf("%s: %+v, want %v", x.name, m, x.want)
		}
	}
	want := network.Bridge{Kind: network.KindBridge, Up: true}
	tagged := want
	tagged.VLANFiltering = true
	if b := newBridge("cni0", want, network.MAC{}); b.VlanFiltering != nil {
		t.Error("a new bridge filters VLANs, and no pod asks for it")
	}
	if b := newBridge("cni0", tagged, network.MAC{}); b.VlanFiltering == nil || !*b.VlanFiltering {
		t.Error("a bridge that is made again for pods in VLANs does not filter them: the plugin would not turn it on")
	}
	if want.Seen(tagged) == want || tagged.Seen(want) != tagged {
		t.Error("a bridge that is to filter VLANs may do either, another one not")
	}
	inNet(t, func(k *Kernel) error {
		err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}})
		if err = errors.Join(err, k.Read()); err != nil {
			return err
		}
		have := want
		have.STP = true
		link, err := k.linkNamed("cni0")
		if err = errors.Join(err, k.changeBridge(link, nl.IFLA_BR_STP_STATE, nl.Uint32Attr(1))); err != nil {
			return err
		}
		_, err = k.Bridge("cni0", network.Change[network.Bridge]{Want: want, Have: have, Wanted: true, Present: true})
		if err != nil {
			return err
		}
		return k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, func(_ uint16, data []byte) {
			if m, _ := decodeLink(data); m.name == "cni0" && m.stp {
				t.Error("it still runs a spanning tree")
			}
		}, nl.NewIfInfomsg(unix.AF_UNSPEC))
	})
}
