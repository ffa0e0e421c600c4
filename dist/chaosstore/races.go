package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// scarce is a scene with a subnet for each of the nodes, and one more.
func scarce() Scene {
	return Scene{Members: 1, Narrow: true}
}

// races are faults in which nodes want the same.
func races() []Fault {
	return slices.Concat(
		everywhere(Fault{Name: "daemon told the public IP of another node", Pairs: [][2]int{{0, 2}, {2, 0}}, Do: func(ctx context.Context, r *run) error {
			h, other := r.hosts[1], r.hosts[0]
			h.Kill()
			size := h.logSize()
			var claimed []string
			for _, f := range r.options.Families {
				claimed = append(claimed, fmt.Sprintf("--public-ip%s=%s", [...]string{"", "v6"}[f], other.Addr(f)))
			}
			if err := h.start(claimed...); err != nil {
				return err
			}
			for until := time.Now().Add(r.options.lasting(15*time.Second, 5*time.Second)); time.Now().Before(until); pause(ctx, 50*time.Millisecond) {
				if now, err := r.subnets(ctx); err != nil {
					return err
				} else if now[other.Name()] != r.before[other.Name()] {
					r.wrong("%s has %s, and had %s before %s had its public IP", other.Name(), now[other.Name()], r.before[other.Name()], h.Name())
					break
				}
			}
			if lines := h.logSince(size); !strings.Contains(strings.Join(lines, "\n"), other.Addr(r.options.Families[0]).String()) {
				r.wrong("%s says nothing of it", h.Name())
			}
			return h.restart(ctx)
		}}, single()),
		everywhere(Fault{Name: "two nodes with one subnet file", Moves: true, Spoils: true, Pairs: [][2]int{}, Do: func(ctx context.Context, r *run) error {
			file, err := r.hosts[0].subnetFile()
			if err != nil {
				return err
			}
			for i, h := range r.hosts[:2] {
				h.Kill()
				if err := r.store.delete(ctx, "subnets/"+keyOf(r, i)); err != nil {
					return err
				}
			}
			err = r.hosts[1].Do(func() error { return subnetfile.Write("/run/flannel/subnet.env", file) })
			return errors.Join(err, r.hosts[0].start(), r.hosts[1].start())
		}, Check: func(ctx context.Context, r *run) error {
			now, err := r.subnets(ctx)
			if wanted := r.before[r.hosts[0].Name()]; err == nil && now[r.hosts[0].Name()] != wanted && now[r.hosts[1].Name()] != wanted {
				r.wrong("nobody has %s of the file: %v", wanted, now)
			}
			return err
		}}, single()),
		everywhere(Fault{Name: "no subnet left, one given back", Pairs: [][2]int{{0, 1}, {1, 0}}, Do: func(ctx context.Context, r *run) error {
			h := r.hosts[2]
			h.Kill()
			if err := r.store.delete(ctx, "subnets/"+keyOf(r, 2)); err != nil {
				return err
			}
			if err := errors.Join(r.write(ctx, intruder(r, 2)), r.write(ctx, spare(r))); err != nil {
				return err
			}
			size := h.logSize()
			if err := h.start(); err != nil {
				return err
			}
			err := insist(ctx, "hear that there is no subnet left", func(context.Context) error {
				if text := strings.Join(h.logSince(size), "\n"); !strings.Contains(text, "no free subnet") {
					return fmt.Errorf("it says:\n%s", text)
				}
				return nil
			})
			if err != nil {
				r.wrong("%v", err)
			}
			r.rest(ctx, 5*time.Second, 0)
			return r.store.delete(ctx, "subnets/"+keyOf(r, 2))
		}, After: func(ctx context.Context, r *run) error { return r.store.delete(ctx, "subnets/"+spare(r).Key()) },
		}, scarce()),
	)
}

// spare is the lease of a node that does not exist on the one subnet of a scarce scene that nobody has.
func spare(r *run) subnet.Lease {
	var free subnets
	for n := narrow().max; n >= narrow().min; n-- {
		for f, p := range number(r.options.Families, n) {
			if !p.IsValid() {
				continue
			}
			// A node's subnets of the two families need not have the same number.
			taken := false
			for _, s := range r.before {
				taken = taken || s[f] == p
			}
			if !taken {
				free[f] = p
			}
		}
	}
	return strange("spare", free, 61)
}
