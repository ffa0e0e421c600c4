package bench

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/subnet"
)

// ownTables are tables that want what selvaged wants over IPv4 without any peer.
func ownTables() *network.Tables {
	t := network.NewTables()
	device := deviceOf(subnet.IPv4)
	link := network.Link{
		Kind: network.KindVXLAN, Settings: network.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("127.0.0.1")}, MTU: 1430,
		MAC: network.MAC{2, 0, 0, 0, 0, 1}, Alias: network.Alias, Up: true,
	}
	// Without any address in its namespace, the kernel takes no gateway for a valid one.
	t.Replace(network.Owner{Age: -1}, network.State{}, network.State{
		Links:     []network.Item[string, network.Link]{{Key: device, Value: link}},
		Addresses: []network.Item[network.AddressKey, network.Address]{{Key: network.AddressKey{Link: device, Prefix: netip.MustParsePrefix("10.6.0.0/32")}}},
	})
	return t
}

// peer is what selvaged wants in the kernel for a lease over IPv4.
func peer(i int) (network.Owner, network.State) {
	device := deviceOf(subnet.IPv4)
	e := absent(i, ipv4(), 0).Endpoints[subnet.IPv4]
	gateway, m := e.Subnet.Addr(), mac(i, 0)
	s := network.State{
		FDB: []network.Item[network.FDBKey, network.FDB]{{Key: network.FDBKey{Link: device, MAC: m}, Value: network.FDB{Remote: e.PublicIP, Permanent: true}}},
		Neighbours: []network.Item[network.NeighbourKey, network.Neighbour]{{Key: network.NeighbourKey{Link: device, IP: gateway},
			Value: network.Neighbour{MAC: m, Permanent: true}}},
	}
	r := s.Via(network.Route{Link: device, Gateway: gateway, OnLink: true, Protocol: network.RouteProtocol, Type: network.Unicast})
	s.Routes = []network.Item[network.RouteKey, network.Route]{{Key: network.RouteKey{Prefix: e.Subnet}, Value: r}}
	return network.Owner{Name: e.Subnet.String()}, s
}

// inKernel calls f in a new namespace, with a reconciler of tables for no lease yet. The device is there.
func inKernel(f func(*network.Reconciler, *kernel.Kernel) error) error {
	ns, err := sandbox.NewNet()
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return ns.Do(func() error {
		t := ownTables()
		k, err := kernel.Open(t)
		if err != nil {
			return err
		}
		defer k.Close()
		if err := k.Read(); err != nil {
			return err
		}
		r := &network.Reconciler{Tables: t}
		if _, err := pass(r); err != nil {
			return err
		}
		if err := f(r, k); err != nil {
			return err
		}
		_, err = k.Link(deviceOf(subnet.IPv4), network.Change[network.Link]{Present: true}) // see node.close
		return err
	})
}

// pass makes a pass, and returns how long it took.
func pass(r *network.Reconciler) (time.Duration, error) {
	began := time.Now()
	result := r.Pass(began)
	took := time.Since(began)
	if len(result.Failures) > 0 {
		return 0, result.Failures[0].Err
	}
	return took, nil
}

// come is how long the kernel takes for the messages of some leases, with nobody else asked. They go again after it.
func come(r *network.Reconciler, from, to int) (time.Duration, error) {
	for i := from; i < to; i++ {
		owner, s := peer(i)
		r.Tables.Replace(owner, network.State{}, s)
	}
	took, err := pass(r)
	if err != nil {
		return 0, err
	}
	for i := from; i < to; i++ {
		owner, s := peer(i)
		r.Tables.Replace(owner, s, network.State{})
	}
	_, err = pass(r)
	return took, err
}

// apart is a namespace for [come], on a thread of its own.
type apart struct {
	ask    chan [2]int
	answer chan time.Duration
	ended  chan error
}

