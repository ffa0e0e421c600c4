package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
)

// front stands before an etcd and changes what it says: its clock is off, or it takes its time.
type front struct {
	member string // host and port
	off    time.Duration
	delay  time.Duration // of each packet to it
}

// serve answers at an address until the test ends.
func (f front) serve(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.handle(conn)
		}
	}()
}

func (f front) handle(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	if begin, err := r.Peek(len("GET ")); err != nil {
		return
	} else if string(begin) == "GET " { // and not gRPC
		if _, err := http.ReadRequest(r); err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Length: 0\r\n\r\n", time.Now().Add(f.off).UTC().Format(http.TimeFormat))
		}
		return
	}
	etcd, err := net.Dial("tcp", f.member)
	if err != nil {
		return
	}
	defer etcd.Close()
	go func() {
		defer conn.Close()
		_, _ = io.Copy(conn, etcd) // until either ends
	}()
	packet := make([]byte, 1<<16)
	for {
		n, err := r.Read(packet)
		time.Sleep(f.delay)
		if _, e := etcd.Write(packet[:n]); errors.Join(err, e) != nil {
			return
		}
	}
}

// TestDoctorEtcdMember: an endpoint that works, and is not as it is to be.
func TestDoctorEtcdMember(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	p := admit(t, l, l.Nodes()[0])
	p.healthy()
	member := strings.TrimPrefix(l.Etcd().Endpoints()[0], "http://")
	host, _, err := net.SplitHostPort(member)
	p.must(err)
	front{member: member, off: time.Hour}.serve(t, net.JoinHostPort(host, "2479"))
	front{member: member, delay: 600 * time.Millisecond}.serve(t, net.JoinHostPort(host, "2480"))
	with := func(port string) func() {
		return func() {
			p.stop()
			p.SetDaemonArgs("--iface", "eth0", "--etcd-endpoints", l.Etcd().Endpoints()[0]+",http://"+net.JoinHostPort(host, port))
			p.start()
		}
	}
	p.treat([]ailment{
		{"a clock that is wrong", with("2479"), func() {}, one("etcd", warns, "the clock of http://"+host+":2479 is 1h0m0s ahead of this node's",
			"timedatectl on both hosts shows which clock is not synchronised; with a wrong clock, valid certificates are rejected")},
		{"a slow member", with("2480"), func() {}, one("etcd", warns, "http://"+host+":2480 takes ", "check its disk and its load: "+
			"etcdctl --endpoints="+l.Etcd().Endpoints()[0]+",http://"+host+":2480 check perf")},
	})
}
