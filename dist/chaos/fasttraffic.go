package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/subnet"
)

// fastCounts is how many packets were fast.
type fastCounts struct{ sent, received uint64 }

func readFastCounts() (c fastCounts, err error) {
	err = onFastMap("counters", func(m *ebpf.Map) error {
		for reason, to := range map[fastpath.Reason]*uint64{
			fastpath.Sent: &c.sent, fastpath.Received: &c.received, fastpath.ReceivedDecapsulated: &c.received,
		} {
			var each []uint64
			if err := m.Lookup(uint32(reason), &each); err != nil {
				return err
			}
			for _, n := range each {
				*to += n
			}
		}
		return nil
	})
	return c, err
}

// goesFast sends from a pod of each node to one of the next, until packets are fast on every node, in both directions
// and all families. The problems are where they stay slow.
func (s *Suite) goesFast(ctx context.Context) (problems []string, err error) {
	if !s.options.FastPath {
		return nil, nil
	}
	for _, f := range s.families {
		slow, failed := s.goesFastIn(ctx, f)
		problems, err = append(problems, slow...), errors.Join(err, failed)
	}
	return problems, err
}

func (s *Suite) goesFastIn(ctx context.Context, f subnet.Family) (problems []string, err error) {
	before := make([]fastCounts, len(s.hosts))
	for i, h := range s.hosts {
		if before[i], err = in(h, readFastCounts); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name(), err)
		}
	}
	streaming, cancel := context.WithCancel(ctx)
	type outcome struct {
		report lab.StreamReport
		err    error
	}
	done := make(chan outcome)
	for _, h := range s.hosts {
		go func() {
			r, err := s.lab.StreamFamily(streaming, f, h.pods[0].Endpoint, s.next(h).pods[0].Endpoint, probeEvery)
			done <- outcome{r, err}
		}()
	}
	const enough = 10
	problems, err = s.await(ctx, s.hosts, func(h *host) ([]string, error) {
		was := before[slices.Index(s.hosts, h)]
		now, err := in(h, readFastCounts)
		if err != nil || now.sent >= was.sent+enough && now.received >= was.received+enough {
			return nil, err
		}
		return []string{fmt.Sprintf("%s: %s packets are slow: of a stream, %d were sent and %d received by the fast path",
			h.Name(), f, now.sent-was.sent, now.received-was.received)}, nil
	})
	cancel()
	for range s.hosts {
		o := <-done
		err = errors.Join(err, o.err)
		if o.report.Lost > 0 {
			problems = append(problems, fmt.Sprintf("a stream without a fault lost packets: %s", o.report))
		}
	}
	return problems, err
}
