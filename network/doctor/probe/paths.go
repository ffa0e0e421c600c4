package probe

import (
	"context"
	"slices"
	"time"
)

// Look asks what there is to ask of each target. done is called after each. Those for which ctx leaves no time are not probed.
func (p *Prober) Look(ctx context.Context, targets []Target, done func()) []Path {
	paths := make([]Path, len(targets))
	for i, t := range targets {
		paths[i].Target = t
	}
	each(ctx, paths, func(path *Path) {
		p.lookAt(ctx, path)
		path.Probed = ctx.Err() == nil
	}, done)
	return paths
}

// lookAt asks everything at once. Once the overlay has shown that it works, what the underlay answers matters little: a router
// that says that it takes no packets so large has said so by then, and who filters ICMP says nothing.
func (p *Prober) lookAt(ctx context.Context, path *Path) {
	t := path.Target
	underlay, cancel := context.WithCancel(ctx)
	defer cancel()
	together(
		func() {
			together(
				func() { path.Overlay = p.ask(ctx, way{to: t.Overlay, hop: t.NoDevice}) },
				func() { path.OverlayFull = p.ask(ctx, way{to: t.Overlay, hop: t.NoDevice, size: t.Full}) },
			)
			if path.Works() {
				time.AfterFunc(again, cancel)
			}
		},
		func() { path.Underlay = p.ask(underlay, way{to: t.Underlay}) },
		func() { path.UnderlayFull = p.ask(underlay, way{to: t.Underlay, size: t.Full + t.Overhead}) },
	)
}

// LookAgain asks again where something was not answered, and finds out more about it.
func (p *Prober) LookAgain(ctx context.Context, paths []Path, done func()) error {
	s, err := newSniffer(p.options.Port, p.id)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	heard := make(chan error, 1)
	p.mu.Lock()
	p.seen = map[question][]sighting{}
	p.mu.Unlock()
	go func() { heard <- s.hear(watching, p.saw) }()
	each(ctx, paths, func(path *Path) {
		if path.Probed && !path.Works() {
			path.Again = &Again{}
			p.lookAgainAt(ctx, path)
		}
	}, done)
	time.Sleep(sightingsTake)
	stop()
	err = <-heard
	for i := range paths {
		if a := paths[i].Again; a != nil {
			for _, e := range []*Echo{&paths[i].Overlay, &paths[i].OverlayFull, &a.Hop, &a.HopFull, &a.Outbound} {
				p.observed(paths[i].Family, e)
			}
		}
	}
	p.mu.Lock()
	p.seen = nil
	p.mu.Unlock()
	return err
}

// sightingsTake is how long the packet socket may be behind the others.
const sightingsTake = 20 * time.Millisecond

func (p *Prober) saw(s sighting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := question{s.family, s.seq}
	if !slices.Contains(p.seen[q], s) {
		p.seen[q] = append(p.seen[q], s)
	}
}

func (p *Prober) lookAgainAt(ctx context.Context, path *Path) {
	t, a := path.Target, path.Again
	questions := []func(){
		func() { path.Overlay = p.ask(ctx, way{to: t.Overlay, hop: t.NoDevice}) },
		func() { path.OverlayFull = p.ask(ctx, way{to: t.Overlay, hop: t.NoDevice, size: t.Full}) },
		func() { a.Hop = p.ask(ctx, way{to: t.behind(), hop: true}) },
		func() { a.HopFull = p.ask(ctx, way{to: t.behind(), hop: true, size: t.Full}) },
	}
	if t.Tunnel {
		questions = append(questions, func() {
			send, end, err := p.outbound(t)
			if err != nil {
				a.Outbound.Failed = cause(err)
				return
			}
			defer end()
			a.Outbound = p.ask(ctx, way{to: t.Overlay, send: send})
		})
	}
	together(questions...)
	if path.Overlay.Answered && !path.OverlayFull.Answered {
		w := way{to: t.Overlay}
		if t.NoDevice { // whoever says that a packet's hops are over says so a few times a second (icmp_ratelimit)
			w.to = t.Underlay
		}
		a.Fits = p.largest(ctx, w, path.Overlay.Size, t.Full)
	}
	p.mu.Lock()
	a.Tunnel = p.tunnels[t.Underlay]
	p.mu.Unlock()
}

// volley is how many sizes are tried at once.
const volley = 12

// largest finds the largest size that is answered, of those from one that is to one that is not. It takes as long as three
// answers that do not come.
func (p *Prober) largest(ctx context.Context, w way, fits, tooLarge int) int {
	for tooLarge-fits > 1 && ctx.Err() == nil {
		sizes := between(fits, tooLarge, volley)
		answered := make([]bool, len(sizes))
		var all []func()
		for i, size := range sizes {
			all = append(all, func() {
				w := w
				w.size = size
				answered[i] = p.ask(ctx, w).Answered
			})
		}
		together(all...)
		for i, size := range sizes {
			if answered[i] {
				fits = size
			}
		}
		for i, size := range slices.Backward(sizes) {
			if size > fits && !answered[i] {
				tooLarge = size
			}
		}
	}
	return fits
}

// between returns at most n numbers that part the range between two into equal pieces.
func between(low, high, n int) (all []int) {
	for i := 1; i <= n; i++ {
		if x := low + (high-low)*i/(n+1); x > low && x < high && !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}
