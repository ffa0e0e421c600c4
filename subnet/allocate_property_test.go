package subnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// smallRange returns fields of a config that give the family up to 64 subnets.
func smallRange(rnd *rand.Rand, f Family) string {
	name, network, bits, longest := "", "10.5.0.0", 16, 30
	if f == IPv6 {
		name, network, bits, longest = "IPv6", "fd00:5::", 48, 126
	}
	bits += rnd.IntN(limitsOf(f).maxNetwork - bits + 1)
	r := Range{Network: netip.PrefixFrom(ip(network), bits), SubnetLen: min(bits+minSplit+rnd.IntN(5), longest)}
	a, b := randomSubnet(rnd, r), randomSubnet(rnd, r)
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	return fmt.Sprintf(`"Enable%s":true,"%sNetwork":%q,"%sSubnetLen":%d,"%sSubnetMin":%q,"%sSubnetMax":%q`,
		f, name, r.Network, name, r.SubnetLen, name, a, name, b)
}

// someLeases returns records that fill a random part of the ranges, of the right length and of others, good and bad.
func someLeases(rnd *rand.Rand, ranges [2]Range) []Record {
	subnets := func(f Family) (list []netip.Prefix) {
		r := ranges[f]
		if !r.Enabled() {
			return nil
		}
		density := rnd.IntN(5)
		for i := range r.Count() {
			if rnd.IntN(4) < density {
				list = append(list, r.At(i))
			}
		}
		for range rnd.IntN(4) {
			length := r.Network.Bits() + rnd.IntN(f.Bits()-r.Network.Bits()+1)
			list = append(list, netip.PrefixFrom(randomAddr(rnd, r.Network.String()), length).Masked())
		}
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return list
	}
	var records []Record
	four, six := subnets(IPv4), subnets(IPv6)
	for i := range max(len(four), len(six)) {
		var key [2]netip.Prefix
		if i < len(four) && (i >= len(six) || rnd.IntN(3) > 0) {
			key[IPv4] = four[i]
		}
		if i < len(six) && (i >= len(four) || rnd.IntN(3) > 0) {
			key[IPv6] = six[i]
		}
		instance := "other"
		if rnd.IntN(10) == 0 {
			instance = "me"
		}
		r := record(FormatKey(key[:]...), 1+rnd.Int64N(20), instance, "172.31.0.2", "fd00:31::2")
		if rnd.IntN(10) == 0 {
			r = withValue(r, []byte("?"))
		}
		records = append(records, r)
	}
	return records
}

// TestAllocateProperties checks many answers: what is given out fits, overlaps nothing that is taken, and ErrFull comes
// exactly when nothing is free.
func TestAllocateProperties(t *testing.T) {
	rnd := newRand(t)
	full := 0
	for range 3000 {
		fields := []string{smallRange(rnd, IPv4) + "," + smallRange(rnd, IPv6), smallRange(rnd, IPv4),
			`"EnableIPv4":false,` + smallRange(rnd, IPv6)}[rnd.IntN(3)]
		c := mustConfig(t, "{"+fields+"}")
		records := someLeases(rnd, c.Ranges)
		var underlay []netip.Prefix
		req := Request{InstanceID: "me", Rand: rnd.Uint64N}
		for _, f := range Families() {
			if r := c.Ranges[f]; r.Enabled() && rnd.IntN(2) == 0 { // something wider, or as wide, or within
				length := min(r.SubnetLen-2+rnd.IntN(5), f.Bits())
				underlay = append(underlay, netip.PrefixFrom(randomAddr(rnd, r.Network.String()), length))
			}
			if r := c.Ranges[f]; r.Enabled() && rnd.IntN(2) == 0 {
				req.Previous[f] = netip.PrefixFrom(randomSubnet(rnd, r), r.SubnetLen)
			}
			if r := c.Ranges[f]; r.Enabled() && rnd.IntN(2) == 0 {
				req.Avoid = append(req.Avoid, netip.PrefixFrom(randomSubnet(rnd, r), r.SubnetLen-rnd.IntN(2)).Masked())
			}
		}
		v := newView(t, Rules{Config: c, InstanceID: "me", Underlay: underlay}, records...)
		a, err := v.Allocate(req)
		if err != nil && !errors.Is(err, ErrFull) {
			t.Fatalf("%s: %v", fields, err)
		}
		if err != nil {
			full++
		}
		if problem := judgeAllocation(v, records, req, a, err); problem != "" {
			t.Fatalf("%s\nrecords %v\nrequest %+v\nanswer %+v: %v\n%s", fields, records, req, a, err, problem)
		}
	}
	if full == 0 || full == 3000 {
		t.Errorf("%d of 3000 were full: the test tests nothing", full)
	}
}

