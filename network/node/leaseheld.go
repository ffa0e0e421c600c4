package node

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// What a leaseHolder does about the lease that it holds: when it is final, and when it is lost.

func (h *leaseHolder) holdEnded(r holdResult) {
	if r.round == h.round && h.phase == holding {
		h.lose(r.err, time.Now())
	}
}

// lose goes back to having no lease. The same subnets are asked for again.
func (h *leaseHolder) lose(why error, now time.Time) {
	h.say(now, func() { h.log.WithError(why).WithField("lease", h.record.Name).Warn("lease lost; claiming again") })
	h.lost = lostLease{
		name: h.record.Name, until: h.until,
		rewritten: errors.Is(why, subnet.ErrRewritten) && !h.wroteAt.IsZero(),
		recent:    now.Sub(h.wroteAt) < recently,
	}
	h.end(now)
	h.previous = h.subnets
}

// end ends the hold.
func (h *leaseHolder) end(now time.Time) {
	h.release()
	h.phase, h.final = idle, false
	h.judged(nil, now)
	h.losses.Next(lossBackoff, now)
}

// say logs a line about a lease that was acquired or lost, unless there are too many of them.
func (h *leaseHolder) say(now time.Time, line func()) {
	switch h.logged.Allow(leaseLines, leaseLogged, now) {
	case backoff.Pass:
		line()
	case backoff.Last:
		h.log.Warn("many changes of this node's lease; more are not logged for now")
	case backoff.Drop:
	}
}

// check looks whether the view still shows the lease as ours.
func (h *leaseHolder) check(now time.Time) (gained bool) {
	if h.view.Revision() < h.record.Version {
		return false // the watch has not reached it yet
	}
	m, ok, why := h.view.Get(h.record.Name)
	h.conflict = 0
	h.judged(why, now)
	switch {
	case !ok:
		h.lose(errors.New("its "+h.words.Record+" was deleted"), now)
	case m.InstanceID != h.instanceID:
		h.lose(fmt.Errorf("its %s belongs to another node: %s %s", h.words.Record, m.NodeName, m.InstanceID), now)
	case h.storeAllocates() && subnetsOf(m.Lease) != h.subnets:
		h.lose(fmt.Errorf("its %s has other subnets now: %s", h.words.Record, prefixes(subnetsOf(m.Lease))), now)
	case errors.Is(why, subnet.ErrOverlap) && h.storeAllocates():
		h.final = false
		h.invalid(why)
	case errors.Is(why, subnet.ErrOverlap):
		// It was claimed at the same moment as an overlapping one, which the store cannot see, or an older one has
		// become valid since. The older one stays: every node decides so. The next claim takes over the record that
		// gives way.
		h.say(now, func() {
			h.log.WithField("lease", h.record.Name).WithError(why).Info("yielding to an older lease; claiming " +
				"another subnet")
		})
		h.end(now)
	case errors.Is(why, subnet.ErrDuplicate):
		// Of something else than the subnet, such as a MAC address: the node chooses another and updates the lease.
		h.conflict = m.Version
	case h.final:
	case why != nil:
		h.invalid(why)
	default:
		h.final = true
		h.lastErr = ""
		h.judged(nil, now)
		h.say(now, func() {
			fields := logrus.Fields{
				"lease": strings.ReplaceAll(m.Name, "&", " "), "etcd_lease": m.LeaseID, "reservation": m.LeaseID == 0,
			}
			if h.storeAllocates() { // the name does not have the subnets, and no lease expires
				fields = logrus.Fields{"lease": m.Name, "subnets": prefixes(h.subnets)}
			}
			h.log.WithFields(fields).Info("lease acquired")
		})
		return true
	}
	return false
}

// judged notes why other nodes reject the held lease, if they do, and since when it is not good.
func (h *leaseHolder) judged(rejected error, now time.Time) {
	h.rejected = rejected
	switch {
	case h.final && rejected == nil:
		h.badSince = time.Time{}
	case h.badSince.IsZero():
		h.badSince = now
	}
}

// problem returns why the node has no lease that other nodes accept, and since when; empty: it has one, or waits for
// its first one.
func (h *leaseHolder) problem(now time.Time) (code status.Reason, text string, since time.Time) {
	code = status.NoLease
	switch {
	case h.question != "":
		text = h.question
	case h.lastErr != "" && !h.final:
		code, text = cmp.Or(h.reason, code), h.lastErr
	case h.badSince.IsZero() || now.Sub(h.badSince) <= pendingFor: // as a rule, that ends at once
	case h.rejected != nil:
		text = fmt.Sprintf("other nodes reject this node's lease %s: %v", h.record.Name, h.rejected)
	default:
		text = "this node lost its lease and has no other one yet"
	}
	return code, text, h.badSince
}

// invalid logs why the own lease cannot be used, if that is new.
func (h *leaseHolder) invalid(why error) {
	if why.Error() != h.lastErr {
		h.lastErr, h.reason = why.Error(), status.NoLease
		if errors.Is(why, subnet.ErrOutside) && h.storeAllocates() {
			h.reason = status.SubnetOutside
		}
		h.say(time.Now(), func() {
			h.log.WithError(why).WithField("lease", h.record.Name).Error("this node's lease is invalid")
		})
	}
}

// subnetsOf returns the subnets of a lease, by Family.
func subnetsOf(l subnet.Lease) (all [2]netip.Prefix) {
	for _, f := range subnet.Families() {
		all[f] = l.Endpoints[f].Subnet
	}
	return all
}

// prefixes lists the valid ones of subnets by Family: "10.244.3.0/24 fd00:244:0:3::/64".
func prefixes(byFamily [2]netip.Prefix) string {
	var texts []string
	for _, p := range valid(byFamily[:], netip.Prefix.IsValid) {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, " ")
}
