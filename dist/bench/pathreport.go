package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

// addRatios reports ratios and judges them. Of a rate, more is better.
func (r *Report) addRatios(name, what string, on, off []float64, rate bool, target float64) {
	f := Figure{Name: fastFigure + name, What: what, Unit: "×", Samples: on}
	if len(off) > 0 {
		f.Off = &Reference{What: "off", Value: median(off), Samples: off}
	}
	switch {
	case target == 0:
	case rate:
		f.Least = &target
	default:
		f.Limit = &target
	}
	r.add(f)
}

// fastFigure begins the name of each figure of the fast path. The words say what a ratio is of.
const (
	fastFigure = "FastPath"
	ofNodes    = ", to node to node"
	ofOff      = ", on to off"
)

// fastCounters notes what became of packets on the nodes with the fast path.
func (b *bench) fastCounters(ctx context.Context, c pathCase, p *dataPath) error {
	var errs []error
	for _, n := range p.lab.Nodes()[2:] {
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		if s.FastPath == nil {
			return fmt.Errorf("%s has no fast path any more", n.Name())
		}
		sent, received := s.FastPath.Fast()
		if sent == 0 || received == 0 {
			errs = append(errs, fmt.Errorf("%s: no packet was fast: %+v", n.Name(), s.FastPath))
		}
		b.report.note("%s, %s: %s", c.what, n.Name(), packets(*s.FastPath))
	}
	return errors.Join(errs...)
}

// Markdown writes the table of the fast path for the documentation.
func (r *Report) Markdown(w io.Writer) error {
	text := "| case | what | off | on | lowest to highest | target | |\n|---|---|---|---|---|---|---|\n"
	for _, f := range r.Figures {
		if !strings.HasPrefix(f.Name, fastFigure) {
			continue
		}
		kind, what, _ := strings.Cut(f.What, ": ")
		off, target, met, spread := "", "", "", ""
		if f.Off != nil {
			off = number(f.Off.Value)
		}
		if len(f.Samples) > 0 {
			spread = fmt.Sprintf("%.2f to %.2f", slices.Min(f.Samples), slices.Max(f.Samples))
		}
		if f.Reached != nil {
			if met = "met"; !*f.Reached {
				met = "**missed**"
			}
			if target = "≥ "; f.Limit != nil {
				target = "≤ " + number(*f.Limit)
			} else {
				target += number(*f.Least)
			}
		}
		value := number(f.Value)
		if f.Unit != "×" {
			value += " " + f.Unit
		}
		text += fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |\n", kind, what, off, value, spread, target, met)
	}
	_, err := io.WriteString(w, text)
	return err
}

// packets lists what became of packets, except for what never happened.
func packets(f status.FastPath) string {
	var all []string
	for reason, count := range f.Packets {
		if count > 0 {
			all = append(all, fmt.Sprintf("%s %d", reason, count))
		}
	}
	slices.Sort(all)
	return fmt.Sprintf("%s; %d flushes", strings.Join(all, ", "), f.Flushes)
}
