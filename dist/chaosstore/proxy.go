package chaosstore

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy passes connections on, and can make answers late.
type proxy struct {
	addr, target string
	delay        atomic.Int64 // of what target says, in nanoseconds

	mu       sync.Mutex
	listener net.Listener // nil: down
	conns    map[net.Conn]struct{}
	running  sync.WaitGroup
}

func newProxy(addr, target string) *proxy {
	return &proxy{addr: addr, target: target, conns: map[net.Conn]struct{}{}}
}

// up has connections taken. Up already, it does nothing.
func (p *proxy) up() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("proxy for %s: %w", p.target, err)
	}
	p.listener = l
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.running.Go(func() { p.pass(c) })
		}
	})
	return nil
}

// down ends all connections and has others refused, as when nothing listens.
func (p *proxy) down() {
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// keep notes a connection; it reports whether the proxy is still up.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

// pass connects c with the target until one of them ends.
func (p *proxy) pass(c net.Conn) {
	if !p.keep(c) {
		return
	}
	defer p.drop(c)
	to, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil || !p.keep(to) {
		return
	}
	defer p.drop(to)
	var none atomic.Int64
	var both sync.WaitGroup
	for _, way := range []struct {
		from, to net.Conn
		delay    *atomic.Int64
	}{{c, to, &none}, {to, c, &p.delay}} {
		both.Go(func() {
			pump(way.from, way.to, way.delay)
			way.from.Close()
			way.to.Close()
		})
	}
	both.Wait()
}

// late is something that was read, and when it may be written.
type late struct {
	data []byte
	at   time.Time
}

// pump copies, each part as late as delay says when it comes.
func pump(from, to net.Conn, delay *atomic.Int64) {
	queue := make(chan late, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for part := range queue {
			time.Sleep(time.Until(part.at))
			if _, err := to.Write(part.data); err != nil {
				from.Close() // ends the reader
			}
		}
	})
	defer writing.Wait()
	defer close(queue)
	for {
		buffer := make([]byte, 16<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			queue <- late{buffer[:n], time.Now().Add(time.Duration(delay.Load()))}
		}
		if err != nil {
			return
		}
	}
}
