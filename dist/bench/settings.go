package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// setting is something that could be set otherwise than the daemon does. The daemon looks at none of these, so that it does
// not put them right while they are tried.
type setting struct {
	name, what string
	// on and off are called in each node's namespaces, for a setting of a device that lives.
	on, off func(device string) error
	// link and kind are arguments of ip link add, those of any device and VXLAN's own, for what is set when a device is
	// made. backend is the network config's Backend object, for what is set there.
	link, kind, backend string
	// shows is what ip -details then says of the device.
	shows string
	// ipv6: it is for an overlay of IPv6, and else for one of IPv4.
	ipv6 bool
}

// live reports whether the setting is one of a device that there is already.
func (s setting) live() bool { return s.on != nil }

// feature is a setting that ethtool -K makes, of the overlay's device.
func feature(name, what string, on bool, features ...string) setting {
	set := func(on bool) func(string) error {
		return func(device string) error {
			all := map[string]bool{}
			for _, f := range features {
				all[f] = on
			}
			return setFeatures(device, all)
		}
	}
	return setting{name: name, what: what, on: set(on), off: set(!on)}
}

// sysFile is a setting that is made by writing a file of an interface in /sys.
func sysFile(name, what, link, file, on, off string) setting {
	set := func(value string) func(string) error {
		return func(device string) error {
			if link != "" {
				device = link
			}
			return os.WriteFile(filepath.Join("/sys/class/net", device, file), []byte(value), 0o644)
		}
	}
	return setting{name: name, what: what, on: set(on), off: set(off)}
}

// command is a setting that is made by a program's arguments, in which DEV stands for the device.
func command(name, what string, on, off []string) setting {
	run := func(commands []string) func(string) error {
		return func(device string) error {
			for _, c := range commands {
				if err := runHere(strings.Fields(strings.ReplaceAll(c, "DEV", device))...); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return setting{name: name, what: what, on: run(on), off: run(off)}
}

// allSettings are those that can be tried. NAPI in threads is not among them: with it, connections stall under load (Linux
// 6.18), so that there is nothing to measure.
func allSettings() []setting {
	const rps = "queues/rx-0/rps_cpus"
	all := fmt.Sprintf("%x", 1<<min(runtime.NumCPU(), 32)-1)
	track := func(verb string) []string {
		return []string{
			"iptables -w -t raw " + verb + " PREROUTING -p udp --dport 8472 -j NOTRACK",
			"iptables -w -t raw " + verb + " OUTPUT -p udp --dport 8472 -j NOTRACK",
		}
	}
	return []setting{
		feature("gso-off", "no GSO", false, "tx-generic-segmentation"),
		feature("tso-off", "no TSO", false, "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation"),
		feature("gro-off", "no GRO", false, "rx-gro"),
		feature("checksum-off", "checksums by the sender's CPU", false, "tx-checksum-ip-generic"),
		feature("gro-list", "GRO by lists", true, "rx-gro-list"),
		feature("udp-gro", "GRO of UDP that is forwarded", true, "rx-udp-gro-forwarding"),
		{name: "udpcsum", what: "UDP checksum over IPv4", kind: "udpcsum", shows: " udpcsum "},
		{name: "no-udpcsum", what: "no UDP checksum over IPv6", kind: "udp6zerocsumtx udp6zerocsumrx", shows: "udp6zerocsumtx udp6zerocsumrx", ipv6: true},
		{name: "queues", what: "4 queues", link: "numtxqueues 4 numrxqueues 4", shows: "numtxqueues 4 numrxqueues 4"},
		command("txqueuelen", "a queue of 1,000 packets (pfifo_fast)",
			[]string{"ip link set DEV txqueuelen 1000", "tc qdisc replace dev DEV root pfifo_fast"}, []string{"tc qdisc replace dev DEV root noqueue"}),
		{name: "ports", what: "source ports 49152 to 65535", kind: "srcport 49152 65535", shows: "srcport 49152 65535"},
		{name: "df", what: "DF set", kind: "df set", shows: " df set"},
		{name: "gbp", what: "GBP on", backend: `{"Type":"vxlan","GBP":true}`, shows: " gbp"},
		{name: "lower", what: "bound to the uplink (dev)", kind: "dev " + uplink, shows: "dev " + uplink},
		sysFile("rps", "RPS to all CPUs", "", rps, all, "0"),
		sysFile("rps-uplink", "RPS to all CPUs, at the uplink", uplink, rps, all, "0"),
		command("notrack", "no connection tracking of VXLAN packets", track("-A"), track("-D")),
	}
}

// Settings are the names of those that the part "settings" can try.
func Settings() (names []string) {
	for _, s := range allSettings() {
		names = append(names, s.name)
	}
	return names
}

// settingCases are the overlays on which settings are tried, over an underlay that takes large packets and one that does not.
func settingCases() []pathCase {
	filter := lab.Filter{Name: "nftables", NFTables: lab.NFTablesOn} // iptables is there, for the one that uses it
	return []pathCase{
		{what: "whole", filter: filter}, {what: "wire", filter: filter, wire: true},
		{what: "whole", filter: filter, family: subnet.IPv6}, {what: "wire", filter: filter, family: subnet.IPv6, wire: true},
	}
}

// settings are those to be tried on the overlay: the named ones, or all if none is named.
func (c pathCase) settings(names []string) []setting {
	return slices.DeleteFunc(allSettings(), func(s setting) bool {
		return s.ipv6 != (c.family == subnet.IPv6) || len(names) > 0 && !slices.Contains(names, s.name)
	})
}

// settings measures each of them in turns with the default.
func settings(ctx context.Context, b *bench) error {
	for _, c := range settingCases() {
		tried := c.settings(b.Settings)
		if len(tried) == 0 {
			continue
		}
		if err := b.try(ctx, c, tried); err != nil {
			return err
		}
	}
	b.report.note("The ratio is the setting's to the default's. \"whole\" is an underlay that takes up to 64 kB in one piece, \"wire\" one where each packet of the MTU's size goes by itself.")
	return nil
}

func (b *bench) try(ctx context.Context, c pathCase, tried []setting) (err error) {
	p, err := b.dataPath(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	loads := []load{{"tcp", 1}, {"tcp", manyFlows}, {"udp", 1}}
	for _, s := range tried {
		b.step("  %s, %s", s.what, c.what)
		var with, without samples
		for range b.Rounds {
			if err := p.pods.measure(ctx, loads, &without); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if err := p.apply(ctx, c, s, true); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if err := p.pods.measure(ctx, loads, &with); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if err := p.apply(ctx, c, s, false); err != nil {
				return fmt.Errorf("%s: undo: %w", s.name, err)
			}
		}
		for _, m := range with.order {
			own := with.of[m]
			b.report.add(Figure{
				Name: fmt.Sprintf("%s/setting=%s/underlay=%s", m.name, s.name, c.underlay()), What: s.what + ", " + c.what + ": " + m.what, Unit: m.unit,
				Samples: own, Floor: inTurns("default", own, without.of[m]),
			})
		}
	}
	return nil
}
