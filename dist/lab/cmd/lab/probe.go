package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// errProbe is returned when a probe failed; what is wrong has been printed.
var errProbe = errors.New("not every probe was answered as it should be")

func probe(ctx context.Context, s *session, args []string, io stdio) error {
	return s.probe(ctx, args, io, s.lab.MatrixFamily, s.lab.ProbeShared)
}

// full is probe with full-size probes. It also says how many fragments were made of what carried them.
func full(ctx context.Context, s *session, args []string, io stdio) error {
	before, err := s.lab.Fragments()
	if err != nil {
		return err
	}
	failed := s.probe(ctx, args, io, s.lab.MatrixFull, s.lab.ProbeFullShared)
	if failed != nil && !errors.Is(failed, errProbe) {
		return failed
	}
	after, err := s.lab.Fragments()
	fmt.Fprintf(io.out, "%d fragments meanwhile\n", after-before)
	return cmp.Or(failed, err)
}

// probe probes between all pods or from one endpoint to another, in each family.
func (s *session) probe(ctx context.Context, args []string, io stdio,
	matrix func(context.Context, subnet.Family, []*lab.Endpoint) [][]lab.Result,
	one func(ctx context.Context, from, to *lab.Endpoint) []lab.Result,
) error {
	switch len(args) {
	case 0:
		pods := s.podEndpoints()
		if len(pods) < 2 {
			return errors.New("there are fewer than two pods: add some with \"lab pod add NODE\"")
		}
		ok := printMatrices(io.out, s.lab.Families(), pods, func(f subnet.Family) [][]lab.Result { return matrix(ctx, f, pods) })
		if !ok {
			return errProbe
		}
		return nil
	case 2:
		from, to, err := s.pair(args)
		if err != nil {
			return err
		}
		if !printResults(io.out, one(ctx, from, to)) {
			return errProbe
		}
		return nil
	}
	return errUsage
}

func (s *session) pair(args []string) (from, to *lab.Endpoint, err error) {
	if from, err = s.endpoint(args[0]); err != nil {
		return nil, nil, err
	}
	to, err = s.endpoint(args[1])
	return from, to, err
}

func stream(ctx context.Context, s *session, args []string, io stdio) error {
	seconds := 10.0
	if len(args) == 3 {
		var err error
		if seconds, err = strconv.ParseFloat(args[2], 64); err != nil || seconds <= 0 {
			return fmt.Errorf("stream for %q: want a number of seconds", args[2])
		}
		args = args[:2]
	}
	if len(args) != 2 {
		return errUsage
	}
	from, to, err := s.pair(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
	defer cancel()
	reports, err := s.lab.StreamShared(ctx, from, to, 2*time.Millisecond)
	if err != nil {
		return err
	}
	for _, r := range reports {
		if len(reports) > 1 {
			fmt.Fprintf(io.out, "%s: ", r.Family)
		}
		fmt.Fprintln(io.out, r)
	}
	return nil
}
