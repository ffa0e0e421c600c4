package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

// vteps keeps the filter that lets in VXLAN packets from peers only. Who they are is in the tables; this is about the
// filter itself. Where there can be none, the node goes on without: it never shuts itself off.
type vteps struct {
	filter  *vtepfilter.Filter // nil: not opened, or given up
	over    bool               // given up, or taken away as it is not wanted
	config  vtepfilter.Config  // as it was last set
	inForce bool
	watched bool
	said    time.Time // when somebody's change of it, or a failure, was last said
	// Who changes it again and again is met with a growing pause, as in package network.
	pause     time.Duration
	notBefore time.Time
	news      atomic.Bool // somebody else has changed it
}

// Pauses between two repairs of the filter.
const (
	shortestVTEPPause = 5 * time.Millisecond
	longestVTEPPause  = 500 * time.Millisecond
)

// wait has the next repair come after a pause, which grows if it follows soon.
func (v *vteps) wait(now time.Time) {
	if now.Sub(v.notBefore) > 8*v.pause {
		v.pause = 0
	}
	v.pause = min(max(2*v.pause, shortestVTEPPause), longestVTEPPause)
	v.notBefore = now.Add(v.pause)
}

// keepVTEPs makes the filter what it is to be, once all peers are known.
func (n *node) keepVTEPs(ctx context.Context, now time.Time) {
	if n.vteps.over || !n.view.Synced() || !n.own.final {
		return
	}
	if err := n.ensureVTEPs(ctx, now); errors.Is(err, vtepfilter.ErrUnsupported) {
		err = errors.Join(err, n.endVTEPs())
		n.Log.WithError(err).Warn("no VTEP filter: anybody on the underlay can send packets into the overlay. --vtep-filter=false leaves it out without a word")
	} else if err != nil {
		n.vteps.wait(now)
		if now.Sub(n.vteps.said) > fightSaidEvery {
			n.vteps.said = now
			n.Log.WithError(err).Error("the VTEP filter is not as it should be; trying again")
		}
	}
}

func (n *node) ensureVTEPs(ctx context.Context, now time.Time) error {
	v := &n.vteps
	if now.Before(v.notBefore) {
		return nil
	}
	config, wanted := n.vtepConfig()
	if v.filter == nil {
		f, err := vtepfilter.Open()
		if errors.Is(err, vtepfilter.ErrUnsupported) && !wanted {
			v.over = true // there is none to be taken away
			return nil
		} else if err != nil {
			return fmt.Errorf("VTEP filter: %w", err)
		}
		v.filter = f
	}
	if !wanted {
		return n.endVTEPs()
	}
	told := v.news.Swap(false)
	if v.inForce && !told && reflect.DeepEqual(config, v.config) {
		return nil
	}
	if !v.inForce {
		n.watchVTEPs(ctx, v.filter)
	}
	changed, err := v.filter.Ensure(config, n.wantedVTEPs)
	if err != nil {
		v.news.Store(true) // still to be done
		return err
	}
	switch {
	case !v.inForce:
		v.notBefore = now.Add(lookAgainAfter) // what has changed before the watch began, it will tell
		n.Log.WithFields(logrus.Fields{"port": config.Port, "allow": config.Allow, "changed": changed}).Info("VTEP filter: VXLAN packets are taken from peers only")
	case changed && told && reflect.DeepEqual(config, v.config):
		v.wait(now)
		if now.Sub(v.said) > fightSaidEvery {
			v.said = now
			n.Log.Warn("somebody else changed the VTEP filter; it is right again")
		}
	}
	v.inForce, v.config = true, config
	n.kernel.Filter(v.filter)
	return n.kernel.ReadVTEPs()
}

// endVTEPs takes the filter away, be it of an earlier run: one that nobody keeps would shut out every new peer.
func (n *node) endVTEPs() error {
	n.vteps.over = true
	n.kernel.Filter(nil)
	if n.vteps.filter == nil {
		return nil
	}
	err := n.vteps.filter.Remove()
	if errors.Is(err, vtepfilter.ErrUnsupported) {
		err = nil // then there is none
	}
	return errors.Join(err, n.closeVTEPs())
}

func (n *node) closeVTEPs() error {
	if n.vteps.filter == nil {
		return nil
	}
	f := n.vteps.filter
	n.vteps.filter = nil
	return f.Close()
}

// watchVTEPs has the loop woken when somebody else changes the filter.
func (n *node) watchVTEPs(ctx context.Context, f *vtepfilter.Filter) {
	if n.vteps.watched {
		return
	}
	n.vteps.watched = true
	tell := func() {
		n.vteps.news.Store(true)
		n.wakeForKernel()
	}
	n.background.Go(func() {
		for ctx.Err() == nil {
			if err := f.Watch(ctx, tell, tell); err != nil {
				n.Log.WithError(err).Warn("changes of the VTEP filter are only noticed every --resync")
				return
			}
		}
	})
}

// vtepConfig is what the filter is to be; wanted is false if there is to be none.
func (n *node) vtepConfig() (c vtepfilter.Config, wanted bool) {
	c = vtepfilter.Config{Networks: networks(*n.config), Allow: n.VTEPAllow}
	for _, l := range n.device.Links {
		c.Port = l.Value.Port
		c.Devices = append(c.Devices, l.Key)
	}
	for _, s := range n.subnets {
		if !s.IsValid() {
			continue
		}
		// The bridge of this node's pods holds the subnet, once there is one.
		bridge := n.tables.Routes.Get(network.RouteKey{Prefix: s, Metric: network.ConnectedMetric(s)}).Have.Link
		if bridge != "" && bridge != n.uplink.Name && !slices.Contains(c.Devices, bridge) {
			c.Devices = append(c.Devices, bridge)
		}
	}
	return c, n.VTEPFilter && c.Port != 0
}

// wantedVTEPs yields the peers that are to be let in.
func (n *node) wantedVTEPs(yield func(netip.Addr) bool) {
	for a, c := range n.tables.VTEPs.All {
		if c.Wanted && !yield(a) {
			return
		}
	}
}
