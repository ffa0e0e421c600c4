package apiserver

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// TestProxy: proxy-url leads to the server, whose certificate is checked as without one.
func TestProxy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	certFile, keyFile := ca.sign(filepath.Join(dir, "server"))
	s := standIn(t, kubetest.Options{CertFile: certFile, KeyFile: keyFile})
	ended := make(chan struct{}, 10)
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		out, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			out.Close()
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		var tunnels sync.WaitGroup
		for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
			tunnels.Go(func() {
				_, _ = io.Copy(c[0], c[1])
				c[0].Close()
			})
		}
		tunnels.Wait()
		ended <- struct{}{}
	}))
	defer proxy.Close()
	file := write(t, filepath.Join(dir, "kubeconfig"), strings.Replace(minimal, `{server: "https://10.0.0.1:6443"}`,
		`{server: "`+s.URL()+`", certificate-authority: ca.pem, proxy-url: "`+proxy.URL+`"}`, 1))
	c := open(t, Options{Kubeconfig: file})
	c.listed(t, ListOptions{})
	if got, want := <-asked, "CONNECT "+strings.TrimPrefix(s.URL(), "https://"); got != want {
		t.Errorf("the proxy was asked for %s, want %s", got, want)
	}
	if r := s.Requests(); len(r) != 1 || r[0].Protocol != "HTTP/2.0" {
		t.Errorf("%+v", r)
	}
	c.Close()
	<-ended
}
