package vtep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestNotPermitted calls everything without CAP_NET_ADMIN.
func TestNotPermitted(t *testing.T) {
	ns := newNet(t)
	f := newFilter(t, ns)
	for name, call := range map[string]func() error{
		"Open": func() error {
			f, err := Open()
			if err == nil {
				f.Close()
			}
			return err
		},
		"Ensure":  func() error { _, err := f.Ensure(config(), slices.Values(peers())); return err },
		"Read":    func() error { _, _, err := f.Read(); return err },
		"Apply":   func() error { return f.Apply(peers(), nil) },
		"Remove":  func() error { return f.Remove() },
		"Dropped": func() error { _, err := f.Dropped(); return err },
	} {
		err := ns.Do(func() error { // on a thread that ends with this
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&header, &none[0]); err != nil {
				return err
			}
			return call()
		})
		if !errors.Is(err, ErrUnsupported) && name != "Dropped" || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Ensure(config(), slices.Values(peers())); err != nil {
		t.Errorf("with the permission again: %v", err)
	}
}

// TestNoAnswer has the kernel refuse a whole transaction, with one answer, while another is waited for.
func TestNoAnswer(t *testing.T) {
	f := newFilter(t, newNet(t))
	f.patience = 10 * time.Millisecond
	const nobodys = 0x0b // a subsystem that there is not
	var first error
	err := f.ask(func() error {
		_, err := f.socket.SendMessages([]netlink.Message{
			{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: []byte{0, 0, 0, nobodys}},
			{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: []byte{0, 0, 0, nobodys}},
		})
		if err != nil {
			return err
		}
		_, first = f.socket.Receive()
		_, err = f.socket.Receive()
		return err
	})
	if !errors.Is(first, unix.EOPNOTSUPP) || !errors.Is(explain(first), ErrUnsupported) {
		t.Errorf("the first answer: %v", first)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the second answer: %v", err)
	}
	f.patience = patience
	if _, err := f.Ensure(config(), nil); err != nil {
		t.Error(err)
	}
}

// TestAnswerLeftOver has an answer lie in the socket that is to nothing that is going to be asked.
func TestAnswerLeftOver(t *testing.T) {
	f := newFilter(t, newNet(t))
	if _, err := f.Ensure(config(), slices.Values(peers())); err != nil {
		t.Fatal(err)
	}
	for _, call := range []func() error{
		func() error { _, err := f.Ensure(config(), nil); return err },
		func() error { _, _, err := f.Read(); return err },
		func() error { _, err := f.elements(devicesSet); return err },
	} {
		_, err := f.socket.Send(netlink.Message{
			Header: netlink.Header{Type: nftMessage(unix.NFT_MSG_GETGEN), Flags: netlink.Request}, Data: nfgenmsg(unix.NFPROTO_UNSPEC),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := call(); err == nil {
			t.Error("an answer to another question was taken")
		}
		if err := call(); err != nil {
			t.Errorf("after it was thrown away: %v", err)
		}
	}
}

// TestClosed asks for things with a socket that is closed.
func TestClosed(t *testing.T) {
	f := newFilter(t, newNet(t))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.probe(); err == nil {
		t.Error("a socket that is closed answers")
	}
	f.drain() // does not wait
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		err              error
		part, whole      bool
		describesTheRest bool
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
		}{{explain, tt.part}, {explainWhole, tt.whole}} {
			got := e.explain(tt.err)
			if errors.Is(got, ErrUnsupported) != e.want || tt.err != nil && !errors.Is(got, tt.err) {
				t.Errorf("%v: %v", tt.err, got)
			}
		}
	}
}
