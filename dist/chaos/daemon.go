package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

func daemonFaults() []Fault {
	return []Fault{
		{Name: "daemon killed, started again", Class: Daemon, Unbroken: true, NoLoss: true, Running: true,
			Inject: func(ctx context.Context, t *target) error { return t.restartKilled(ctx) }},
		{Name: "tables flushed, daemon killed in the middle of its repair", Class: Daemon, Running: true,
			Inject: func(ctx context.Context, t *target) error {
				err := onDevice(tables.flush)(ctx, t)
				return errors.Join(err, t.restartKilled(ctx))
			}},
		{Name: "device deleted, daemon killed in the middle of its repair", Class: Daemon, Running: true,
			Inject: func(ctx context.Context, t *target) error {
				err := onDevice(func(d tables) error { return d.nl.LinkDel(d.link) })(ctx, t)
				return errors.Join(err, t.restartKilled(ctx))
			}},
		{Name: "binary upgraded, daemon restarted", Class: Daemon, Unbroken: true, NoLoss: true, Running: true,
			Inject: func(ctx context.Context, t *target) error {
				if err := t.Stop(ctx); err != nil {
					return err
				}
				return errors.Join(t.suite.upgrade(), t.Start(), t.WaitReady(ctx))
			}},
		{Name: "daemon stopped for long while what can age ages", Class: Daemon, Unbroken: true, NoLoss: true, Running: true, Long: true,
			Inject: func(ctx context.Context, t *target) error {
				return errors.Join(t.ageQuickly(), t.Stop(ctx))
			},
			Meanwhile: func(ctx context.Context, t *target) error {
				pause(ctx, t.suite.options.Stopped)
				return nil
			},
			Undo: func(ctx context.Context, t *target) error { return errors.Join(t.Start(), t.WaitReady(ctx)) }},
		{Name: "notifications lost, and what was told in them", Class: Entries, Running: true, Bound: 2 * time.Second,
			Inject: func(_ context.Context, t *target) error { return t.overrun() },
			After: func(ctx context.Context, t *target) error {
				s, err := t.Status(ctx)
				if err == nil && s.Overruns == 0 {
					err = fmt.Errorf("%s: the status counts no lost notification", t.Name())
				}
				return err
			}},
		{Name: "route deleted every millisecond", Class: Entries, Running: true, Long: true, Bound: time.Second,
			Inject: func(_ context.Context, t *target) error { return t.fight() }, Undo: func(context.Context, *target) error { return nil },
			// Who was fought keeps its pauses for a while: the next fault is not to be measured against those.
			After: func(ctx context.Context, t *target) error {
				pause(ctx, min(2*t.suite.options.Conflict, 5*time.Second))
				return nil
			}},
	}
}

func (t *target) restartKilled(ctx context.Context) error {
	t.Kill()
	return errors.Join(t.Start(), t.WaitReady(ctx))
}

// ageQuickly has the kernel drop neighbours of the overlay's device after a second of not being used, were they not
// permanent. The values go with the device.
func (t *target) ageQuickly() error {
	return t.eachFamily(func(f subnet.Family) error {
		dir := settings(f) + "neigh/" + deviceOf(f) + "/"
		return errors.Join(t.write(dir+"base_reachable_time_ms", "500"), t.write(dir+"gc_stale_time", "1"))
	})
}

// overrun floods the daemon's notification sockets while it is held, then breaks what it cannot be told of any more.
func (t *target) overrun() error {
	before, err := t.drops()
	if err != nil {
		return err
	}
	docker, err := t.nl.LinkByName("docker0")
	if err != nil {
		return err
	}
	e := &netlink.Neigh{LinkIndex: docker.Attrs().Index, Family: unix.AF_INET, State: unix.NUD_PERMANENT,
		HardwareAddr: macOf(nowhere(), subnet.IPv4), IP: net.IPv4(172, 17, 0, 200)}
	return t.paused(func() error {
		// 8 MiB asked for are 16 in effect, and a notification takes about 1 KiB of them.
		for told := 0; ; told++ {
			if told == 200_000 {
				return fmt.Errorf("%s: 200,000 notifications fit into the daemon's socket", t.Name())
			}
			if err := errors.Join(t.nl.NeighSet(e), t.nl.NeighDel(e)); err != nil {
				return err
			}
			if told%500 != 0 {
				continue
			}
			if now, err := t.drops(); err != nil {
				return err
			} else if now > before {
				break
			}
		}
		t.counts()
		return t.eachFamily(func(f subnet.Family) error {
			on, err := t.tables(f)
			if err != nil {
				return err
			}
			return on.flush()
		})
	})
}

// fight deletes a route of each family every millisecond, however often it comes back.
func (t *target) fight() error {
	start := time.Now()
	before, _, err := t.times()
	if err != nil {
		return err
	}
	deleted := 0
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for time.Since(start) < t.suite.options.Conflict {
		<-ticker.C
		for _, f := range t.families {
			switch err := t.nl.RouteDel(&netlink.Route{Dst: ipNet(t.peer.Endpoints[f].Subnet)}); {
			case err == nil:
				deleted++
			case !errors.Is(err, unix.ESRCH):
				return err
			}
		}
	}
	after, _, err := t.times()
	if err != nil {
		return err
	}
	used := (after - before).Seconds() / time.Since(start).Seconds()
	t.remarks = append(t.remarks, fmt.Sprintf("deleted %d times, daemon used %.1f %% of a core", deleted, 100*used))
	if used > 0.1 {
		t.late = append(t.late, "the daemon used more than 10 % of a core")
	}
	return nil
}

// upgrade puts another daemon in the place of the one there is, as a package manager does: a new file, renamed. The new
// one does the same as the old, but is another file with another content.
func (s *Suite) upgrade() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.daemonPath()
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("upgrade the daemon: %w", err)
	}
	s.version++
	fresh := append(bytes.Clone(old), byte('0'+s.version%10)) // behind an ELF file anything may stand
	if err := errors.Join(os.WriteFile(path+".new", fresh, 0o755), os.Rename(path+".new", path)); err != nil {
		return fmt.Errorf("upgrade the daemon: %w", err)
	}
	return nil
}
