package kubeserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain is a kube-apiserver that does nothing but to be ready, if it is called like one.
func TestMain(m *testing.M) {
	flags := map[string]string{}
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		flags[name] = value
	}
	if flags["--secure-port"] == "" {
		os.Exit(m.Run())
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(flags["--bind-address"], flags["--secure-port"]))
	if err == nil {
		err = http.ServeTLS(listener, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
			flags["--tls-cert-file"], flags["--tls-private-key-file"])
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestPortThatIsTaken: a server that another program kept from its port is started on another one, and one that was
// ready before on the same one again, as soon as that is free.
func TestPortThatIsTaken(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other, err := Start(ctx, Options{Binary: program, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Kill()
	s, err := Start(ctx, Options{Binary: program, Dir: t.TempDir(), address: other.address})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	if s.address == other.address || s.PID() == 0 {
		t.Fatalf("it is ready at %s, where another one is", s.address)
	}
	before := s.address
	s.Crash()
	listener, err := net.Listen("tcp", before)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan struct{})
	go func() {
		defer listener.Close()
		for { // until the server was started once more in vain
			log, _ := os.ReadFile(s.file("kube-apiserver.log"))
			if strings.Contains(string(log), "address already in use") || ctx.Err() != nil {
				close(failed)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	err = s.Resume(ctx)
	<-failed
	if err != nil || s.address != before {
		t.Errorf("it is not ready again at %s: %v", before, err)
	}
	if _, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Error(err)
	}
}
