package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// policyMemory measures the memory of a daemon by the numbers of pods and policies, at rest after a start.
func policyMemory(ctx context.Context, b *bench) (err error) {
	l, err := b.policyLab(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.closeLab(l)) }()
	n := l.Nodes()[0]
	c, err := newPolicyCluster(ctx, l.Kube().Server().Admin(), n.Name(), b.PolicyPods)
	if err != nil {
		return err
	}
	some := max(localPods, b.PolicyPods/10)
	sizes := []policySize{
		{0, 0}, {some, 0}, {b.PolicyPods, 0}, {b.PolicyPods, b.Policies}, {some, b.Policies}, {0, b.Policies},
	}
	measured, now := map[policySize][]memory{}, policySize{}
	for _, size := range sizes {
		b.step("  memory with %d pods and %d policies", size.pods, size.policies)
		err := errors.Join(c.addPods(ctx, now.pods, size.pods), c.removePods(ctx, size.pods, now.pods),
			c.addPolicies(ctx, now.policies, size.policies))
		if err != nil {
			return err
		}
		now = size
		for range min(3, b.Rounds) {
			if err := errors.Join(n.Restart(ctx), n.WaitReady(ctx), b.settlePolicies(ctx, n, size)); err != nil {
				return err
			}
			if !pause(ctx, b.rest()) {
				return ctx.Err()
			}
			m, err := memoryOf(n.PID())
			if err != nil {
				return err
			}
			measured[size] = append(measured[size], m)
		}
	}
	slices.SortFunc(sizes, func(a, b policySize) int {
		if a.policies != b.policies {
			return a.policies - b.policies
		}
		return a.pods - b.pods
	})
	resident := func(m memory) float64 { return m.Resident / 1e6 }
	of := func(size policySize, what func(memory) float64) (samples []float64) {
		for _, m := range measured[size] {
			samples = append(samples, what(m))
		}
		return samples
	}
	for _, size := range sizes {
		name := fmt.Sprintf("/pods=%d/policies=%d", size.pods, size.policies)
		words := fmt.Sprintf("%d pods, %d policies: ", size.pods, size.policies)
		for _, x := range []struct {
			name, what string
			value      func(memory) float64
		}{
			{"Rest", "memory at rest", resident},
			{"RestAnon", "of it, heap and stacks (RssAnon)", func(m memory) float64 { return m.Anon / 1e6 }},
			{"Peak", "peak memory", func(m memory) float64 { return m.Peak / 1e6 }},
		} {
			b.report.add(Figure{Name: "PolicyMemory" + x.name + name, What: words + x.what, Unit: "MB",
				Samples: of(size, x.value)})
		}
	}
	for _, policies := range []int{0, b.Policies} {
		grown := median(of(policySize{b.PolicyPods, policies}, resident)) -
			median(of(policySize{some, policies}, resident))
		b.report.add(Figure{
			Name: fmt.Sprintf("PolicyMemoryGrowth/policies=%d", policies), Unit: "B",
			Value: 1e6 * grown / float64(b.PolicyPods-some),
			What: fmt.Sprintf("%d policies: memory at rest a pod of another node, %d to %d",
				policies, some, b.PolicyPods),
		})
	}
	return nil
}

// rest is how long after its start a daemon's memory is read.
func (b *bench) rest() time.Duration { return cmp.Or(b.Rest, atRest) }