// judgeAllocation says what is wrong with an answer, or nothing.
func judgeAllocation(v *View, records []Record, req Request, a Allocation, err error) string {
	var own *entry
	for _, e := range v.entries {
		if v.bad[e] == nil && e.InstanceID == "me" && (own == nil || own.newer(e)) {
			own = e
		}
	}
	if own != nil && err == nil && (a.Have == nil || a.Have.Name != own.Name) {
		return "the own record is " + own.Name
	}
	full := false
	for f, r := range v.rules.Config.Ranges {
		p, previous := a.Subnets[f], req.Previous[f]
		if !r.Enabled() {
			if p.IsValid() {
				return "a subnet in a family that is off"
			}
			continue
		}
		var held []netip.Prefix // what may not be in a subnet as a whole
		for _, u := range v.rules.Underlay {
			if u.Bits() >= r.SubnetLen {
				held = append(held, u.Masked())
			}
		}
		if own != nil && r.Fits(own.Endpoints[f].Subnet) && v.beatenBy(own) == nil &&
			!slices.ContainsFunc(held, own.Endpoints[f].Subnet.Overlaps) {
			if err == nil && p != own.Endpoints[f].Subnet {
				return "the own subnet is not kept"
			}
			continue
		}
		var taken []netip.Prefix
		for _, rec := range records {
			subnets, err := parseKey(rec.Name)
			if err == nil && (own == nil || rec.Name != own.Name) && r.CheckPeer(subnets[f]) == nil {
				taken = append(taken, subnets[f])
			}
		}
		taken = slices.Concat(taken, req.Avoid, held)
		free := 0
		for i := range r.Count() {
			if !slices.ContainsFunc(taken, r.At(i).Overlaps) {
				free++
			}
		}
		full = full || free == 0
		switch {
		case err != nil:
		case !r.Fits(p):
			return "does not fit"
		case slices.ContainsFunc(taken, p.Overlaps):
			return "is taken"
		case r.Fits(previous) && !slices.ContainsFunc(taken, previous.Overlaps) && p != previous:
			return "the previous subnet was free"
		}
	}
	if full != (err != nil) {
		return fmt.Sprintf("full is %t", full)
	}
	return ""
}

// TestAllocateFillsUp lets nodes come one by one until nothing is left, and lets one go again and another come.
func TestAllocateFillsUp(t *testing.T) {
	rnd := newRand(t)
	c := mustConfig(t, `{"Network":"10.5.0.0/22","SubnetLen":30,"SubnetMin":"10.5.0.40",
		"EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`)
	v := newView(t, Rules{Config: c, InstanceID: "nobody"})
	revision := int64(1000)
	come := func() (string, error) {
		revision++
		id := fmt.Sprint(revision)
		a, err := v.Allocate(Request{InstanceID: id, Rand: rnd.Uint64N})
		if err != nil {
			return "", err
		}
		public := fmt.Sprintf("172.31.%d.%d", revision>>8&255, revision&255)
		r := record(FormatKey(a.Subnets[:]...), revision, id, public, "fd00:31::2")
		changes := v.Apply(Event{Type: Changed, Revision: revision, Put: []Record{r}})
		wantChanges(t, "a node comes", changes, "+"+r.Name)
		// The index of the first range is in the second if it is below 1<<8; all are.
		i, _ := c.Ranges[IPv4].absolute(a.Subnets[IPv4])
		if p, ok := c.Ranges[IPv6].atAbsolute(i); !ok || p != a.Subnets[IPv6] {
			t.Errorf("%s: want %s beside the IPv4 one", r.Name, p)
		}
		return r.Name, nil
	}
	var keys []string
	for range c.Ranges[IPv4].Count() {
		key, err := come()
		if err != nil {
			t.Fatalf("after %d nodes: %v", len(keys), err)
		}
		keys = append(keys, key)
	}
	for range 100 {
		if _, err := come(); !errors.Is(err, ErrFull) {
			t.Fatalf("one node too many: %v", err)
		}
		i := rnd.IntN(len(keys))
		revision++
		v.Apply(Event{Type: Changed, Revision: revision, Deleted: []string{keys[i]}})
		if key, err := come(); err != nil || key != keys[i] {
			t.Fatalf("got %s (%v), want the last that is free, %s", key, err, keys[i])
		}
	}
}
