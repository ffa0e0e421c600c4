package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"
)

// TestExchange: an answer that is late is an answer; one that is missing while that to a later datagram is there is loss.
func TestExchange(t *testing.T) {
	for name, test := range map[string]struct {
		drops, holds bool // the first datagram
		want         error
	}{
		"at once": {}, "late": {holds: true}, "lost": {drops: true, want: errLost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			go func() {
				var held []byte
				for packet := make([]byte, 64); ; {
					n, from, err := server.ReadFromUDPAddrPort(packet)
					if err != nil {
						return
					}
					answer := append(packet[:n:n], "127.0.0.1"...)
					first := binary.BigEndian.Uint64(packet)&later == 0
					switch {
					case first && test.holds:
						held = answer
						continue
					case first && test.drops:
						continue
					case held != nil:
						server.WriteToUDPAddrPort(held, from)
					}
					server.WriteToUDPAddrPort(answer, from)
				}
			}()
			conn, err := net.Dial("udp", server.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			seen, err := exchange(conn, make([]byte, numberSize), 1, time.Now().Add(TestPatience))
			if !errors.Is(err, test.want) || err == nil && !seen.IsLoopback() {
				t.Errorf("%s, %v, want %v", seen, err, test.want)
			}
		})
	}
}
