package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// said is what was logged, so that one fact is one line however often it is met.
type said struct {
	log         logrus.FieldLogger
	once        map[string]trouble // by place: see sayOnce
	warned      string             // by the backend: see sayWarning
	repaired    int                // entries since repairsSaid
	repairedBy  map[string]bool    // who had changed them, as far as that is known
	repairsSaid time.Time
	fileSaid    time.Time           // that somebody else touched the subnet file
	fights      map[string]fight    // by kind and key
	failing     map[string]*failing // by kind
}

// trouble is what was last said at a place.
type trouble struct {
	text  string
	since time.Time
}

// fight is something that somebody keeps changing.
type fight struct {
	since, last time.Time // that it was said
	want, have  string
	by          string // who did it last, if that is known
}

// failing says since when changes of one kind fail, and when that was last said.
type failing struct {
	since, said time.Time
	text        string
}

// How often repairs, each fight, and failures of a kind are said at the most.
const (
	repairsSaidEvery  = 10 * time.Second
	fightSaidEvery    = time.Minute
	failuresSaidEvery = time.Minute
	// passingTrouble is how long a failure that can come from a device's coming or going has to last before it is said.
	passingTrouble = time.Second
)

// sayOnce logs an error at the place called topic, unless it is what was logged there last.
func (s *said) sayOnce(topic string, err error) {
	t, there := s.once[topic]
	if t.text == err.Error() {
		return
	}
	if !there {
		t.since = time.Now()
	}
	t.text = err.Error()
	s.once[topic] = t
	s.log.Error(err)
}

// forget says that the trouble at a place is over.
func (s *said) forget(topic string) {
	if _, was := s.once[topic]; was {
		delete(s.once, topic)
		s.log.Infof("%s: all is well again", topic)
	}
}

// sayPass says what a pass came to, as far as somebody should know. Of a node's own devices, forwarding is switched on
// whenever they are made, and that is no news.
func (n *node) sayPass(now time.Time, r network.Result) {
	own := func(setting string) bool {
		return slices.ContainsFunc(n.device.Links, func(l network.Item[string, network.Link]) bool {
			return strings.Contains(setting, "/"+l.Key+"/")
		})
	}
	if set := slices.DeleteFunc(r.Sysctls, own); len(set) > 0 {
		slices.Sort(set)
		n.Log.WithField("set", set).Warn("settings of the kernel were not as the overlay needs them; set")
	}
	n.sayRepairs(now, r.Repaired, r.Repairs)
	n.sayConflicts(now, r.Conflicts)
	n.sayFailures(now, r)
}

// sayRepairs says how much others changed: the first at once, what follows soon after as one number.
func (s *said) sayRepairs(now time.Time, repaired int, repairs []network.Repair) {
	s.repaired += repaired
	for _, r := range repairs {
		if r.By != "" && len(s.repairedBy) < manyNamed {
			s.repairedBy[r.By] = true
		}
	}
	if s.repaired > 0 && now.Sub(s.repairsSaid) > repairsSaidEvery {
		entry := s.log.WithField("repaired", s.repaired)
		if len(s.repairedBy) > 0 {
			entry = entry.WithField("by", slices.Sorted(maps.Keys(s.repairedBy)))
		}
		entry.Warn("somebody else changed what is ours in the kernel; it is right again")
		s.repaired, s.repairsSaid = 0, now
		clear(s.repairedBy)
	}
}

// manyNamed is how many of those who changed something are named.
const manyNamed = 5

// whenBy names who did something, if that is known.
func whenBy(before, who string) string {
	if who == "" {
		return ""
	}
	return before + who
}

