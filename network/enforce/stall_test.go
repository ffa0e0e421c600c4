package enforce

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/policy"
)

// TestNoStall: a TCP connection goes on that transferred more than its window while packets between pods were not
// tracked.
func TestNoStall(t *testing.T) {
	l := newLab(t)
	server, client := l.realPod(20), l.realPod(21)
	e, _ := start(t, Options{})
	set := webAndClient(t)
	apply(t, e, func(to policy.Objects) {
		set(to)
		to.SetPod(podAt(20, "web"))
		to.SetPod(podAt(21, "client"))
	})
	address := netip.AddrPortFrom(podAddress(20, false), 80).String()
	var listener net.Listener
	var from, to net.Conn
	l.must(server.Do(func() (err error) { listener, err = net.Listen("tcp4", address); return err }))
	defer listener.Close()
	l.must(client.Do(func() (err error) {
		from, err = net.DialTimeout("tcp4", address, patient)
		return err
	}))
	defer from.Close()
	to, err := listener.Accept()
	l.must(err)
	defer to.Close()
	limit := time.Now().Add(patient)
	l.must(from.SetDeadline(limit))
	l.must(to.SetDeadline(limit))
	transfer := func(what string, size int64) {
		t.Helper()
		sent := make(chan error, 1)
		go func() { _, err := from.Write(make([]byte, size)); sent <- err }()
		if n, err := io.CopyN(io.Discard, to, size); err != nil {
			t.Errorf("%s: %d of %d bytes arrived: %v", what, n, size, err)
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	bridged := func(value string) { l.must(write(map[string]string{"bridge/bridge-nf-call-iptables": value})) }
	transfer("tracked", 1<<20)
	bridged("0")
	transfer("not tracked", 64<<20)
	bridged("1")
	e.Bypassed()
	transfer("tracked again", 1<<20)
}
