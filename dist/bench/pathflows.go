package bench

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// grid is a number of sockets of UDP at each end of a way. Each pair of them is a flow.
type grid struct {
	near, far []int
	to, back  []unix.Sockaddr // of far, and of near
}

func (g *grid) close() {
	for _, fd := range append(g.near, g.far...) {
		unix.Close(fd)
	}
}

// newGrid makes sockets at ports of the kernel's choice, without SO_REUSEADDR: with it, two can get the same port.
func newGrid(w way, near, far int) (g *grid, err error) {
	g = &grid{}
	add := func(e end, count int, sockets *[]int, addresses *[]unix.Sockaddr) error {
		for range count {
			fd, err := e.socket("udp")
			if err != nil {
				return err
			}
			*sockets = append(*sockets, fd)
			a, err := unix.Getsockname(fd)
			if err != nil {
				return err
			}
			*addresses = append(*addresses, a)
		}
		return nil
	}
	if err = add(w.from, near, &g.near, &g.back); err == nil {
		err = add(w.to, far, &g.far, &g.to)
	}
	if err != nil {
		g.close()
		return nil, fmt.Errorf("%s: %w", w.name, err)
	}
	return g, nil
}

// exchange sends datagrams there and back on a flow.
func (g *grid) exchange(flow, times int) error {
	var message [messageSize]byte
	near, far := flow/len(g.far), flow%len(g.far)
	for range times {
		if err := unix.Sendto(g.near[near], message[:], 0, g.to[far]); err != nil {
			return err
		}
		if err := readAll(g.far[far], message[:]); err != nil {
			return fmt.Errorf("there: %w", err)
		}
		if err := unix.Sendto(g.far[far], message[:], 0, g.back[near]); err != nil {
			return err
		}
		if err := readAll(g.near[near], message[:]); err != nil {
			return fmt.Errorf("back: %w", err)
		}
	}
	return nil
}

// grids begins near × far flows on each way, and then sends bursts on one after the other.
func grids(ways []way, near, far int, d time.Duration) ([][]float64, error) {
	all := make([]*grid, len(ways))
	for i, w := range ways {
		g, err := newGrid(w, near, far)
		if err != nil {
			return nil, err
		}
		defer g.close()
		all[i] = g
	}
	for i, w := range ways {
		for flow := range near * far {
			if err := all[i].exchange(flow, 1); err != nil {
				return nil, fmt.Errorf("%s: flow %d: %w", w.name, flow, err)
			}
		}
	}
	next := make([]int, len(ways))
	const stride = 7919 // a prime number, so that all flows have their turn
	return inTurn(ways, d, warmUp, func(i int) error {
		next[i] = (next[i] + stride) % (near * far)
		return all[i].exchange(next[i], burst)
	})
}
