package enforce

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/policy"
)

// TestRelated: an ICMP error about a packet that is allowed reaches its sender, although no policy allows the one to
// send it, or the other to receive it.
func TestRelated(t *testing.T) {
	const client, server, closed = 20, 21, 80
	l := newLab(t)
	from := l.realPod(client)
	l.realPod(server)
	e, _ := start(t, Options{})
	apply(t, e, func(objects policy.Objects) {
		objects.SetNamespace(policy.Namespace{Name: "red"})
		objects.SetPod(podAt(client, "client"))
		objects.SetPod(podAt(server, "server"))
		objects.SetPolicy(decode(t, "deny", denyAll))
		objects.SetPolicy(decode(t, "client", `{"podSelector": {"matchLabels": {"app": "client"}},
			"policyTypes": ["Egress"], "egress": [{"ports": [{"protocol": "UDP", "port": 80}]}]}`))
		objects.SetPolicy(decode(t, "server", `{"podSelector": {"matchLabels": {"app": "server"}},
			"policyTypes": ["Ingress"], "ingress": [{"ports": [{"protocol": "UDP", "port": 80}]}]}`))
	})
	for _, six := range []bool{false, true} {
		l.must(from.Do(func() error {
			to := netip.AddrPortFrom(podAddress(server, six), closed)
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				return err
			}
			defer c.Close()
			// A kernel does not send an error for every packet (icmp_ratelimit).
			for limit := time.Now().Add(patient); time.Now().Before(limit); {
				if _, err = c.Write([]byte{0}); err == nil {
					err = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				}
				if err == nil {
					_, err = c.Read([]byte{0})
				}
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
			}
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a packet to a closed port of %s ended with %v", to, err)
			}
			return nil
		}))
	}
}
