package policytest

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// Options say what the objects of a [Random] are like.
type Options struct {
	// Address returns an address of a family, for pods and blocks; nil: one of 20.
	Address func(Random, subnet.Family) netip.Addr
	// Pod changes a random pod before it is used; nil: it stays as it is.
	Pod func(Random, *policy.Pod)
	// API leaves out what the objects of the API cannot say, or the API server rejects: rules that match nothing,
	// policies that isolate in no direction, and in cluster policies rules without peers and networks in ingress.
	API bool
}

// Random makes random objects. There are so few labels, names, addresses and ports that they meet often.
type Random struct {
	*rand.Rand
	Options
}

// Seed returns the number in the environment variable POLICY_SEED, or a random one. It is logged, so that a failed test
// can be repeated.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("POLICY_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("repeat with POLICY_SEED=%d", seed)
	return seed
}

// New returns a source of objects, which are the same for the same seed.
func New(seed uint64, o Options) Random { return Random{rand.New(rand.NewPCG(seed, 1)), o} }

// Chance is true in that percentage of calls.
func (r Random) Chance(percent int) bool { return r.IntN(100) < percent }

// Pick returns one of a list.
func Pick[T any](r Random, of ...T) T { return of[r.IntN(len(of))] }

// Labels returns some of three labels, with two values each.
func (r Random) Labels() policy.Labels {
	m := map[string]string{}
	for _, key := range []string{"app", "tier", "new"} {
		if r.Chance(60) {
			m[key] = Pick(r, "a", "b")
		}
	}
	return policy.MakeLabels(m)
}

// Selector returns a selector of these labels.
func (r Random) Selector() policy.Selector {
	var list []policy.Requirement
	for range Pick(r, 0, 1, 1, 1, 2, 3) {
		q := policy.Requirement{Key: Pick(r, "app", "tier", "new"),
			Operator: Pick(r, policy.In, policy.In, policy.In, policy.NotIn, policy.Exists, policy.DoesNotExist)}
		if q.Operator == policy.In || q.Operator == policy.NotIn {
			q.Values = Pick(r, []string{"a"}, []string{"b"}, []string{"a", "b"}, []string{"a", "c"})
		}
		list = append(list, q)
	}
	return policy.MakeSelector(list...)
}

// Address returns an address of a family.
func (r Random) Address(f subnet.Family) netip.Addr {
	if r.Options.Address != nil {
		return r.Options.Address(r, f)
	}
	n := byte(r.IntN(20))
	if f == subnet.IPv6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, n})
}

// Block returns a block of addresses, from one address to all of the family.
func (r Random) Block(f subnet.Family) netip.Prefix {
	a := r.Address(f)
	p, _ := a.Prefix(a.BitLen() - Pick(r, 0, 1, 2, 3, 4, 5, 8, 16, a.BitLen()))
	return p
}

// Packet returns the first packet of a connection between two addresses of one family. Of ICMP it is an echo request.
func (r Random) Packet() (p policy.Packet) {
	f := Pick(r, subnet.IPv4, subnet.IPv4, subnet.IPv6)
	p.Source, p.Destination = r.Address(f), r.Address(f)
	if r.Chance(5) {
		p.Destination = p.Source
	}
	r.Content(&p)
	return p
}

// Content sets the protocol of a packet between two addresses, and the destination port or the type of message.
func (r Random) Content(p *policy.Packet) {
	const icmp = 1
	p.Protocol = Pick(r, policy.TCP, policy.TCP, policy.UDP, policy.SCTP, icmp)
	if p.Protocol == icmp && p.Destination.Is6() {
		p.Protocol, p.ICMPType = policy.ICMPv6, 128
	}
	if p.Protocol.HasPorts() {
		p.Port = Pick[uint16](r, 78, 79, 80, 80, 81, 81, 82, 82, 83, 84, 0xffff)
	}
}
