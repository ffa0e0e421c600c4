package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network"
)

// apply makes a setting on both nodes, or undoes it.
func (p *dataPath) apply(ctx context.Context, c pathCase, s setting, on bool) error {
	device := deviceOf(c.family)
	if !s.live() {
		return p.remake(ctx, c, s, on)
	}
	set := s.off
	if on {
		set = s.on
	}
	for _, n := range p.lab.Nodes() {
		if err := n.Do(func() error { return set(device) }); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
	}
	return nil
}

// remake has the daemons start on another device: one that was made with the setting, which they take over, or none at all.
func (p *dataPath) remake(ctx context.Context, c pathCase, s setting, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, n := range p.lab.Nodes() {
		if err := n.Stop(ctx); err != nil {
			return err
		}
		if err := n.Do(func() error { return replaceDevice(deviceOf(c.family), s, on) }); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
	}
	if s.backend != "" {
		changed := c
		if on {
			changed.backend = s.backend
		}
		if err := p.lab.Etcd().PutConfig(ctx, changed.config()); err != nil {
			return err
		}
	}
	for _, n := range p.lab.Nodes() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	if err := p.lab.WaitReady(ctx); err != nil {
		return err
	}
	for _, n := range p.lab.Nodes() {
		if err := shows(ctx, n, deviceOf(c.family), s.shows, on); err != nil {
			return err
		}
	}
	return nil
}

// replaceDevice deletes the overlay's device, and if on is asked for and it is made by hand, makes another that is the same but
// for the setting.
func replaceDevice(name string, s setting, on bool) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	old, ok := link.(*netlink.Vxlan)
	if !ok {
		return fmt.Errorf("%s is a %s", name, link.Type())
	}
	if err := netlink.LinkDel(link); err != nil {
		return err
	}
	if !on || s.backend != "" {
		return nil
	}
	checksum := " noudpcsum"
	if s.ipv6 || strings.Contains(s.kind, "udpcsum") {
		checksum = ""
	}
	add := fmt.Sprintf("ip link add %s address %s mtu %d %s type vxlan id %d dstport %d local %s nolearning%s %s",
		name, old.HardwareAddr, old.MTU, s.link, old.VxlanId, old.Port, old.SrcAddr, checksum, s.kind)
	return errors.Join(runHere(strings.Fields(add)...), runHere("ip", "link", "set", name, "alias", network.Alias))
}

// shows checks that a device is as it was made: the daemon could have made another.
func shows(ctx context.Context, n *lab.Node, device, want string, on bool) error {
	out, err := n.Output(ctx, "ip", "-details", "link", "show", device)
	if err != nil {
		return err
	}
	if strings.Contains(string(out), want) != on {
		return fmt.Errorf("%s: %q is to be there: %t; ip says: %s", n.Name(), want, on, out)
	}
	return nil
}

// runHere runs a program in the calling thread's namespaces.
func runHere(argv ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
