package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/mesh/exchange"
	"github.com/selvage-net/selvage/network/mesh/page"
)

// meshPage has the flags of the web page.
type meshPage struct {
	address string
	files   exchange.Files // of TLS; CA signs the certificates of those who may read the page
}

// pageConnections is how many connections the web page's server has open at the same time.
const pageConnections = 128

// defaultHost is the address of the web page if --serve names a port only.
const defaultHost = "127.0.0.1"

// listen opens the port of the web page. secure is nil for plain HTTP.
func (p meshPage) listen() (l net.Listener, secure *tls.Config, err error) {
	host, port, err := net.SplitHostPort(p.address)
	if err != nil {
		return nil, nil, fmt.Errorf("--serve: %w; want an address and a port, such as %s:8474", err, defaultHost)
	}
	if host == "" || host == "localhost" {
		host = defaultHost
	}
	address := net.JoinHostPort(host, port)
	if p.files == (exchange.Files{}) {
		if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
			return nil, nil, fmt.Errorf("--serve %s: every host that reaches this address could read the page: use a "+
				"loopback address such as %s, or serve it over TLS to holders of certificates with --serve-cafile, "+
				"--serve-certfile and --serve-keyfile", p.address, net.JoinHostPort(defaultHost, port))
		}
	} else if secure, err = p.tls(); err != nil {
		return nil, nil, err
	}
	if l, err = net.Listen("tcp", address); err != nil {
		return nil, nil, errno.Explain(errno.ListenTCP, fmt.Errorf("--serve: %w", err))
	}
	return exchange.Bound(l, pageConnections), secure, nil
}

// tls returns the settings of a server that demands certificates of its clients.
func (p meshPage) tls() (*tls.Config, error) {
	if p.files.CA == "" || p.files.Cert == "" || p.files.Key == "" {
		return nil, errors.New("--serve-cafile, --serve-certfile and --serve-keyfile need each other: the page is " +
			"served to holders of certificates only")
	}
	pem, err := os.ReadFile(p.files.CA)
	if err != nil {
		return nil, fmt.Errorf("--serve-cafile: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--serve-cafile %s: holds no PEM certificate", p.files.CA)
	}
	cert, err := tls.LoadX509KeyPair(p.files.Cert, p.files.Key)
	if err != nil {
		return nil, fmt.Errorf("--serve-certfile, --serve-keyfile: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	}, nil
}

// serve serves the web page until ctx ends.
func (p meshPage) serve(ctx context.Context, out io.Writer, source page.Source, detail page.Detail) error {
	l, secure, err := p.listen()
	if err != nil {
		return err
	}
	scheme := "http"
	if secure != nil {
		scheme = "https"
	}
	fmt.Fprintf(out, "serving %s://%s until interrupted\n", scheme, l.Addr())
	return page.Serve(ctx, l, page.Options{Source: source, Detail: detail, TLS: secure})
}
