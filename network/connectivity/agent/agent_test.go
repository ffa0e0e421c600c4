package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve starts an agent on free ports, and says which.
func serve(t *testing.T) (echo, control netip.AddrPort) {
	t.Helper()
	free := func() netip.AddrPort { // for both protocols, as far as it can be told
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return netip.MustParseAddrPort(l.Addr().String())
	}
	echo, control = free(), free()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, Addresses{Echo: echo.String(), Control: control.String()}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for { // until it listens; the deadline is the test binary's
		conn, err := net.Dial("tcp", control.String())
		if err == nil {
			conn.Close()
			return echo, control
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

func ask(t *testing.T, control netip.AddrPort, r Request) (Answer, error) {
	t.Helper()
	conn, err := net.Dial("tcp", control.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return Do(conn, r)
}

func TestCall(t *testing.T) {
	echo, control := serve(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := Echo{Seen: netip.MustParseAddr("127.0.0.1"), By: name}
	for _, network := range []Network{TCP, UDP, Full} {
		a, err := ask(t, control, Request{Call: &Call{Network: network, To: echo}})
		if err != nil || *a.Echo != want {
			t.Errorf("%s: %+v, %v, want %v", network, a, err, want)
		}
	}
	if _, err := ask(t, control, Request{Call: &Call{Network: Connect, To: control}}); err != nil {
		t.Error(err)
	}
	if _, err := ask(t, control, Request{Call: &Call{Network: DNS, Name: "127.0.0.1"}}); err != nil {
		t.Error(err)
	}
	nobody := netip.AddrPortFrom(echo.Addr(), 1)
	for _, network := range []Network{TCP, UDP, Full, Connect, DNS, "nonsense"} {
		if a, err := ask(t, control, Request{Call: &Call{Network: network, To: nobody}}); err == nil {
			t.Errorf("%s to nobody: %+v", network, a)
		}
	}
	if _, err := ask(t, control, Request{}); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("nothing asked for: %v", err)
	}
}

func TestStream(t *testing.T) {
	echo, control := serve(t)
	if _, err := ask(t, control, Request{Report: true}); err == nil {
		t.Error("a report on no stream")
	}
	for range 2 {
		if _, err := ask(t, control, Request{Stream: &Stream{To: echo, Every: time.Millisecond}}); err != nil {
			t.Fatal(err)
		}
	}
	for sent := 0; sent == 0; {
		a, err := ask(t, control, Request{Report: true})
		if err != nil || len(a.Losses) != 2 || a.Losses[0].Lost+a.Losses[1].Lost != 0 {
			t.Fatalf("%+v, %v", a.Losses, err)
		}
		sent = min(a.Losses[0].Sent, a.Losses[1].Sent)
	}
}

// listen receives datagrams, which it sends back or not, and closes came once there was one.
func listen(t *testing.T, answer bool) (at netip.AddrPort, came <-chan struct{}) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	first := make(chan struct{})
	go func() {
		packet := make([]byte, numberSize)
		for once := sync.OnceFunc(func() { close(first) }); ; once() {
			_, from, err := conn.ReadFrom(packet)
			if err != nil {
				return // the test is over
			}
			if answer {
				_, _ = conn.WriteTo(packet, from) // the test sees what it does not get
			}
		}
	}()
	return netip.MustParseAddrPort(conn.LocalAddr().String()), first
}

// TestPerform has a second process's part done: calls, and streams until the input ends.
func TestPerform(t *testing.T) {
	echo, _ := serve(t)
	nobody := netip.AddrPortFrom(echo.Addr(), 1)
	answering, came := listen(t, true)
	deaf, alsoCame := listen(t, false)
	orders, err := json.Marshal(Orders{
		Calls:   []Call{{Network: Full, To: echo}, {Network: TCP, To: nobody}},
		Streams: []Stream{{To: answering, Every: time.Millisecond}, {To: deaf, Every: time.Millisecond}},
	})
	if err != nil {
		t.Fatal(err)
	}
	in, end := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Perform(t.Context(), in, out)
		out.CloseWithError(cmp.Or(err, io.EOF))
		done <- err
	}()
	if _, err := end.Write(orders); err != nil {
		t.Fatal(err)
	}
	var first, last Results
	read := json.NewDecoder(answers)
	if err := read.Decode(&first); err != nil {
		t.Fatal(err)
	}
	if c := first.Calls; len(c) != 2 || c[0].Error != "" || c[0].Echo.Seen != echo.Addr() || c[1].Error == "" {
		t.Errorf("calls: %+v", c)
	}
	<-came
	<-alsoCame
	end.Close()
	if err := errors.Join(read.Decode(&last), <-done); err != nil {
		t.Fatal(err)
	}
	if l := last.Streams; len(l) != 2 || l[0].Sent == 0 || l[0].Lost != 0 || l[1].Sent == 0 || l[1].Lost != l[1].Sent {
		t.Errorf("streams: %+v", l)
	}
	for _, text := range []string{"", "{", `{"Calls": 1}`} {
		if err := Perform(t.Context(), strings.NewReader(text), io.Discard); err == nil {
			t.Errorf("orders %q were taken", text)
		}
	}
}

func TestStreamToNobody(t *testing.T) {
	echo, control := serve(t)
	nobody := netip.AddrPortFrom(echo.Addr(), 1)
	if _, err := ask(t, control, Request{Stream: &Stream{To: nobody, Every: time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	for sent := 0; sent == 0; {
		a, err := ask(t, control, Request{Report: true})
		if err != nil || len(a.Losses) != 1 || a.Losses[0].Lost != a.Losses[0].Sent {
			t.Fatalf("%+v, %v", a.Losses, err)
		}
		sent = a.Losses[0].Sent
	}
}

// TestOverflows has nobody read what is sent to a socket.
func TestOverflows(t *testing.T) {
	_, control := serve(t)
	count := func() uint64 {
		a, err := ask(t, control, Request{Overflows: true})
		if err != nil {
			t.Fatal(err)
		}
		return a.Overflows
	}
	for _, to := range []string{"127.0.0.1:0", "[::1]:0"} {
		deaf, err := net.ListenPacket("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer deaf.Close()
		conn, err := net.Dial("udp", deaf.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for before := count(); count() == before; {
			for range 1000 {
				if _, err := conn.Write(make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, text := range []string{"", "Udp: RcvbufErrors\n", "Udp: InDatagrams RcvbufErrors\nUdp: 1\n", "Udp: RcvbufErrors\nUdp: x\n"} {
		if n, err := parseSNMP(text); err == nil {
			t.Errorf("%q: %d", text, n)
		}
	}
	if n, err := parseSNMP6("Udp6InDatagrams 3\n"); err == nil {
		t.Errorf("%d", n)
	}
}

func TestCount(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }
	for text, want := range map[string]Losses{
		"":       {},
		"1111":   {Sent: 4},
		"1011":   {Sent: 4, Lost: 1, Gap: time.Millisecond, First: at(1)},
		"100101": {Sent: 6, Lost: 3, Gap: 2 * time.Millisecond, First: at(1)},
		"1100":   {Sent: 4, Lost: 2, Gap: 2 * time.Millisecond, First: at(2)},
		"0":      {Sent: 1, Lost: 1, Gap: time.Millisecond, First: at(0)},
	} {
		var sent []time.Time
		var answered []bool
		for i, c := range text {
			sent, answered = append(sent, at(i)), append(answered, c == '1')
		}
		if got := count(sent, answered, at(len(text))); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestParseEcho(t *testing.T) {
	for text, want := range map[string]Echo{
		"10.5.1.2 web\n": {netip.MustParseAddr("10.5.1.2"), "web"},
		"10.5.1.2":       {Seen: netip.MustParseAddr("10.5.1.2")},
		"":               {}, "web": {}, "10.5.1.2 web more": {},
	} {
		if got, err := parseEcho(text); got.Seen != want.Seen || (err == nil) != want.Seen.IsValid() || err == nil && got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestAdd(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	none, a, b := Losses{Sent: 5}, Losses{Sent: 5, Lost: 1, Gap: 3, First: late}, Losses{Sent: 5, Lost: 2, Gap: 2, First: early}
	for _, test := range []struct{ x, y, want Losses }{
		{none, none, Losses{Sent: 10}},
		{none, a, Losses{Sent: 10, Lost: 1, Gap: 3, First: late}},
		{a, none, Losses{Sent: 10, Lost: 1, Gap: 3, First: late}},
		{a, b, Losses{Sent: 10, Lost: 3, Gap: 3, First: early}},
		{b, a, Losses{Sent: 10, Lost: 3, Gap: 3, First: early}},
	} {
		if got := test.x.Add(test.y); got != test.want {
			t.Errorf("%v and %v: %v, want %v", test.x, test.y, got, test.want)
		}
	}
}
