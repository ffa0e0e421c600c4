package probe

import (
	"context"
	"slices"
	"time"
)

// Probe sends the first requests to all targets. It calls done after each target. Targets left when ctx ends are not
// probed.
func (p *Prober) Probe(ctx context.Context, targets []Target, done func()) []Path {
	paths := make([]Path, len(targets))
	for i, t := range targets {
		paths[i].Target = t
	}
	forEach(ctx, paths, func(path *Path) {
		p.probePath(ctx, path)
		path.Probed = ctx.Err() == nil
	}, done)
	return paths
}

// probePath sends all requests of a path at the same time. If the overlay answers, it waits for the underlay only
// briefly: a router that reports packet too big has done so by then, and one that filters ICMP will not answer at all.
func (p *Prober) probePath(ctx context.Context, path *Path) {
	t := path.Target
	underlay, cancel := context.WithCancel(ctx)
	defer cancel()
	parallel(
		func() {
			parallel(
				func() { path.Overlay = p.ping(ctx, pingOptions{to: t.Overlay, oneHop: t.NoDevice}) },
				func() {
					path.OverlayFull = p.ping(ctx, pingOptions{to: t.Overlay, oneHop: t.NoDevice, size: t.FullSize})
				},
			)
			if path.Works() {
				time.AfterFunc(retryInterval, cancel)
			}
		},
		func() { path.Underlay = p.ping(underlay, pingOptions{to: t.Underlay}) },
		func() {
			path.UnderlayFull = p.ping(underlay, pingOptions{to: t.Underlay, size: t.FullSize + t.Overhead})
		},
	)
}

// ProbeDetail repeats the requests on the paths that do not work, and fills in their Detail. It calls done after each
// path.
func (p *Prober) ProbeDetail(ctx context.Context, paths []Path, done func()) error {
	s, err := newSniffer(p.options.Port, p.id)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	captured := make(chan error, 1)
	p.mu.Lock()
	p.captures = map[echoKey][]capture{}
	p.mu.Unlock()
	go func() { captured <- s.run(watching, p.addCapture) }()
	forEach(ctx, paths, func(path *Path) {
		if path.Probed && !path.Works() {
			path.Detail = &Detail{}
			p.probePathDetail(ctx, path)
		}
	}, done)
	time.Sleep(captureDelay)
	stop()
	err = <-captured
	for i := range paths {
		if a := paths[i].Detail; a != nil {
			for _, e := range []*Echo{&paths[i].Overlay, &paths[i].OverlayFull, &a.OneHop, &a.OneHopFull, &a.Outbound} {
				p.mergeCaptures(paths[i].Family, e)
			}
		}
	}
	p.mu.Lock()
	p.captures = nil
	p.mu.Unlock()
	return err
}

// captureDelay is how long the packet socket may lag behind the raw sockets.
const captureDelay = 20 * time.Millisecond

func (p *Prober) addCapture(s capture) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := echoKey{s.family, s.seq}
	if !slices.Contains(p.captures[q], s) {
		p.captures[q] = append(p.captures[q], s)
	}
}

func (p *Prober) probePathDetail(ctx context.Context, path *Path) {
	t, a := path.Target, path.Detail
	pings := []func(){
		func() { path.Overlay = p.ping(ctx, pingOptions{to: t.Overlay, oneHop: t.NoDevice}) },
		func() {
			path.OverlayFull = p.ping(ctx, pingOptions{to: t.Overlay, oneHop: t.NoDevice, size: t.FullSize})
		},
		func() { a.OneHop = p.ping(ctx, pingOptions{to: t.addressBehind(), oneHop: true}) },
		func() { a.OneHopFull = p.ping(ctx, pingOptions{to: t.addressBehind(), oneHop: true, size: t.FullSize}) },
	}
	if t.Tunnel {
		pings = append(pings, func() {
			send, end, err := p.outbound(t)
			if err != nil {
				a.Outbound.SendError = rootCause(err)
				return
			}
			defer end()
			a.Outbound = p.ping(ctx, pingOptions{to: t.Overlay, send: send})
		})
	}
	parallel(pings...)
	if path.Overlay.Answered && !path.OverlayFull.Answered {
		w := pingOptions{to: t.Overlay}
		if t.NoDevice { // time exceeded is rate limited to a few a second (icmp_ratelimit), echo replies are not
			w.to = t.Underlay
		}
		a.MaxSize = p.findMaxSize(ctx, w, path.Overlay.Size, t.FullSize)
	}
	p.mu.Lock()
	a.Tunnel = p.tunnelErrors[t.Underlay]
	p.mu.Unlock()
}

// sizesAtOnce is how many sizes are tried at the same time.
const sizesAtOnce = 12

// findMaxSize returns the largest size that is answered, between one that is and one that is not. It takes as long as
// three requests without an answer.
func (p *Prober) findMaxSize(ctx context.Context, w pingOptions, fits, tooLarge int) int {
	for tooLarge-fits > 1 && ctx.Err() == nil {
		sizes := between(fits, tooLarge, sizesAtOnce)
		answered := make([]bool, len(sizes))
		var all []func()
		for i, size := range sizes {
			all = append(all, func() {
				w := w
				w.size = size
				answered[i] = p.ping(ctx, w).Answered
			})
		}
		parallel(all...)
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

// between returns at most n numbers between low and high that divide the range into equal parts.
func between(low, high, n int) (all []int) {
	for i := 1; i <= n; i++ {
		if x := low + (high-low)*i/(n+1); x > low && x < high && !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}
