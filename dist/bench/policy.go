package bench

import (
	"context"
	"fmt"
	"slices"
)

const (
	// MaxPolicyPods is how many pods there can be in the part "policy": they have addresses of their own.
	MaxPolicyPods = 100_000
	// MaxPolicies is how many policies there can be.
	MaxPolicies = 10_000
)

// policyParts are what the part "policy" measures, by name.
func policyParts() []Part {
	return []Part{
		{Name: "changes", run: policyTimes},
		{Name: "connections", run: policyPackets},
		{Name: "memory", run: policyMemory},
	}
}

// PolicyParts are the names of what the part "policy" measures.
func PolicyParts() (names []string) {
	for _, p := range policyParts() {
		names = append(names, p.Name)
	}
	return names
}

// policies is the part.
func policies(ctx context.Context, b *bench) error {
	for _, p := range policyParts() {
		if len(b.PolicyParts) > 0 && !slices.Contains(b.PolicyParts, p.Name) {
			continue
		}
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		b.report.note("After the %s: %s", p.Name, loadAverage())
	}
	return nil
}