// sayConflicts names who keeps changing the same thing, with both values.
func (s *said) sayConflicts(now time.Time, fights []network.Conflict) {
	for _, f := range fights {
		key := f.Kind + " " + f.Key
		before, ok := s.fights[key]
		if ok && now.Sub(before.last) < fightSaidEvery {
			continue
		}
		if !ok {
			before.since = now
		}
		s.fights[key] = fight{before.since, now, f.Want, f.Have, f.By}
		s.log.WithFields(logrus.Fields{"want": f.Want, "have": f.Have}).
			Errorf("somebody keeps changing %s; it is set right again and again, with pauses: find who does it%s", key, whenBy("; the last time it was ", f.By))
	}
	maps.DeleteFunc(s.fights, func(_ string, f fight) bool { return now.Sub(f.last) > 2*fightSaidEvery })
}

// sayFailures says what could not be made: of each kind the first, and how many more.
func (s *said) sayFailures(now time.Time, r network.Result) {
	if len(r.Failures) == 0 && r.Retry.IsZero() {
		for _, kind := range slices.Sorted(maps.Keys(s.failing)) {
			if !s.failing[kind].said.IsZero() {
				s.log.Infof("%s: all is well again", kind)
			}
		}
		clear(s.failing)
		return
	}
	count, first := map[string]int{}, map[string]network.Failure{}
	for _, f := range r.Failures {
		if f.Kind == "sysctl" && strings.Contains(f.Key, "/conf/") && errors.Is(f.Err, fs.ErrNotExist) {
			continue // of the uplink, which is away: that is said where it is looked for
		}
		if count[f.Kind]++; count[f.Kind] == 1 {
			first[f.Kind] = f
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(first)) {
		f := s.failing[kind]
		if f == nil {
			f = &failing{since: now}
			s.failing[kind] = f
		}
		err := fmt.Errorf("%s %s: %w", kind, first[kind].Key, first[kind].Err)
		if now.Sub(f.said) < failuresSaidEvery || passes(err) && now.Sub(f.since) < passingTrouble {
			continue
		}
		f.said, f.text = now, err.Error()
		if more := count[kind] - 1; more > 0 {
			err = fmt.Errorf("%w (and %d more of its kind)", err, more)
		}
		s.log.Error(err)
	}
}

// sayWarning says what a backend has to say of the config and the uplink, once.
func (n *node) sayWarning(b backend.Backend) {
	w, ok := b.(backend.Warner)
	if !ok || w.Warning() == "" {
		n.warned = ""
		return
	}
	if text := w.Warning(); text != n.warned {
		n.warned = text
		n.Log.Warn(text)
	}
}

// sayUplink says which interface carries the overlay, and why that one.
func (n *node) sayUplink(c uplink.Choice) {
	fields := logrus.Fields{"uplink": c.Name, "public_ip": addresses(c.PublicIP), "mtu": c.MTU}
	if not := slices.Concat(c.Rejected, c.Others); len(not) > 0 {
		fields["not"] = not
	}
	n.Log.WithFields(fields).Info("uplink: " + c.Why)
}

// sayMoved says that the node has other subnets now, and which pods stay behind: others send what is for them elsewhere.
func (n *node) sayMoved(from, to [2]netip.Prefix) {
	for _, f := range subnet.Families() {
		if from[f] == to[f] || !from[f].IsValid() || !to[f].IsValid() { // a family that was switched off is nobody's gain
			continue
		}
		pods := n.kernel.Hosts(from[f])
		entry := n.Log.WithFields(logrus.Fields{"was": from[f], "is": to[f], "pods_seen": len(pods)})
		if len(pods) > manyPods {
			pods = pods[:manyPods]
		}
		entry.WithField("pods", pods).Errorf("this node lost its subnet %s to another node and has %s now. "+
			"Pods that have addresses of the old one cannot be reached from other nodes: restart them, and remove the old address from their bridge", from[f], to[f])
	}
}

// manyPods is how many pods are named.
const manyPods = 20

// passes reports whether a failure may just come from a device that is coming or going at this moment.
func passes(err error) bool {
	// EEXIST: another device of the name came just now, and is about to be told of.
	return slices.ContainsFunc([]error{unix.ENODEV, unix.EEXIST, unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, fs.ErrNotExist},
		func(e error) bool { return errors.Is(err, e) })
}
