package chaosstore

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

const binDir = "../../bin"

func TestMain(m *testing.M) {
	os.Exit(sandbox.Run(func() int {
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// TestFaults does the faults that show most, with short times. How long it takes until all is right is not judged.
func TestFaults(t *testing.T) {
	var faults []Fault
	for _, f := range Faults() {
		if f.Brief {
			faults = append(faults, f)
		}
	}
	if len(faults) < 10 {
		t.Fatalf("%d faults", len(faults))
	}
	done := 0
	err := All(t.Context(), Options{Bin: binDir, Short: true}, faults, func(o Outcome) {
		done++
		t.Run(o.Scene.String()+"/"+o.Fault.Name, func(t *testing.T) {
			if !o.OK() {
				t.Errorf("%s; lost %s\nlog:\n%s", strings.Join(append(o.Wrong, o.Remarks...), "\n"), o.Traffic, strings.Join(o.Log, "\n"))
			}
			if o.Traffic.Sent == 0 {
				t.Error("nothing was sent between pods")
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if done != len(faults) {
		t.Errorf("%d of %d faults were done", done, len(faults))
	}
}

// TestWhatIsWrongIsSeen: a suite that finds nothing wrong with a daemon that does nothing shows nothing.
func TestWhatIsWrongIsSeen(t *testing.T) {
	s, err := New(t.Context(), Options{Bin: binDir}, single())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	h := s.hosts[0]
	before, err := s.subnets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	look := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, wrong := s.converge(ctx, before, time.Now()); !strings.Contains(strings.Join(wrong, "\n"), want) {
			t.Errorf("found %q, want %s", wrong, want)
		}
	}
	if err := h.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	look("node1 has no route to 10.5.2")
	if err := h.signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.Kill()
	if err := s.store.delete(t.Context(), "subnets/"+keyOf(&run{Suite: s, before: before}, 0)); err != nil {
		t.Fatal(err)
	}
	look("node1 has 0 leases")
	for i, name := range []string{"node1", "node1"} {
		l := strange(name, number(s.options.Families, byte(190+i)), byte(i))
		if err := s.write(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		look([]string{"node1 has 10.5.190.0/24 fd00:5:0:190::/64, and had ", "node1 has 2 leases"}[i])
	}
	// And a path that is broken is packets lost.
	o := Outcome{}
	stop := s.stream(t.Context(), [][2]int{{1, 0}}, &o)
	if err := h.DeviceDown(false); err != nil {
		t.Fatal(err)
	}
	stop()
	if o.Traffic.Lost == 0 || o.OK() {
		t.Errorf("nothing is lost over a device that is down: %s", o.Traffic)
	}
}

func TestProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // ends with the connection
			}()
		}
	}()
	p := newProxy("127.0.0.1:0", l.Addr().String())
	if err := p.up(); err != nil {
		t.Fatal(err)
	}
	p.addr = p.listener.Addr().String()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := dial()
	defer c.Close()
	echo := func(text string) time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
		return time.Since(began)
	}
	echo("hello")
	echo(strings.Repeat("x", 1<<20))
	p.delay.Store(int64(100 * time.Millisecond))
	if took := echo("late"); took < 100*time.Millisecond {
		t.Errorf("an answer that is 100ms late takes %s", took)
	}
	p.down()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is still open")
	}
	if c, err := net.Dial("tcp", p.addr); err == nil {
		c.Close()
		t.Error("a proxy that is down takes connections")
	}
	if err := p.up(); err != nil {
		t.Fatal(err)
	}
	c = dial()
	p.delay.Store(0)
	echo("again")
	p.down()
}

func TestRequestsSinceAReading(t *testing.T) {
	before := reading{pids: []int{1, 2}, counts: []Requests{{"Txn": 5, "Range": 5}, {"Txn": 7}}, ownGets: 10}
	after := reading{pids: []int{1, 3}, counts: []Requests{{"Txn": 6, "Range": 9, "Put": 4}, {"Txn": 2, "Watch": 1}}, ownGets: 13}
	if got := after.since(before).String(); got != "5 (Range 1, Txn 3, Watch 1)" {
		t.Errorf("got %s", got)
	}
	if got := (Requests{}).String(); got != "none" {
		t.Errorf("got %s", got)
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	r := NewReport(&out)
	good := Outcome{Fault: Fault{Name: "good"}, Scene: single(), Traffic: lab.StreamReport{Sent: 10}, Log: []string{"fine"}}
	lossy := Outcome{Fault: Fault{Name: "lossy"}, Scene: secure(), Traffic: lab.StreamReport{Sent: 10, Lost: 1}, Log: []string{"loss"}}
	late := Outcome{Fault: Fault{Name: "late"}, Scene: secure(), Converged: time.Minute}
	wrong := Outcome{Fault: Fault{Name: "wrong"}, Scene: scarce(), Wrong: []string{"two\nlines"}}
	r.Line(good)
	if !r.Summary() {
		t.Error("one that is good is not")
	}
	for _, o := range []Outcome{lossy, late, wrong} {
		r := NewReport(io.Discard)
		r.Line(o)
		if r.Summary() {
			t.Errorf("%s is good", o.Fault.Name)
		}
	}
	for _, o := range []Outcome{lossy, late, wrong} {
		r.Line(o)
	}
	r.Summary()
	text := out.String()
	for _, want := range []string{
		"etcd of one member\n  good ", "etcd of 3 members with TLS and roles\n  lossy", "lost 1 of    10", "FAIL later than 15s",
		"few subnets", "      two\n      lines", "log of loss", "4 faults; 20 datagrams sent, 1 lost; repaired after at most 1m0s", "FAIL: 2 not as it should be, 1 too late",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "fine") {
		t.Error("the log of what is well is printed")
	}
}

func TestMissingBinariesAreSaid(t *testing.T) {
	_, err := New(t.Context(), Options{Bin: t.TempDir()}, single())
	if err == nil || !strings.Contains(err.Error(), filepath.Join("selvaged")) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("the error is %v", err)
	}
}
