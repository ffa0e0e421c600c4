package kernel_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

// TestWireGuardAnswers: the error number that a user-space WireGuard answers with is found, and a port in use named.
func TestWireGuardAnswers(t *testing.T) {
	for _, tt := range []struct {
		answer string
		is     error
		says   string
	}{
		{"errno=0", nil, ""},
		{"errno=-98", unix.EADDRINUSE, "UDP port 51820 is in use"}, // wireguard-go
		{"errno=98", unix.EADDRINUSE, "UDP port 51820 is in use"},
		{"errno=-71", unix.EPROTO, "answers errno -71: protocol error"},
		{"what?", nil, "what?"},
	} {
		t.Run(tt.answer, func(t *testing.T) {
			inNamespace(t, func(*sandbox.Net) error {
				serveUAPI(t, "flannel-wg", tt.answer)
				node, err := open(network.NewTables())
				if err != nil {
					return err
				}
				defer node.Close()
				want := network.WireGuard{Port: 51820}
				err = node.WireGuard("flannel-wg", network.Change[network.WireGuard]{Wanted: true, Want: want})
				switch {
				case tt.says == "":
					return err
				case err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says):
					t.Errorf("%v, want %q", err, tt.says)
				}
				return nil
			})
		})
	}
}

// serveUAPI answers each message about a device with one line, as a user-space WireGuard does.
func serveUAPI(t *testing.T, device, answer string) {
	path := "/var/run/wireguard/" + device + ".sock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != ""; {
			}
			_, _ = c.Write([]byte(answer + "\n\n")) // who asks notices
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}
