package enforce

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/nft"
)

// keeper keeps one table in sync, or absent. It watches the table in both cases: a ruleset that is loaded from a file
// can have a table as it was once. Its methods are for one goroutine.
type keeper struct {
	name   string
	table  *nft.Table
	mirror *nft.Mirror
	log    logrus.FieldLogger
	broken chan<- struct{} // gets a value when another process has changed the table
	absent bool            // the table is known not to exist
	// external: another process has changed the table since it was brought in sync.
	external atomic.Bool
	stop     func() // ends the watch; nil: it does not run
}

func (e *Engine) keeper(family nftables.TableFamily, name string) *keeper {
	name = e.options.Scope.Name(name)
	t := e.conn.TableIn(family, name)
	log := e.options.Log.WithField("table", name)
	return &keeper{name: name, table: t, mirror: t.Mirror(), log: log, broken: e.broken}
}

// ensure brings the table in sync; nil is absent. It reports whether it changed anything, and whether another process
// had changed the table.
func (k *keeper) ensure(ctx context.Context, want *nft.Content) (changed, external bool, err error) {
	k.watch(ctx)
	external = k.external.Swap(false)
	if want != nil {
		k.absent = false
		changed, err = k.mirror.Ensure(*want)
	} else if external || !k.absent {
		k.absent = false
		changed, err = k.remove()
	}
	if err != nil && external {
		k.external.Store(true)
	}
	return changed, external, err
}

// remove removes the table, and reports whether there was one.
func (k *keeper) remove() (existed bool, err error) {
	existed, _, err = k.table.Check(nft.Content{})
	if err == nil && existed {
		err = k.table.Remove()
	}
	if err != nil {
		return false, fmt.Errorf("remove the table %s: %w", k.name, err)
	}
	k.absent = true
	k.mirror.Resync()
	return existed, nil
}

// resync makes the next ensure read everything.
func (k *keeper) resync() {
	k.absent = false
	k.mirror.Resync()
}

// watch starts the watch, and returns when it misses nothing, or has failed. While it fails, the mirror reads
// everything each time.
func (k *keeper) watch(ctx context.Context) {
	if k.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	started, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for logged := false; ctx.Err() == nil; {
			err := k.mirror.Watch(ctx, func() { notify(started) }, func() {
				k.external.Store(true)
				notify(k.broken)
			})
			notify(started)
			if err != nil && !logged {
				logged = true
				k.log.WithError(err).Warn("cannot watch the table: changes to it are noticed at a resync only")
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	select {
	case <-started:
	case <-done: // ctx has ended
	}
	k.stop = func() { cancel(); <-done }
}

// close ends the watch.
func (k *keeper) close() {
	if k.stop != nil {
		k.stop()
		k.stop = nil
	}
}
