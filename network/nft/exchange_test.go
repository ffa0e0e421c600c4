package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestNotPermitted calls everything without CAP_NET_ADMIN.
func TestNotPermitted(t *testing.T) {
	ns := newNet(t)
	x := newTable(t, ns)
	for what, call := range map[string]func() error{
		"Dial": func() error {
			c, err := Dial()
			if err == nil {
				c.Close()
			}
			return err
		},
		"Ensure": func() error { _, err := x.Ensure(content(), nil); return err },
		"Holds":  func() error { _, _, err := x.Check(content()); return err },
		"Change": func() error { return x.Change(func(t *Transaction) { t.Add(content().Sets[1], some) }) },
		"Remove": func() error { return x.Remove() },
		"Tables": func() error { _, err := x.Tables(); return err },
		"Chains": func() error { _, err := x.Chains(); return err },
		"Clear":  func() error { _, err := x.Clear(nftables.TableFamilyIPv4, "filter", "A"); return err },
	} {
		err := ns.Do(func() error { // on a thread that ends with this
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&header, &none[0]); err != nil {
				return err
			}
			return call()
		})
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := x.Ensure(content(), nil); err != nil {
		t.Errorf("with the permission again: %v", err)
	}
}

// TestNoAnswer has the kernel refuse a whole transaction, with one answer, while another is waited for.
func TestNoAnswer(t *testing.T) {
	x := newTable(t, newNet(t))
	x.replyTimeout = 10 * time.Millisecond
	const nobodys = 0x0b // a subsystem that there is not
	var first error
	err := x.exchange(func() error {
		_, err := x.socket.SendMessages([]netlink.Message{
			{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: []byte{0, 0, 0, nobodys}},
			{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: []byte{0, 0, 0, nobodys}},
		})
		if err != nil {
			return err
		}
		_, first = x.socket.Receive()
		_, err = x.socket.Receive()
		return err
	})
	if !errors.Is(first, unix.EOPNOTSUPP) || !errors.Is(explain(first), ErrUnsupported) {
		t.Errorf("the first answer: %v", first)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the second answer: %v", err)
	}
	x.replyTimeout = replyTimeout
	if _, err := x.Ensure(content(), nil); err != nil {
		t.Error(err)
	}
}

// TestAnswerLeftOver has an answer lie in the socket that is to nothing that is going to be asked.
func TestAnswerLeftOver(t *testing.T) {
	x := newTable(t, newNet(t))
	if _, err := x.Ensure(content(), nil); err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func() error{
		"Ensure":   func() error { _, err := x.Ensure(content(), nil); return err },
		"Holds":    func() error { _, _, err := x.Check(content()); return err },
		"Elements": func() error { _, err := x.Elements("free"); return err },
		"Chains":   func() error { _, err := x.Chains(); return err },
	} {
		_, err := x.socket.Send(netlink.Message{
			Header: netlink.Header{Type: nftMessage(unix.NFT_MSG_GETGEN), Flags: netlink.Request}, Data: nfgenmsg(unix.NFPROTO_UNSPEC),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := call(); err == nil {
			t.Errorf("%s took an answer to another question", what)
		}
		if err := call(); err != nil {
			t.Errorf("%s, after it was thrown away: %v", what, err)
		}
	}
}

// TestClosed asks for things with a socket that is closed.
func TestClosed(t *testing.T) {
	x := newTable(t, newNet(t))
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.probe(); err == nil {
		t.Error("a socket that is closed answers")
	}
	x.drain() // does not wait
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		err         error
		part, whole bool
	}{
		{err: nil},
		{err: unix.EPERM, part: true, whole: true},
		{err: errors.Join(errors.New("another"), unix.EOPNOTSUPP), part: true, whole: true},
		{err: fmt.Errorf("no inet tables: %w", unix.EAFNOSUPPORT), part: true, whole: true},
		{err: unix.ENOENT, whole: true},
		{err: unix.ENOMEM},
		{err: fs.ErrNotExist, whole: true},
	} {
		for _, e := range []struct {
			explain func(error) error
			want    bool
		}{{explain, tt.part}, {explainCreate, tt.whole}} {
			got := e.explain(tt.err)
			if errors.Is(got, ErrUnsupported) != e.want || tt.err != nil && !errors.Is(got, tt.err) {
				t.Errorf("%v: %v", tt.err, got)
			}
		}
	}
}
