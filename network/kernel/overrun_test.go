package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// TestOverrun has more changes made than the socket can hold while nobody receives, and one of ours broken after that,
// so that its notification is lost for sure.
func TestOverrun(t *testing.T) {
	const peers = 3
	defer goleak.VerifyNone(t)
	inNamespace(t, func(ns *sandbox.Net) error {
		n, err := open(wanted(peers, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		ready, woken, goOn, watched := make(chan struct{}), make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)
		go func() {
			watched <- ns.Do(func() error {
				return n.Watch(ctx, func() { close(ready) }, func() {
					select {
					case woken <- struct{}{}:
					default:
					}
					<-goOn // receives nothing as long as this blocks
				})
			})
		}()
		<-ready
		defer func() {
			cancel()
			if err := <-watched; err != nil {
				t.Error(err)
			}
		}()
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		// The socket holds 16 MiB (twice what was asked for), and a message in it takes over 500 bytes of that.
		entry := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT}
		for i := range 50000 {
			entry.HardwareAddr = net.HardwareAddr{0x0a, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
			entry.IP = net.IPv4(192, 0, 2, 9).To4()
			if err := netlink.NeighSet(entry); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		}
		if err := netlink.RouteDel(&netlink.Route{Dst: dst("10.5.2.0/24")}); err != nil {
			return err
		}
		close(goOn)
		deadline := time.After(patient)
		for n.Overruns() == 0 || verify(peers, byID) != nil {
			select {
			case <-woken:
			case <-deadline:
				return fmt.Errorf("%d overruns; not repaired: %w", n.Overruns(), errors.Join(verify(peers, byID)))
			}
			if err := n.Observe(); err != nil {
				return err
			}
			for n.rec.Pass(time.Now()); n.rec.Tables.Pending() > 0; {
				r := n.rec.Pass(time.Now())
				time.Sleep(time.Until(r.Retry))
			}
		}
		return nil
	})
}

// TestBrokenAfterOverrun breaks something after the full read that follows an overrun, while most of what made the
// socket overrun has not been received yet: the kernel puts nothing into such a socket.
func TestBrokenAfterOverrun(t *testing.T) {
	const peers = 3
	defer goleak.VerifyNone(t)
	inNamespace(t, func(ns *sandbox.Net) error {
		n, err := open(wanted(peers, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		ready, woken, goOn, watched := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			watched <- ns.Do(func() error {
				return n.Watch(ctx, func() { close(ready) }, func() {
					select {
					case woken <- struct{}{}: // one more is received when the other side has taken this
					case <-ctx.Done():
					}
					select {
					case <-goOn:
					case <-ctx.Done():
					}
				})
			})
		}()
		<-ready
		defer func() {
			cancel()
			if err := <-watched; err != nil {
				t.Error(err)
			}
		}()
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		entry := &netlink.Neigh{LinkIndex: lo.Attrs().Index, Family: unix.AF_INET, State: unix.NUD_PERMANENT,
			HardwareAddr: net.HardwareAddr{0x0a, 0, 0, 0, 0, 1}, IP: net.IPv4(192, 0, 2, 9).To4()}
		for i := range 50000 {
			entry.HardwareAddr[5] = byte(i)
			if err := netlink.NeighSet(entry); err != nil {
				return err
			}
		}
		repair := func() error {
			if err := n.Observe(); err != nil {
				return err
			}
			n.rec.Pass(time.Now())
			return nil
		}
		for <-woken; n.Overruns() == 0; <-woken {
			goOn <- struct{}{}
		}
		if err := repair(); err != nil {
			return err
		}
		if err := netlink.RouteDel(&netlink.Route{Dst: dst("10.5.2.0/24")}); err != nil {
			return err
		}
		deadline := time.After(patient)
		for verify(peers, byID) != nil {
			select {
			case goOn <- struct{}{}:
			case <-woken:
			case <-deadline:
				return fmt.Errorf("not repaired: %w", verify(peers, byID))
			}
			if err := repair(); err != nil {
				return err
			}
		}
		return nil
	})
}
