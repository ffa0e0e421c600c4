package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// makeDevice has an overlay device made.
func (h *host) makeDevice(name string) error {
	h.tables.Replace(network.Owner{Name: "overlay"}, network.State{}, network.State{
		Links: []network.Item[string, network.Link]{{Key: name, Value: network.Link{
			Kind: network.KindVXLAN, MTU: 1450, MAC: network.MAC{0x0e, 1}, Alias: network.Alias, Up: true,
			Settings: network.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.1")},
		}}},
	})
	r := (&network.Reconciler{Tables: h.tables}).Pass(time.Now())
	if len(r.Failures) > 0 {
		return r.Failures[0].Err
	}
	return nil
}

// arrived waits until all notifications up to now are in the inbox, and returns them.
func (h *host) arrived() (all []message, err error) {
	h.round++
	last := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("last%d", h.round)}}
	if err := errors.Join(netlink.LinkAdd(last), netlink.LinkDel(last)); err != nil {
		return nil, err
	}
	for {
		all = nil
		complete := false
		h.mu.Lock()
		h.inbox.each(func(m message, _ string) {
			x, ok := decodeLink(m.data)
			complete = complete || m.typ == unix.RTM_DELLINK && ok && x.name == last.Name
			all = append(all, m)
		})
		h.mu.Unlock()
		if complete {
			return all, nil
		}
		select {
		case <-h.woken:
		case <-h.ctx.Done():
			return nil, h.ctx.Err()
		}
	}
}

// TestNewDeviceIsNotReadAgain: of a device that has just been made, nothing can have disappeared while it was down. Of
// one that was up, it can.
func TestNewDeviceIsNotReadAgain(t *testing.T) {
	onHost(t, 10, func(h *host) error {
		const name = "flannel.1"
		if err := h.makeDevice(name); err != nil {
			return err
		}
		if _, err := h.arrived(); err != nil { // all reports: in the middle of them, the device itself is read
			return err
		}
		requests := h.requests
		if err := h.settle(); err != nil {
			return err
		}
		if asked := h.requests - requests; asked > 0 {
			t.Errorf("%d reads after the device was made, want none", asked)
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		requests = h.requests
		if err := netlink.LinkSetDown(link); err != nil {
			return err
		}
		if err := h.settle(); err != nil {
			return err
		}
		if h.requests == requests {
			t.Error("no read after the device went down")
		}
		return nil
	})
}

// TestDeviceInTheMaking: the reports of a device that is being made arrive one by one, and none of them makes the
// device differ from what is desired: it was finished before the first of them.
func TestDeviceInTheMaking(t *testing.T) {
	onHost(t, 10, func(h *host) error {
		const name = "flannel.1"
		if err := h.makeDevice(name); err != nil {
			return err
		}
		all, err := h.arrived()
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.inbox = inbox{}
		h.mu.Unlock()
		reports := 0
		for _, m := range all {
			if x, ok := decodeLink(m.data); ok && x.name == name {
				reports++
			}
			h.enqueue(func() {
				b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(m.data))
				binary.NativeEndian.PutUint32(b, uint32(cap(b)))
				binary.NativeEndian.PutUint16(b[4:], m.typ)
				binary.NativeEndian.PutUint16(b[6:], m.flags)
				h.inbox.add(append(b, m.data...), "")
			})
			if err := h.Observe(); err != nil {
				return err
			}
			if c := h.tables.Links.Get(name); !c.Present || c.Have != c.Want {
				t.Errorf("after report %d of the device it is %+v, present %t, want %+v", reports, c.Have, c.Present, c.Want)
			}
		}
		if reports < 2 {
			t.Errorf("%d reports of the device, want several", reports)
		}
		return nil
	})
}
