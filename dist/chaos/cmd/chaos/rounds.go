package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/chaos"
)

// round is a lab with all that is done in it.
type round struct {
	name    string // as --rounds has it
	heading string
	set     func(*chaos.Options) // what its lab is unlike the others
	do      func(context.Context, flags, round, *chaos.Suite, *chaos.Report) error
}

// rounds are all there are, in their order.
func rounds() []round {
	return []round{
		{"vxlan", "Broken", func(o *chaos.Options) { o.Policies = true }, suiteAndWalk},
		{"nftables", "Broken, with nftables", func(o *chaos.Options) { o.NFTables, o.Policies = true, true }, suite},
		{"legacy", "Broken, with the legacy iptables", func(o *chaos.Options) { o.Legacy = true }, suite},
		{"direct", "Broken, with DirectRouting", func(o *chaos.Options) { o.Backend = chaos.Direct }, suite},
		{"host-gw", "Broken, with host-gw", func(o *chaos.Options) { o.Backend = chaos.HostGW }, suite},
		{"wireguard", "Broken, with WireGuard", func(o *chaos.Options) { o.Backend = chaos.WireGuard }, suite},
		{"leases", "With %d leases", func(*chaos.Options) {}, manyLeases},
	}
}

func roundNames() (names []string) {
	for _, r := range rounds() {
		names = append(names, r.name)
	}
	return names
}

// options are those of the round's lab.
func (r round) options(f flags) chaos.Options {
	o := f.options
	if r.set(&o); r.name == "leases" {
		o.Leases = f.leases
	}
	return o
}

// all does all rounds that are asked for. A signal needs no Close: with the sandbox goes all that is in it.
func all(ctx context.Context, f flags, report *chaos.Report) error {
	for _, r := range rounds() {
		if !slices.Contains(f.rounds, r.name) {
			continue
		}
		s, err := chaos.New(ctx, r.options(f))
		if err == nil {
			if err = r.do(ctx, f, r, s, report); err == nil {
				err = s.Close()
			}
		}
		if err != nil {
			return fmt.Errorf("round %s: %w", r.name, err)
		}
	}
	return nil
}

// suite does each fault everywhere it can be done.
func suite(ctx context.Context, f flags, r round, s *chaos.Suite, report *chaos.Report) error {
	for _, where := range []chaos.Where{chaos.OneNode, chaos.AllNodes, chaos.Stopped} {
		report.Heading("%s: %s", r.heading, where)
		for _, fault := range r.options(f).Faults() {
			turns, repeat := s.Turns(fault), f.repeat
			if len(turns) == 0 || !f.only.MatchString(fault.Name) || !where.Applies(fault) {
				continue
			}
			if where != chaos.OneNode || fault.Long {
				repeat = 1
			}
			for i := range repeat {
				c := chaos.Case{Fault: fault, Where: where, Families: turns[i%len(turns)], Host: i}
				if err := one(ctx, s, c, report); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func suiteAndWalk(ctx context.Context, f flags, r round, s *chaos.Suite, report *chaos.Report) error {
	if err := suite(ctx, f, r, s, report); err != nil || f.walk <= 0 {
		return err
	}
	report.Heading("Random faults for %s, --seed %d", f.walk, f.seed)
	start := time.Now()
	return s.Walk(ctx, f.seed, func() bool { return time.Since(start) < f.walk }, report.Brief)
}

func manyLeases(ctx context.Context, f flags, r round, s *chaos.Suite, report *chaos.Report) error {
	report.Heading(r.heading, f.leases)
	if f.rest > 0 {
		rest, err := s.Rest(ctx, chaos.SettleStep, f.rest, min(f.rest, 3*time.Second))
		if err != nil {
			return err
		}
		report.Rest(rest)
	}
	for _, fault := range r.options(f).Faults() {
		if !f.only.MatchString(fault.Name) {
			continue
		}
		for _, families := range s.Turns(fault) {
			if err := one(ctx, s, chaos.Case{Fault: fault, Where: chaos.OneNode, Families: families}, report); err != nil {
				return err
			}
		}
	}
	return nil
}

func one(ctx context.Context, s *chaos.Suite, c chaos.Case, report *chaos.Report) error {
	c.Traffic = true
	o, err := s.Run(ctx, c)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	report.Line(o)
	return nil
}

// checkRounds says which of the names is none.
func checkRounds(names []string) error {
	for _, name := range names {
		if !slices.Contains(roundNames(), name) {
			return fmt.Errorf("--rounds: there is no round %q, want some of %s", name, strings.Join(roundNames(), ","))
		}
	}
	return nil
}
