package storetest

import (
	"slices"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// regressed checks how many of the snapshots were of another history than the one before.
func regressed(t *testing.T, s State, want int) {
	t.Helper()
	if s.Regressed != want {
		t.Errorf("%d of %d snapshots are of another history, want %d", s.Regressed, s.Synced, want)
	}
}

// stopAt returns what a watcher calls before each event: it blocks at the first that puts a record of that name, until
// the test goes on.
func stopAt(name string) (before func(subnet.Event), blocked, goOn chan struct{}) {
	blocked, goOn = make(chan struct{}), make(chan struct{})
	return func(e subnet.Event) {
		named := func(r subnet.Record) bool { return r.Name == name }
		if e.Type == subnet.Changed && slices.ContainsFunc(e.Put, named) {
			close(blocked)
			<-goOn
		}
	}, blocked, goOn
}

func harmCases() []testCase {
	return []testCase{
		{"a store that was wiped and rewritten before the watcher looked is another", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			before, blocked, goOn := stopAt(c.name(1))
			w := Watch(t, c.Open(t), before)
			w.Synced(1)
			c.put(t, 1, "")
			<-blocked
			c.Harm.Wipe(t)
			c.Write(t, "config", "{}")
			for range 10 {
				c.put(t, 2, "")
			}
			close(goOn)
			state := w.Synced(2)
			if got := state.Names(); !slices.Equal(got, c.names(2)) {
				t.Errorf("there is %q", got)
			}
			regressed(t, state, 1)
		}},
		{"so is one that was compacted as well", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			c.Write(t, "config", `{"Network":"10.5.0.0/16"}`)
			before, blocked, goOn := stopAt(c.name(1))
			w := Watch(t, c.Open(t), before)
			w.Synced(1)
			c.put(t, 1, "")
			<-blocked
			c.Harm.Wipe(t)
			c.Write(t, "config", "{}")
			for range 10 {
				c.put(t, 2, "")
			}
			c.Harm.Compact(t)
			close(goOn)
			regressed(t, w.Synced(2), 1)
		}},
		{"a compaction alone is not another history", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			before, blocked, goOn := stopAt(c.name(1))
			w := Watch(t, c.Open(t), before)
			w.Synced(1)
			c.put(t, 1, "")
			<-blocked
			c.Harm.Restart(t) // what comes now does not reach the watcher any more
			c.put(t, 2, "")
			c.Write(t, "config", `{"Network":"10.5.0.0/16"}`)
			c.drop(t, 1)
			c.put(t, 1, "again")
			c.Harm.Compact(t)
			close(goOn)
			state := w.Synced(2)
			if got := state.Names(); !slices.Equal(got, c.names(1, 2)) {
				t.Errorf("there is %q", got)
			}
			regressed(t, state, 0)
		}},
		{"after another history, a compaction is none again", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			before, blocked, goOn := stopAt(c.name(1))
			w := Watch(t, c.Open(t), before)
			w.Synced(1)
			c.Harm.Wipe(t)
			regressed(t, w.Synced(2), 1)
			c.put(t, 1, "")
			<-blocked
			c.Harm.Restart(t)
			c.put(t, 2, "")
			c.Harm.Compact(t)
			close(goOn)
			regressed(t, w.Synced(3), 1)
		}},
	}
}

// harmAllocatedCases are harmHeldCases for a store that allocates.
func harmAllocatedCases() []testCase {
	return []testCase{
		{"a restart changes nothing", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			c.put(t, 1, "")
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			c.Harm.Restart(t)
			c.put(t, 9, "")
			state := w.There(c.name(9))
			if state.Synced != 1 {
				t.Errorf("%d snapshots", state.Synced)
			}
			regressed(t, state, 0)
		}},
		{"a store that is wiped or restored is another", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			c.put(t, 1, "")
			w := Watch(t, c.Open(t), nil)
			w.Synced(1)
			restore := c.Harm.Backup(t)
			c.put(t, 9, "")
			w.There(c.name(9))
			restore(t)
			state := w.Synced(2)
			if got := state.Names(); !slices.Equal(got, c.names(1)) {
				t.Errorf("there is %q", got)
			}
			regressed(t, state, 1)
			c.Harm.Wipe(t)
			state = w.Synced(3)
			if len(state.Leases) > 0 || state.Config != nil {
				t.Errorf("there is %q, config %q", state.Names(), state.Config)
			}
			regressed(t, state, 2)
		}},
	}
}

// harmHeldCases are about leases that are held meanwhile.
func harmHeldCases() []testCase {
	return []testCase{
		{"a restart is nothing to speak of", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			hold(t, s, r)
			w.Reached(r.Version)
			c.Harm.Restart(t)
			c.put(t, 9, "")
			state := w.There(c.name(9))
			if state.Synced != 1 {
				t.Errorf("%d snapshots", state.Synced)
			}
			regressed(t, state, 0)
		}},
		{"a wiped store counts as another", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			regressed(t, w.Reached(r.Version), 0)
			c.Harm.Wipe(t)
			state := w.Synced(2)
			if len(state.Leases) > 0 || state.Config != nil {
				t.Errorf("there is %q, config %q", state.Names(), state.Config)
			}
			regressed(t, state, 1)
			h.end(subnet.ErrLost)
			c.Write(t, "config", "{}")
			again := claim(t, s, nil, single(1, "a"))
			state = w.Reached(again.Version)
			same(t, state.Leases[again.Name], again)
			regressed(t, state, 1)
		}},
		{"a restored store counts as another", func(t *testing.T, c Cluster) {
			c.Write(t, "config", "{}")
			s := c.Open(t)
			w := Watch(t, s, nil)
			r := claim(t, s, nil, single(1, "a"))
			h := hold(t, s, r)
			w.Reached(r.Version)
			restore := c.Harm.Backup(t)
			c.put(t, 9, "")
			w.There(c.name(9))
			restore(t)
			state := w.Synced(2)
			if got := state.Names(); !slices.Equal(got, []string{r.Name}) {
				t.Errorf("there is %q", got)
			}
			regressed(t, state, 1)
			// What is in the backup is still held.
			for _, name := range []string{"b", "c"} {
				h.change(single(1, name))
				regressed(t, until(w, single(1, name)), 1)
			}
		}},
	}
}
