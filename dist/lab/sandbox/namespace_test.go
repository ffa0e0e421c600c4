package sandbox

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestNet(t *testing.T) {
	defer goleak.VerifyNone(t)
	n, err := NewNet()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var inThread, inChild string
	var listener net.Listener
	err = n.Do(func() error {
		if err := linkUp("lo"); err != nil {
			return err
		}
		inThread, _ = os.Readlink("/proc/thread-self/ns/net")
		out, err := exec.Command("readlink", "/proc/self/ns/net").Output()
		inChild = strings.TrimSpace(string(out))
		if err != nil {
			return err
		}
		listener, err = net.Listen("tcp", "127.0.0.1:1")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if inThread == before || inChild != inThread {
		t.Errorf("namespaces: outside %s, thread %s, child %s", before, inThread, inChild)
	}
	if after, _ := os.Readlink("/proc/thread-self/ns/net"); after != before {
		t.Errorf("namespace after Do %s, want %s", after, before)
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
		conn.Close()
		t.Error("the port of the namespace is open outside it")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(n.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v, want it gone", n.Path(), err)
	}
}

func TestHost(t *testing.T) {
	defer goleak.VerifyNone(t)
	outside, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var hosts [2]*Host
	for i, name := range []string{"node1", "node2"} {
		if hosts[i], err = NewHost(name); err != nil {
			t.Fatal(err)
		}
		defer hosts[i].Close()
		err = hosts[i].Do(func() error { return os.WriteFile("/run/only", []byte(name), 0o644) })
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hosts {
		var out []byte
		err := h.Do(func() (err error) {
			out, err = exec.Command("sh", "-c", "uname -n; cat /run/only; echo; ls -A /var/lib; pwd").Output()
			return err
		})
		if want := h.Name() + "\n" + h.Name() + "\n" + wd + "\n"; string(out) != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", h.Name(), out, err, want)
		}
	}
	if _, err := os.Stat("/run/only"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a host's /run is seen outside: %v", err)
	}
	if name, _ := os.Hostname(); name != outside {
		t.Errorf("host name %q outside, want %q", name, outside)
	}

	pod, err := hosts[0].NewNet()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	err = hosts[0].Do(func() error {
		entries, err := os.ReadDir(netnsDir)
		for _, e := range entries {
			names = append(names, netnsDir+"/"+e.Name())
		}
		return err
	})
	if want := []string{pod.Path()}; err != nil || !slices.Equal(names, want) {
		t.Errorf("namespaces in the host: %q, %v, want %q", names, err, want)
	}
	var name string
	err = pod.Do(func() (err error) { name, err = os.Hostname(); return err })
	if name != "node1" || err != nil {
		t.Errorf("host name in the pod %q, %v, want node1", name, err)
	}
	if err := pod.Close(); err != nil {
		t.Error(err)
	}
}

// TestMainThread asks often enough that the runtime would sooner or later choose the main thread.
func TestMainThread(t *testing.T) {
	want, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for range 200 {
		err := n.Do(func() error {
			if unix.Gettid() == os.Getpid() {
				return errors.New("on the main thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := os.Readlink("/proc/self/ns/net"); got != want {
		t.Errorf("the process is in %s, want %s", got, want)
	}
}

func TestDoErrors(t *testing.T) {
	n, err := NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	want := errors.New("as it is")
	if err := n.Do(func() error { return want }); err != want {
		t.Errorf("got %v, want the function's own error", err)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); err != errGone {
		t.Errorf("got %v, want %v", err, errGone)
	}
}
