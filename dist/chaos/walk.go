package chaos

import (
	"context"
	"math/rand/v2"
)

// Walk does random faults, one after the other, while more says so and until something is not repaired, and hands each outcome
// to report. The same seed does the same faults in the same order to the same nodes; how they meet the daemons' own doings
// is up to the machine.
func (s *Suite) Walk(ctx context.Context, seed uint64, more func() bool, report func(Outcome)) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	faults := s.options.Faults()
	for more() && ctx.Err() == nil {
		f := faults[rng.IntN(len(faults))]
		where := []Where{OneNode, OneNode, AllNodes, Stopped}[rng.IntN(4)]
		index := rng.IntN(len(s.hosts))
		if f.Long || !where.Applies(f) {
			continue
		}
		turns := s.Turns(f)
		if len(turns) == 0 {
			continue
		}
		o, err := s.Run(ctx, Case{Fault: f, Where: where, Families: turns[rng.IntN(len(turns))], Host: index})
		if err != nil {
			return err
		}
		report(o)
		if o.Wrong != nil {
			return nil
		}
	}
	return ctx.Err()
}
