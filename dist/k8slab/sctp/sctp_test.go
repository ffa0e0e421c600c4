package sctp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const inside = "SCTP_TEST_INSIDE"

// TestMain runs the tests in a network namespace of their own, in which they may use raw sockets.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(outside())
	}
	if err := loopbackUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func outside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct { // struct ifreq of netdevice(7)
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP}
	copy(request.name[:], "lo")
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS,
		uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}

// listen answers each association's first message with it and a text, and closes it.
func listen(t *testing.T, address string) {
	t.Helper()
	addr, err := ResolveSCTPAddr("sctp", address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ListenSCTP("sctp", addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() {
		for {
			c, err := l.AcceptSCTP()
			if err != nil {
				served <- nil
				return
			}
			b := make([]byte, 100)
			n, err := c.Read(b)
			if err == nil {
				_, err = c.Write(append(b[:n], " to you"...))
			}
			if err := errors.Join(err, c.Close()); err != nil {
				served <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
}

func TestAssociation(t *testing.T) {
	listen(t, "0.0.0.0:80")
	listen(t, ":81") // both see all packets, as two containers of a pod do
	for _, address := range []string{"127.0.0.1:80", "[::1]:80", "127.0.0.1:81", "[::1]:81"} {
		for range 3 {
			if got, err := call(address); err != nil || got != "hello to you" {
				t.Errorf("%s: %q, %v", address, got, err)
			}
		}
	}
}

func call(address string) (string, error) {
	addr, err := ResolveSCTPAddr("sctp", address)
	if err != nil {
		return "", err
	}
	c, err := DialSCTP("sctp", nil, addr)
	if err != nil {
		return "", err
	}
	if peer, _ := c.SCTPRemoteAddr(0); peer.String() != address {
		return "", fmt.Errorf("the peer is %s, want %s", peer, address)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return "", err
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("after the shutdown: %w", err)
	}
	return string(b[:n]), c.Close()
}

func TestReadDeadline(t *testing.T) {
	listen(t, "127.0.0.1:82")
	addr, err := ResolveSCTPAddr("sctp", "127.0.0.1:82")
	if err != nil {
		t.Fatal(err)
	}
	c, err := DialSCTP("sctp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("so that the server ends")); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 100)); err != nil { // else the server's answer would be cut off
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseWithoutReading: the server answers and closes at once, before the client sends anything.
func TestCloseWithoutReading(t *testing.T) {
	addr, err := ResolveSCTPAddr("sctp", "127.0.0.1:83")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ListenSCTP("sctp", addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		c, err := l.AcceptSCTP()
		if err == nil {
			_, err = c.Write([]byte("answer"))
			err = errors.Join(err, c.Close())
		}
		served <- err
	}()
	c, err := DialSCTP("sctp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != "answer" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the server did not wait for a message: %v", err)
	}
	if _, err := c.Write([]byte("question")); err != nil {
		t.Error(err)
	}
	if err := errors.Join(<-served, c.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}

// TestShutdownAfterAcknowledgement: a message that was acknowledged is written, also if the peer shuts down right
// after.
func TestShutdownAfterAcknowledgement(t *testing.T) {
	for _, answers := range [][]uint8{{typeSack, typeShutdown}, {typeShutdown}} {
		for range 20 {
			var c *SCTPConn
			c = newConn(func(p packet) error {
				if p.kind == typeData {
					for _, kind := range answers { // both begin with the TSN
						c.handle(packet{kind: kind, value: p.value[:4]})
					}
				}
				return nil
			}, 1, &SCTPAddr{Port: 2})
			if _, err := c.Write([]byte("message")); err != nil {
				t.Fatalf("answered by %v: %v", answers, err)
			}
		}
	}
}

func TestPacket(t *testing.T) {
	want := packet{from: 1, to: 2, tag: 3, kind: typeInit, flags: 4, value: []byte("value")}
	b := want.marshal()
	got, err := parse(b)
	if err != nil || got.from != want.from || got.to != want.to || got.tag != want.tag || got.kind != want.kind ||
		got.flags != want.flags || !bytes.Equal(got.value, want.value) {
		t.Errorf("got %v, %v", got, err)
	}
	for i := range b {
		broken := bytes.Clone(b)
		broken[i] ^= 1
		if _, err := parse(broken); err == nil {
			t.Errorf("bit 0 of octet %d changed, and the checksum holds", i)
		}
		if _, err := parse(b[:i]); err == nil {
			t.Errorf("%d octets are a packet", i)
		}
	}
	s := start{tag: 1, tsn: 2, cookie: []byte("cookie")}
	if got, err := parseStart(s.marshal()); err != nil || got.tag != s.tag || got.tsn != s.tsn ||
		!bytes.Equal(got.cookie, s.cookie) {
		t.Errorf("got %v, %v", got, err)
	}
}
