package mesh

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/selvage-net/selvage/network/node/status"
)

// Limits of what is taken from an answer.
const (
	maxText = 64 // runes
	maxList = 32
)

// Clean bounds what another node has sent, and leaves nothing in it that a terminal would act on.
func (m *Summary) Clean() {
	for _, s := range []*string{&m.Node, &m.Lease, &m.Selvaged, &m.Kernel, &m.Backend, &m.Config, &m.Zone} {
		*s = printable(*s)
	}
	m.State = status.State(printable(string(m.State)))
	m.Problems = m.Problems[:min(len(m.Problems), maxList)]
	for i := range m.Problems {
		p := &m.Problems[i]
		p.Topic, p.Code = printable(p.Topic), status.Reason(printable(string(p.Code)))
	}
	m.Cut, m.Networks, m.Subnets = printables(m.Cut), printables(m.Networks), printables(m.Subnets)
	m.Entries = m.Entries[:min(len(m.Entries), maxList)]
	for i := range m.Entries {
		m.Entries[i].Kind = printable(m.Entries[i].Kind)
	}
	m.DropsBy = m.DropsBy[:min(len(m.DropsBy), maxList)]
	for i := range m.DropsBy {
		d := &m.DropsBy[i]
		d.Policy, d.Direction, d.Cause = printable(d.Policy), printable(d.Direction), printable(d.Cause)
	}
	m.LastRepairs = m.LastRepairs[:min(len(m.LastRepairs), maxList)]
	for i := range m.LastRepairs {
		r := &m.LastRepairs[i]
		r.Kind, r.What = printable(r.Kind), printable(r.What)
	}
	if m.FastPath != nil {
		m.FastPath.Code = status.Reason(printable(string(m.FastPath.Code)))
	}
	m.Probes = m.Probes[:min(len(m.Probes), maxList)]
	for i := range m.Probes {
		p := &m.Probes[i]
		p.Family, p.Off = printable(p.Family), status.Reason(printable(string(p.Off)))
		p.Peers = p.Peers[:min(len(p.Peers), maxList)]
		for j := range p.Peers {
			x := &p.Peers[j]
			x.Key, x.Path, x.State = printable(x.Key), printable(x.Path), status.ReachState(printable(string(x.State)))
			x.FastPath = printable(x.FastPath)
		}
	}
}

func printables(all []string) []string {
	all = all[:min(len(all), maxList)]
	for i := range all {
		all[i] = printable(all[i])
	}
	return all
}

func printable(text string) string { return Printable(text, maxText) }

// Printable replaces what a terminal would act on, and keeps the first runes only.
func Printable(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
	if utf8.RuneCountInString(text) > most {
		return string([]rune(text)[:most])
	}
	return text
}
