package kernel

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/nft"
)

// FastPath sets the fast path that changes are applied to; nil: there is none, and changes have no effect.
// [Kernel.ReadFastPath] and [Kernel.ReadFastPeers] read what it has already.
func (k *Kernel) FastPath(p *fastpath.Path) {
	k.fast = p
	k.tables.FastPathGone()
}

// FastPeers sets and removes peers of the fast path.
func (k *Kernel) FastPeers(batch []network.Update[netip.Prefix, network.FastPeer]) {
	for i := range batch {
		switch u := &batch[i]; {
		case k.fast == nil:
		case u.Change.Wanted:
			want := u.Change.Want
			u.Err = k.fast.SetPeer(u.Key, fastpath.Peer{Address: want.Address, MAC: want.MAC, Direct: want.Direct})
		default:
			u.Err = k.fast.DeletePeer(u.Key)
		}
	}
}

// Program attaches a program of the fast path to a device, or detaches it.
func (k *Kernel) Program(key network.ProgramKey, c network.Change[network.Program]) error {
	if k.fast == nil {
		return nil
	}
	index, err := k.index(key.Link)
	if err != nil {
		if !c.Wanted {
			return nil // it vanished with the device
		}
		return err
	}
	a := fastpath.Attachment{Interface: index, Program: fastpath.Program(key.Program)}
	if c.Wanted {
		return k.fast.Attach(a)
	}
	return k.fast.Detach(a)
}

// ReadFastPeers reads which peers the fast path knows. The kernel does not notify of them.
func (k *Kernel) ReadFastPeers() error {
	if k.fast == nil {
		return nil
	}
	t := k.tables.FastPeers
	t.Mark()
	err := k.fast.EachPeer(func(subnet netip.Prefix, p fastpath.Peer) {
		t.Observe(subnet, network.FastPeer{Address: p.Address, MAC: p.MAC, Direct: p.Direct})
	})
	if err == nil {
		t.Sweep(func(netip.Prefix) bool { return true })
	}
	return err
}

// ReadFastPath reads where the fast path's programs are attached. The kernel does not notify of that.
func (k *Kernel) ReadFastPath() error {
	if k.fast == nil {
		return nil
	}
	programs, err := k.fast.Attachments()
	if err != nil {
		return err
	}
	t := k.tables
	current := map[fastpath.Program]fastpath.State{}
	for a, s := range k.fast.Want(map[int]fastpath.Role{
		1: fastpath.Port, 2: fastpath.Uplink, 3: fastpath.Device, // any index: the state is the same for all
	}) {
		current[a.Program] = s
	}
	t.Programs.Mark()
	for a, s := range programs {
		if name, known := k.links[int32(a.Interface)]; known {
			want := current[a.Program]
			t.Programs.Observe(network.ProgramKey{Link: name, Program: string(a.Program)}, network.Program{
				Current: s.Program == want.Program, Pinned: s.Pinned == want.Pinned, Last: s.Last,
			})
		}
	}
	t.Programs.Sweep(func(network.ProgramKey) bool { return true })
	return nil
}

// FollowPorts makes [Kernel.QueuesStale] report changes, and [Kernel.Concerned]. It is to be called before
// [Kernel.Watch].
func (k *Kernel) FollowPorts() { k.followPorts = true }

// QueuesStale reports, once, whether a queueing discipline or filter of tc has changed on any device since the last
// call. The answer to [Kernel.VethsOn] may have changed, too.
func (k *Kernel) QueuesStale() bool {
	stale := k.queuesStale
	k.portsStale, k.queuesStale = false, false
	return stale
}

// Index returns the interface index of the device of that name; 0: there is none.
func (k *Kernel) Index(name string) int { return int(k.byName[name]) }

// Obstacle is what fast packets would pass by on a device, although they are not to.
type Obstacle string

// The obstacles.
const (
	QueueObstacle   Obstacle = "queue"   // traffic is shaped, or tc filters of another program look at it
	ProgramObstacle Obstacle = "program" // of another process, at a hook where fast packets never come
	ChainObstacle   Obstacle = "chain"   // of nf_tables, on the device itself
)

// Obstacles returns the devices on which the fast path's programs must not be attached. roles says what each device is
// to the fast path.
func (k *Kernel) Obstacles(roles map[string]fastpath.Role) (map[string]Obstacle, error) {
	found := map[string]Obstacle{}
	if err := k.chainObstacles(roles, found); err != nil {
		return nil, err
	}
	if err := k.queueObstacles(roles, found); err != nil {
		return nil, err
	}
	for name, role := range roles {
		index, there := k.byName[name]
		if !there || k.fast == nil {
			continue
		}
		by, err := k.fast.PassesBy(int(index), role)
		if err != nil {
			return nil, err
		}
		if by {
			found[name] = ProgramObstacle
		}
	}
	return found, nil
}

// chainObstacles finds chains of single devices (ingress and egress hooks). Those of the uplink see fast packets
// neither way: they come after the programs at ingress, and are left out for what a program redirects
// (nf_skip_egress in net/core/dev.c).
func (k *Kernel) chainObstacles(roles map[string]fastpath.Role, found map[string]Obstacle) error {
	c, err := nft.Dial()
	if err != nil {
		return nil // there is no nf_tables, or this process may not see it: nothing is known of chains
	}
	defer c.Close()
	chains, err := c.DeviceChains()
	if err != nil {
		return err
	}
	for _, chain := range chains {
		for _, name := range strings.Fields(chain.Devices) {
			for device := range roles {
				prefix, wild := strings.CutSuffix(name, "*") // Linux 6.16
				if name == device || wild && strings.HasPrefix(device, prefix) {
					found[device] = ChainObstacle
				}
			}
		}
	}
	return nil
}

// queueObstacles finds queueing disciplines and filters of tc. What leaves by the uplink passes all of it also if it is
// fast.
func (k *Kernel) queueObstacles(roles map[string]fastpath.Role, found map[string]Obstacle) error {
	all, err := k.handle.QdiscList(nil)
	if err != nil {
		return fmt.Errorf("list the queueing disciplines: %w", err)
	}
	for _, q := range all {
		name := k.links[int32(q.Attrs().LinkIndex)]
		role, is := roles[name]
		if !is {
			continue
		}
		switch q.Type() {
		case "clsact", "ingress":
			filtered, err := k.filtered(q.Attrs().LinkIndex, q.Type() == "clsact" && role != fastpath.Uplink)
			if err != nil {
				return err
			}
			if filtered {
				found[name] = QueueObstacle
			}
		case "noqueue":
		default:
			if role != fastpath.Uplink {
				found[name] = QueueObstacle
			}
		}
	}
	return nil
}

// filtered reports whether there are tc filters at a device's ingress hook, or at its egress hook.
func (k *Kernel) filtered(index int, egress bool) (bool, error) {
	parents := []uint32{netlink.HANDLE_MIN_INGRESS}
	if egress {
		parents = append(parents, netlink.HANDLE_MIN_EGRESS)
	}
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	for _, parent := range parents {
		filters, err := k.handle.FilterList(link, parent)
		if err != nil {
			return false, fmt.Errorf("list the tc filters of %s: %w", k.links[int32(index)], err)
		}
		if len(filters) > 0 {
			return true, nil
		}
	}
	return false, nil
}
