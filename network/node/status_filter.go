package node

import (
	"fmt"
	"time"

	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/node/status"
)

// filterProblems lists what blocks the overlay's packets: rules of other programs, or missing rules of selvage.
func (n *node) filterProblems(now time.Time) (all []status.Problem) {
	if n.rules == nil {
		return nil
	}
	since := n.history.filterSince
	if since.IsZero() {
		since = now
	}
	s := n.rules.Status()
	for _, d := range s.Drops {
		all = append(all, status.Problem{
			Topic: "packet filter", Code: status.PacketsDropped, Text: status.Text(d.Report()), Since: since,
			Cuts: familyNames(only(d.Family)),
		})
	}
	if s.Failed != nil {
		text := status.Text(s.Failed.Error())
		all = append(all, status.Problem{Topic: "packet filter", Code: status.RulesNotSet, Text: text, Since: since})
	}
	return all
}

// filterStatus describes the packet filter.
func (n *node) filterStatus() status.Filter {
	s := status.Filter{InForce: n.rules.InForce(), VTEPFilter: n.vteps.inForce}
	if n.rules == nil {
		return s
	}
	now := n.rules.Status()
	s.Mode, s.Code, s.Why = string(now.Mode), modeReason(now.Code), status.Text(now.Why)
	s.Left = status.Texts(now.Leftover)
	if now.InForce != "" && now.InForce != now.Mode {
		s.Mode, s.Code = string(now.InForce), status.RulesNotSet
		s.Why = status.Text(fmt.Sprintf("still, because %s cannot be set (%s)", now.Mode, now.Why))
	}
	s.Drops, s.Troubles = filterDrops(now.Drops), filterTroubles(now)
	for _, d := range now.Drops {
		s.Foreign = append(s.Foreign, status.Text(d.Report()))
	}
	for _, t := range s.Troubles {
		s.Trouble = append(s.Trouble, status.Text(t.String()))
	}
	return s
}

// modeReason returns the reason for a mode, "" before the first one is chosen.
func modeReason(r filter.Reason) status.Reason {
	switch r {
	case filter.Default:
		return status.ModeDefault
	case filter.Configured:
		return status.ModeConfigured
	case filter.NoIPTables:
		return status.NoIPTables
	case filter.NoNFTables:
		return status.NoNFTables
	case filter.LegacyInUse:
		return status.ModeLegacyInUse
	case filter.ForeignDrop:
		return status.ModeForeignDrop
	}
	return ""
}

func filterTroubles(s filter.Status) (all []status.FilterTrouble) {
	if u := s.Unmet; u != nil {
		code := status.NoIPTables
		if u.Err != nil {
			code = status.NoNFTables
		}
		all = append(all, status.FilterTrouble{Code: code, Text: status.Text(u.Text), Advice: status.Text(u.Advice)})
	}
	if s.Unseen != nil {
		all = append(all, status.FilterTrouble{Code: status.FilterUnread, Text: status.Text(s.Unseen.Error())})
	}
	return all
}

func filterDrops(found []blocking.Drop) (all []status.FilterDrop) {
	for _, d := range found {
		all = append(all, status.FilterDrop{
			Family: d.Family.String(), Table: d.Table, Chain: d.Chain, Legacy: d.Legacy, Network: d.Network,
			Text: status.Text(d.String()), Commands: d.Commands, Advice: status.Text(d.Advice()),
		})
	}
	return all
}
