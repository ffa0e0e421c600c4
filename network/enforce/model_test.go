package enforce

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/policytest"
	"github.com/selvage-net/selvage/subnet"
)

// inLab are clusters whose pods of this node are at the ports of the lab's bridge. A pod can be at any port but the
// last, so that there is an address on the bridge that is no pod's.
func inLab() policytest.Options {
	return policytest.Options{
		Address: func(r policytest.Random, f subnet.Family) netip.Addr {
			if r.Chance(65) {
				return podAddress(r.IntN(ports), f == subnet.IPv6)
			}
			return elsewhere(r, f)
		},
		Pod: func(r policytest.Random, p *policy.Pod) {
			i := r.IntN(2*ports - 2)
			p.UID, p.Name, p.Node = fmt.Sprint("uid", i), fmt.Sprint("pod", i), "n2"
			if i < ports-1 {
				p.Node = thisNode
			}
			for _, f := range subnet.Families() {
				switch {
				case r.Chance(10):
					p.Addresses[f] = netip.Addr{}
				case p.Node == thisNode:
					p.Addresses[f] = podAddress(i, f == subnet.IPv6)
				default:
					p.Addresses[f] = elsewhere(r, f)
				}
			}
		},
	}
}

// elsewhere returns an address behind the uplink, which may be that of a pod of another node.
func elsewhere(r policytest.Random, f subnet.Family) netip.Addr {
	n := byte(1 + r.IntN(6))
	if f == subnet.IPv6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 3: byte(1 + r.IntN(2)), 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 0, byte(1 + r.IntN(2)), n})
}

// firstPacket returns the first packet of a connection, of which one end at least is on this node.
func firstPacket(r policytest.Random) (p policy.Packet) {
	f := policytest.Pick(r, subnet.IPv4, subnet.IPv6)
	p.Source, p.Destination = podAddress(r.IntN(ports), f == subnet.IPv6), r.Address(f)
	if r.Chance(40) {
		p.Source, p.Destination = p.Destination, p.Source
	}
	r.Content(&p)
	if p.Protocol == policy.TCP && r.Chance(5) {
		p.State = policy.Invalid
	}
	return p
}

// fromEnvironment returns a number of the environment, or another one.
func fromEnvironment(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// TestModel drives an engine through 1,000 random clusters, and compares what packets do in the kernel with what the
// evaluator says. POLICY_CLUSTERS is another number of clusters.
func TestModel(t *testing.T) {
	const enough = 1000
	clusters := fromEnvironment("POLICY_CLUSTERS", enough)
	r := policytest.New(policytest.Seed(t), inLab())
	l := newLab(t)
	e, _ := start(t, Options{})
	var attachments []Attachment
	for i := range ports - 1 {
		attachments = append(attachments, Attachment{
			UID: "of no pod", ContainerID: fmt.Sprint(i), Interface: portName(i),
			Addresses: [2]netip.Addr{podAddress(i, false), podAddress(i, true)},
		})
	}
	e.SetAttachments(attachments)
	c, tally, packets := policytest.NewCluster(), policytest.Tally{}, 0
	for n := range clusters {
		apply(t, e, func(to policy.Objects) {
			for range policytest.Pick(r, 1, 3, 10, 50) { // 50 leave little of the cluster before
				r.Step(c)(to)
			}
		})
		list := make([]probe, 40)
		for i := range list {
			list[i].Packet = firstPacket(r)
		}
		for i, arrived := range l.send(list) {
			p := list[i].Packet
			v := policy.Judge(c, thisNode, p)
			if arrived != (v[policy.Ingress].Allowed && v[policy.Egress].Allowed) {
				t.Errorf("cluster %d: %+v: it arrived: %t; the evaluator: egress %+v, ingress %+v", n, p, arrived,
					v[policy.Egress], v[policy.Ingress])
			}
			tally.Add(c, p, v)
		}
		if t.Failed() {
			return
		}
		packets += len(list)
		l.forget()
	}
	t.Logf("%d clusters, %d packets: %s; %+v", clusters, packets, tally, e.Status())
	if missing := tally.Missing(); clusters >= enough && len(missing) > 0 {
		t.Errorf("no packet was about %q", missing)
	}
}
