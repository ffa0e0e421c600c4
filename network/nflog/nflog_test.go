package nflog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/sandbox/sandboxtest"
	"github.com/selvage-net/selvage/network/nft"
)

const (
	group   = 7
	patient = 2 * time.Minute // the limit of any wait
)

// newNet makes a network namespace that logs and drops all UDP packets that leave it.
func newNet(t *testing.T) *sandbox.Net {
	t.Helper()
	ns := sandboxtest.NewNet(t)
	do(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	do(t, ns, func() error {
		table, err := nft.Open("selvage-test")
		if err != nil {
			return err
		}
		_, err = table.Ensure(nft.Content{Chains: []nft.Chain{{
			Name: "output", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput,
			Priority: nftables.ChainPriorityFilter,
			Rules: []nft.Rule{{Comment: "log", Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}, nft.Equals(unix.IPPROTO_UDP),
				&expr.Log{
					Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX,
					Group: group, Data: []byte("default/deny egress"),
				},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}}},
		}}}, nil)
		return errors.Join(err, table.Close())
	})
	return ns
}

func do(t *testing.T, ns *sandbox.Net, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

// read runs Read until the test ends.
func read(t *testing.T, ns *sandbox.Net, lost func(), handle func(Packet)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- ns.Do(func() error { return Read(ctx, group, func() { close(ready) }, lost, handle) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
}

// send sends UDP packets, and returns the source.
func send(t *testing.T, ns *sandbox.Net, to string, count int) (from netip.AddrPort) {
	t.Helper()
	do(t, ns, func() error {
		conn, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		for range count {
			_, _ = conn.Write(make([]byte, 1000)) // EPERM: it is dropped
		}
		from = netip.MustParseAddrPort(conn.LocalAddr().String())
		return nil
	})
	return from
}

// TestRead logs packets of both families.
func TestRead(t *testing.T) {
	ns := newNet(t)
	packets := make(chan Packet, 100)
	read(t, ns, func() { t.Error("something was lost") }, func(p Packet) { packets <- p })
	for _, to := range []string{"127.0.0.1:53", "[::1]:53"} {
		from := send(t, ns, to, 1)
		want := Packet{
			Prefix: "default/deny egress", Out: 1, Protocol: unix.IPPROTO_UDP,
			Source: from, Destination: netip.MustParseAddrPort(to),
		}
		select {
		case got := <-packets:
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		case <-time.After(patient):
			t.Fatal("nothing is received")
		}
	}
}

// TestBusy has two readers of one group.
func TestBusy(t *testing.T) {
	ns := newNet(t)
	read(t, ns, func() {}, func(Packet) {})
	err := ns.Do(func() error { return Read(t.Context(), group, func() {}, func() {}, func(Packet) {}) })
	if !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

// TestOverrun has more logged than the socket holds while nobody takes any in, and a packet after that.
func TestOverrun(t *testing.T) {
	ns := newNet(t)
	held, lost, last := make(chan struct{}), make(chan struct{}, 1000), make(chan struct{}, 1000)
	read(t, ns, func() { lost <- struct{}{} }, func(p Packet) {
		<-held
		if p.Destination.Port() == 54 {
			select {
			case last <- struct{}{}:
			default:
			}
		}
	})
	send(t, ns, "127.0.0.1:53", 20000)
	close(held)
	select {
	case <-lost:
	case <-time.After(patient):
		t.Fatal("the socket did not overrun, or it is not noticed")
	}
	// Until the socket's buffer is empty, the kernel drops what else is logged.
	for end := time.After(patient); ; {
		send(t, ns, "127.0.0.1:54", 1)
		select {
		case <-last:
			return
		case <-end:
			t.Fatal("nothing is received after the socket overran")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestDecodeIP(t *testing.T) {
	four := func(change func(b []byte)) []byte {
		b := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 5, 0, 1, 10, 5, 0, 2}, 0, 53, 1, 0, 0, 8, 0, 0)
		change(b)
		return b
	}
	six := func(next byte, payload ...byte) []byte {
		b := make([]byte, 40, 100)
		b[0], b[6], b[8], b[23], b[24], b[39] = 0x60, next, 0xfd, 1, 0xfd, 2
		return append(b, payload...)
	}
	udp := []byte{0, 53, 1, 0, 0, 8, 0, 0}
	for _, tt := range []struct {
		name string
		b    []byte
		want string // protocol, source, destination
	}{
		{"UDP", four(func([]byte) {}), "17 10.5.0.1:53 10.5.0.2:256"},
		{"a later fragment", four(func(b []byte) { b[7] = 9 }), "17 10.5.0.1:0 10.5.0.2:0"},
		{"ICMP", four(func(b []byte) { b[9] = 1 }), "1 10.5.0.1:0 10.5.0.2:0"},
		{"options", append(four(func(b []byte) { b[0] = 0x46 })[:20:20], append([]byte{1, 1, 1, 1}, udp...)...),
			"17 10.5.0.1:53 10.5.0.2:256"},
		{"cut off", four(func([]byte) {})[:22], "17 10.5.0.1:0 10.5.0.2:0"},
		{"cut off in the header", four(func([]byte) {})[:19], ""},
		{"another version", four(func(b []byte) { b[0] = 0x55 }), ""},
		{"nothing", nil, ""},
		{"UDP over IPv6", six(17, udp...), "17 [fd00::1]:53 [fd00::2]:256"},
		{"hop-by-hop options", six(0, append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, udp...)...),
			"17 [fd00::1]:53 [fd00::2]:256"},
		{"a first fragment", six(44, append([]byte{17, 0, 0, 1, 0, 0, 0, 0}, udp...)...),
			"17 [fd00::1]:53 [fd00::2]:256"},
		{"a later fragment of IPv6", six(44, append([]byte{17, 0, 0, 8, 0, 0, 0, 0}, udp...)...),
			"17 [fd00::1]:0 [fd00::2]:0"},
		{"an extension that is cut off", six(60, 17, 9, 0, 0, 0, 0, 0, 0), "17 [fd00::1]:0 [fd00::2]:0"},
	} {
		var p Packet
		got := ""
		if p.decodeIP(tt.b) {
			got = fmt.Sprintf("%d %s %s", p.Protocol, p.Source, p.Destination)
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzDecode takes any bytes for a message.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{44, 0, 9, 0, 0x60, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, message []byte) {
		decode(message)
		new(Packet).decodeIP(message)
	})
}
