package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/subnet"
)

// integrityCase is one way in which data goes between two pods with the fast path.
type integrityCase struct {
	family      subnet.Family
	wire        bool // see pathCase
	service     bool // by a Service's address
	noOffloads  bool // the pods compute checksums and cut segments themselves
	description string
}

func integrityCases() (all []integrityCase) {
	for _, f := range subnet.Families() {
		for _, wire := range []bool{false, true} {
			for _, service := range []bool{false, true} {
				for _, noOffloads := range []bool{false, true} {
					if f == subnet.IPv6 && service {
						continue // the rules are those of iptables for IPv4
					}
					c := integrityCase{family: f, wire: wire, service: service, noOffloads: noOffloads}
					c.description = fmt.Sprintf("%s, underlay %s", f, pathCase{wire: wire}.underlay())
					if service {
						c.description += ", Service"
					}
					if noOffloads {
						c.description += ", without offloads"
					}
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// integrity sends data between pods of nodes with the fast path, by TCP and UDP, both ways at once, and compares every
// byte that arrives. Conntrack must take no packet for invalid meanwhile.
func integrity(ctx context.Context, b *bench) error {
	cases := integrityCases()
	for _, c := range cases {
		if err := b.integrityOf(ctx, c, uint64(b.Integrity*1e9)/uint64(len(cases))); err != nil {
			return fmt.Errorf("%s: %w", c.description, err)
		}
	}
	return nil
}

func (b *bench) integrityOf(ctx context.Context, c integrityCase, size uint64) (err error) {
	lc := pathCase{family: c.family, wire: c.wire, fast: true,
		filter: lab.Filter{IPTables: "nft", NFTables: lab.NFTablesOn}}
	if c.service {
		lc.services = 2
	}
	p, err := b.dataPath(ctx, lc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	w := p.fast
	if c.service {
		w.via, w.port = servicePort(1), servedPort
	}
	if c.noOffloads {
		for _, e := range []end{w.from, w.to} {
			if err := e.do(func() error { return setFeatures(uplink, withoutOffloads()) }); err != nil {
				return err
			}
		}
	}
	before, err := invalid(p.lab.Nodes()[2:])
	if err != nil {
		return err
	}
	began := time.Now()
	x := newExchange(b.Seed, size)
	if err := x.run(ctx, w); err != nil {
		return err
	}
	after, err := invalid(p.lab.Nodes()[2:])
	if err != nil {
		return err
	}
	none := 0.0
	name := strings.NewReplacer(",", "", " ", "-").Replace(c.description)
	b.report.add(Figure{Name: "Invalid/case=" + name,
		What: c.description + ": taken for invalid by conntrack", Unit: "packets",
		Value: float64(after - before), Limit: &none})
	text := fmt.Sprintf("%s: %.2f GB in %s, every byte as it was sent; %d datagrams there and back, %d lost",
		c.description, float64(x.received.Load())/1e9, time.Since(began).Round(time.Second), x.datagrams.Load(),
		x.lost.Load())
	b.step("  %s", text)
	b.report.note("%s.", text)
	return b.fastCounters(ctx, pathCase{what: c.description}, p)
}

func withoutOffloads() map[string]bool {
	return map[string]bool{
		"tx-checksum-ip-generic": false, "tx-tcp-segmentation": false, "tx-tcp6-segmentation": false,
		"tx-generic-segmentation": false, "tx-udp-segmentation": false,
	}
}

// invalid adds up the packets that conntrack has taken for invalid on nodes.
func invalid(nodes []*lab.Node) (total uint64, err error) {
	for _, n := range nodes {
		err = errors.Join(err, n.Do(func() error {
			data, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
			total += doctor.InvalidPackets(string(data))
			return err
		}))
	}
	return total, err
}