func newApart() *apart {
	a := &apart{ask: make(chan [2]int), answer: make(chan time.Duration), ended: make(chan error, 1)}
	go func() {
		defer close(a.ended)
		a.ended <- inKernel(func(r *network.Reconciler, _ *kernel.Kernel) error {
			for leases := range a.ask {
				took, err := come(r, leases[0], leases[1])
				if err != nil {
					return err
				}
				a.answer <- took
			}
			return nil
		})
	}()
	return a
}

func (a *apart) come(from, to int) (time.Duration, error) {
	select {
	case a.ask <- [2]int{from, to}:
	case err := <-a.ended:
		return 0, err
	}
	select {
	case took := <-a.answer:
		return took, nil
	case err := <-a.ended:
		return 0, err
	}
}

// close ends it. It is called once, and nothing after it.
func (a *apart) close() {
	close(a.ask)
	<-a.ended // what was wrong has been told, or concerns nobody any more
}

// reads reads the kernel, in which all is as it should be.
func reads(_ context.Context, b *bench) error {
	var cpu, allocated, floor []float64
	err := inKernel(func(r *network.Reconciler, k *kernel.Kernel) error {
		for i := range many {
			owner, s := peer(i)
			r.Tables.Replace(owner, network.State{}, s)
		}
		if _, err := pass(r); err != nil {
			return err
		}
		if n := r.Tables.Pending(); n != 0 {
			return fmt.Errorf("%d entries are not in the kernel", n)
		}
		for range 5 * b.Rounds {
			took, err := threadCPU(dumpAlone)
			if err != nil {
				return err
			}
			floor = append(floor, milliseconds(took))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if took, err = threadCPU(k.Read); err != nil {
				return err
			}
			runtime.ReadMemStats(&after)
			if n := r.Tables.Pending(); n != 0 {
				return fmt.Errorf("%d entries differ, of which none was changed", n)
			}
			cpu = append(cpu, milliseconds(took))
			allocated = append(allocated, float64(after.TotalAlloc-before.TotalAlloc)/1e6)
		}
		return nil
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("leases=%d", many)
	b.report.add(Figure{Name: "ReadCPU/" + name, What: name[len("leases="):] + " leases: full read and compare, CPU", Unit: "ms", Samples: cpu, Limit: atMost(100),
		Floor: &Reference{What: "the dumps alone", Value: median(floor), Samples: floor}})
	b.report.add(Figure{Name: "ReadAllocated/" + name, What: name[len("leases="):] + " leases: full read and compare, allocated", Unit: "MB", Samples: allocated, Limit: atMost(2)})
	return nil
}

// threadCPU is the CPU time, user and system, that f takes on the calling thread, which is locked to its goroutine.
func threadCPU(f func() error) (time.Duration, error) {
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		return 0, err
	}
	return time.Duration(after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano()), nil
}

// dumpAlone has the kernel dump what a full read asks it for, and looks at none of it.
func dumpAlone() error {
	for _, what := range []struct {
		request uint16
		header  []byte
	}{
		{unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg)},
		{unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg)},
		{unix.RTM_GETNEIGH, make([]byte, unix.SizeofNdMsg)},
		{unix.RTM_GETNEIGH, append([]byte{unix.AF_BRIDGE}, make([]byte, unix.SizeofNdMsg-1)...)},
		{unix.RTM_GETNEXTHOP, make([]byte, 8)}, // struct nhmsg
		{unix.RTM_GETROUTE, append([]byte{unix.AF_INET}, make([]byte, unix.SizeofRtMsg-1)...)},
		{unix.RTM_GETROUTE, append([]byte{unix.AF_INET6}, make([]byte, unix.SizeofRtMsg-1)...)},
	} {
		r := nl.NewNetlinkRequest(int(what.request), unix.NLM_F_DUMP)
		r.AddRawData(what.header)
		if err := r.ExecuteIter(unix.NETLINK_ROUTE, 0, func([]byte) bool { return true }); err != nil {
			return fmt.Errorf("dump %d: %w", what.request, err)
		}
	}
	return nil
}
