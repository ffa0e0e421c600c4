package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

// vtepFilter is the packet filter that accepts VXLAN packets from known addresses only. [vtepfilter.Filter] implements
// it.
type vtepFilter interface {
	// Ensure sets the rules for c and reports whether they differed. If it has to create them, it adds the peers.
	Ensure(c vtepfilter.Config, peers iter.Seq[netip.Addr]) (changed bool, err error)
	// Watch calls changed after each external change until ctx ends. It calls ready once, as soon as it misses no
	// change.
	Watch(ctx context.Context, ready, changed func()) error
	Remove() error
	Close() error
}

// vtepKeeper keeps the VTEP filter's rules. Which peers it accepts is in the tables, and the reconciler's business.
// Where the kernel supports no such filter, the node runs without one rather than cutting itself off.
//
// It belongs to the loop's goroutine. What it needs from outside is in the first group of fields.
type vtepKeeper struct {
	log  logrus.FieldLogger
	open func() (vtepFilter, error) // an error that is vtepfilter.ErrUnsupported is final
	// attach has the reconciler put peers into this filter, after reading which are in; nil: into none.
	attach func(vtepFilter) error
	retire func() error // removes the filters of earlier runs under other names; nil: there can be none
	start  func(func()) // runs a function in the background
	wake   func()       // wakes the loop; does not block

	filter  vtepFilter        // nil: not opened, or closed
	done    bool              // unsupported
	off     bool              // removed because it is not enabled
	config  vtepfilter.Config // as it was last applied
	inForce bool
	retired bool            // filters of earlier runs were removed
	unwatch func()          // ends the watch; nil: there is none
	logged  seldom          // external changes, and failures
	backoff backoff.Backoff // between repairs
	failed  problem         // why the filter cannot be applied or removed; no error: it could be
	checkAt time.Time       // when to check for changes made before the watch began
	stale   atomic.Bool     // the rules may have been changed
}

// vtepBackoff spaces repairs of the filter while another process keeps changing it.
var vtepBackoff = backoff.Policy{Min: 5 * time.Millisecond, Max: 500 * time.Millisecond, Settle: 8}

// resync has the next step check the rules, whether or not a change was reported.
func (v *vtepKeeper) resync() { v.stale.Store(true) }

// step makes the filter what c wants, or removes it if it is not enabled. It is called once all peers are known.
func (v *vtepKeeper) step(
	ctx context.Context, wake *alarm, c vtepfilter.Config, enabled bool, peers iter.Seq[netip.Addr],
) {
	if v.done || v.off && !enabled {
		return
	}
	if !v.backoff.Due(wake.now) || wake.now.Before(v.checkAt) {
		wake.set(v.backoff.At())
		wake.set(v.checkAt)
		return
	}
	err := v.ensure(ctx, wake.now, c, enabled, peers)
	switch {
	case err == nil:
		v.failed = problem{}
	case errors.Is(err, vtepfilter.ErrUnsupported):
		err = errors.Join(err, v.remove())
		v.failed, v.done = problem{}, true
		v.log.WithError(err).Warn("VTEP filter unavailable: any host on the underlay can inject packets into the " +
			"overlay (silence with --vtep-filter=false)")
	case err != nil:
		v.backoff.Next(vtepBackoff, wake.now)
		if v.failed.err == nil {
			v.failed.since = wake.now
		}
		v.failed.err = err
		if v.logged.due(wake.now) {
			v.log.WithError(err).Error("cannot apply the VTEP filter; retrying")
		}
	}
	wake.set(v.backoff.At())
	wake.set(v.checkAt)
}

func (v *vtepKeeper) ensure(
	ctx context.Context, now time.Time, c vtepfilter.Config, enabled bool, peers iter.Seq[netip.Addr],
) error {
	if v.filter == nil {
		f, err := v.open()
		if errors.Is(err, vtepfilter.ErrUnsupported) && !enabled {
			v.done = true // no filter exists, nor can any
			return nil
		} else if err != nil {
			return fmt.Errorf("VTEP filter: %w", err)
		}
		v.filter = f
	}
	if !enabled {
		err := v.remove()
		v.off = err == nil
		return err
	}
	v.off = false
	stale, same := v.stale.Swap(false), reflect.DeepEqual(c, v.config)
	if v.inForce && !stale && same {
		return nil
	}
	if !v.inForce {
		v.watch(ctx, v.filter)
	}
	changed, err := v.filter.Ensure(c, peers)
	if err != nil {
		v.stale.Store(true) // still to be done
		return err
	}
	switch {
	case !v.inForce:
		v.retired = v.retire == nil
		v.checkAt = now.Add(settleTime) // the watch reports what changed before it began
		v.log.WithFields(logrus.Fields{"port": c.Port, "allow": c.Allow, "changed": changed}).
			Info("VTEP filter in force: VXLAN packets are accepted from peers only")
	case changed && stale && same:
		v.backoff.Next(vtepBackoff, now)
		if v.logged.due(now) {
			v.log.Warn("repaired external changes to the VTEP filter")
		}
	}
	v.inForce, v.config = true, c
	err = v.attach(v.filter)
	if err == nil && !v.retired {
		if err = v.retire(); err != nil {
			err = fmt.Errorf("remove the VTEP filter of an earlier run, which drops packets of new peers: %w", err)
		}
		v.retired = err == nil
	}
	if err != nil {
		v.stale.Store(true) // still to be done
	}
	return err
}

// remove removes the filter, even one of an earlier run: without a process that maintains it, it would block every new
// peer.
func (v *vtepKeeper) remove() error {
	v.inForce = false
	if v.filter == nil {
		return v.attach(nil)
	}
	err := v.filter.Remove()
	if v.retire != nil {
		err = errors.Join(err, v.retire())
	}
	if errors.Is(err, vtepfilter.ErrUnsupported) {
		err = nil // then no filter exists
	}
	return errors.Join(v.attach(nil), err, v.close())
}

// problems returns the problem that the filter cannot be applied or removed: then it may drop packets of new peers.
func (v *vtepKeeper) problems(now time.Time) (all []status.Problem) {
	if v.failed.err == nil || now.Sub(v.failed.since) <= pendingFor {
		return nil
	}
	return []status.Problem{{
		Topic: "VTEP filter", Code: status.RulesNotSet, Text: status.Text(v.failed.err.Error()), Since: v.failed.since,
	}}
}

// close releases the filter's socket. The rules stay.
func (v *vtepKeeper) close() error {
	if v.filter == nil {
		return nil
	}
	f := v.filter
	v.filter = nil
	if v.unwatch != nil {
		v.unwatch()
		v.unwatch = nil
	}
	return f.Close()
}

// watch has the loop woken after an external change.
func (v *vtepKeeper) watch(ctx context.Context, f vtepFilter) {
	if v.unwatch != nil {
		return
	}
	ctx, v.unwatch = context.WithCancel(ctx)
	changed := func() {
		v.stale.Store(true)
		v.wake()
	}
	v.start(func() {
		for ctx.Err() == nil {
			if err := f.Watch(ctx, changed, changed); err != nil {
				v.log.WithError(err).Warn("cannot watch the VTEP filter: changes to it are noticed every --resync only")
				return
			}
		}
	})
}
