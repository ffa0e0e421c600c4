package connectivity

import (
	"fmt"
	"slices"

	"github.com/selvage-net/selvage/network/connectivity/agent"
)

// wrong returns what is wrong with the result of a probe, for people. It returns "" if nothing is.
func (p probe) wrong(r agent.Result) string {
	switch {
	case p.want.denied && r.Error == "":
		return "answered, although the policies deny it"
	case p.want.denied:
		return ""
	case r.Error != "":
		return r.Error
	case p.want.by != "" && r.Echo.By != p.want.by:
		return fmt.Sprintf("%s answered", r.Echo.By)
	case len(p.want.seen) > 0 && !slices.Contains(p.want.seen, r.Echo.Seen):
		return fmt.Sprintf("seen with the source address %s, want %v: something translates addresses",
			r.Echo.Seen, p.want.seen)
	}
	return ""
}

// judge returns the checks of a plan. results are those of its probes; nil: the caller's agent did not report it, and
// failed says why, by the index of the caller.
func (p plan) judge(results []*agent.Result, failed map[int]error) (checks []Check) {
	for i, probe := range p.probes {
		c := probe.checkIn(&checks)
		c.Probes++
		text := ""
		switch r := results[i]; {
		case r != nil:
			text = probe.wrong(*r)
		case failed[probe.from] != nil:
			text = "the agent did not run: " + failed[probe.from].Error()
		default:
			text = "the agent did not report this call"
		}
		if text != "" {
			from := p.callers[probe.from]
			c.Failed++
			c.Failures = append(c.Failures, Failure{
				From: from.String(), To: fmt.Sprintf("%s %s", probe.call.Network, probe.to), Error: text,
			})
		}
	}
	return checks
}

// add adds a check to others: to the one of the same name and family, or else after the last one of the same name.
func add(checks []Check, c Check) []Check {
	for i, other := range checks {
		if other.Name == c.Name && other.Family == c.Family {
			checks[i].Probes, checks[i].Failed = other.Probes+c.Probes, other.Failed+c.Failed
			checks[i].Failures = append(other.Failures, c.Failures...)
			checks[i].Took += c.Took
			return checks
		}
	}
	at := len(checks)
	for i, other := range checks {
		if other.Name == c.Name {
			at = i + 1
		}
	}
	return slices.Insert(checks, at, c)
}

// checkIn returns the check in a list that a probe belongs to.
func (p probe) checkIn(checks *[]Check) *Check {
	family := ""
	if !p.any {
		family = p.family.String()
	}
	i := slices.IndexFunc(*checks, func(c Check) bool { return c.Name == p.check && c.Family == family })
	if i < 0 {
		i = len(*checks)
		*checks = append(*checks, Check{Name: p.check, Family: family})
	}
	return &(*checks)[i]
}

// String returns the place's name, and its node's.
func (p Place) String() string {
	switch p.Node {
	case p.Name:
		return "node " + p.Node
	case "": // it was not scheduled
		return p.Name
	}
	return fmt.Sprintf("%s on %s", p.Name, p.Node)
}

// failed returns the indices of the probes that failed.
func (p plan) failed(results []*agent.Result) (indices []int) {
	for i, r := range results {
		if r == nil || p.probes[i].wrong(*r) != "" {
			indices = append(indices, i)
		}
	}
	return indices
}

// judgeStreams returns the check of streams from each of some places.
func judgeStreams(callers []Place, orders []agent.Orders, results []agent.Results, errs []error) Check {
	c := Check{Name: rollingRestart}
	for i, o := range orders {
		for k, stream := range o.Streams {
			failure := Failure{From: callers[i].String(), To: "stream to " + stream.To.String()}
			switch {
			case errs[i] != nil:
				failure.Error = "the agent did not run: " + errs[i].Error()
			case k >= len(results[i].Streams):
				failure.Error = "the agent did not report this call"
			case results[i].Streams[k].Lost > 0:
				c.Probes += results[i].Streams[k].Sent
				c.Failed += results[i].Streams[k].Lost
				failure.Error = results[i].Streams[k].String()
			default:
				c.Probes += results[i].Streams[k].Sent
				continue
			}
			c.Failures = append(c.Failures, failure)
		}
	}
	return c
}
