package etcd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
)

// Defaults of [Options].
const (
	DefaultPrefix         = "/coreos.com/network"
	DefaultLeaseTTL       = 24 * time.Hour
	DefaultDialTimeout    = 5 * time.Second
	DefaultRequestTimeout = 5 * time.Second
	DefaultListSpread     = 10 * time.Second
)

// Options say where etcd is and how to speak to it. Only Endpoints is needed.
type Options struct {
	// Endpoints are URLs such as "https://10.0.0.1:2379", or HOST:PORT, or HOST for port 2379. One without a scheme is
	// https if any of the TLS files is set, else http.
	Endpoints []string
	// Prefix of all keys; empty: DefaultPrefix.
	Prefix string

	// CAFile names the authorities (PEM) that may vouch for etcd; empty: those of the system.
	CAFile string
	// CertFile and KeyFile (PEM), both or none, are what we show to etcd. All three are read at each connection, so
	// that a certificate can be replaced while we run.
	CertFile, KeyFile string
	// Username and Password, both or none. In a large cluster a client certificate whose common name is the user is the
	// better way: to check a password costs etcd some 50 ms, for each node that connects.
	Username, Password string
	// PasswordFile holds the password in the place of Password. It is read whenever etcd asks for it, so that the
	// password can be changed while we run: first in the file, then in etcd, or the other way round.
	PasswordFile string

	// LeaseTTL is how long a lease outlives its node's last renewal, in whole seconds; 0: DefaultLeaseTTL. etcd raises
	// what is less than its own minimum of a few seconds.
	LeaseTTL time.Duration
	// DialTimeout bounds one attempt to connect; 0: DefaultDialTimeout.
	DialTimeout time.Duration
	// RequestTimeout bounds one request; 0: DefaultRequestTimeout.
	RequestTimeout time.Duration
	// ListSpread is the time over which the nodes of a cluster spread their lists when etcd's history is gone, because
	// it was wiped or restored from a backup: each waits a random part of it before it lists all leases again. All
	// nodes notice at the same moment, and 10,000 lists of 10,000 leases are more than etcd can answer at once; above
	// 1,000 leases it is longer in proportion to their number. The first list of a Watch does not wait, and neither
	// does one after a compaction, which does not affect all nodes at once.
	//
	// A node claims its own lease again in the first quarter of its wait, which takes a few small requests: a wiped
	// etcd gets it back before the lists. What is missing until then costs no packet: no node removes anything from the
	// kernel while it waits, and peers that see a lease missing retain its entries for a grace period. But a node that
	// needs a subnet for the first time in these seconds can get one whose owner is not back yet. 0: DefaultListSpread;
	// negative: at once.
	ListSpread time.Duration
	// Log gets a line when etcd becomes unavailable and one when it is back; nil: nothing is logged.
	Log logrus.FieldLogger

	// For tests, which cannot wait for what a node can.
	dial      []grpc.DialOption // to see the requests
	quiet     time.Duration     // see quietInterval
	retryLast time.Duration     // see retryLast
	turn      time.Duration     // in the place of a random part of ListSpread
}

// withDefaults checks the options, brings them into one form, and fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		o.Log = silent
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return o, errors.New("etcd client certificate: want both a certificate file and a key file, or neither")
	}
	var err error
	if o.PasswordFile != "" {
		if o.Password != "" {
			return o, errors.New("etcd authentication: want a password or a file that holds it, not both")
		}
		// etcd's client keeps this one; what is sent is what the file holds then. A mistyped name is an error now.
		if o.Password, err = readPassword(o.PasswordFile); err != nil {
			return o, err
		}
	}
	if (o.Username == "") != (o.Password == "") {
		return o, errors.New("etcd authentication: want both a user name and a password, or neither")
	}
	if o.Endpoints, err = parseEndpoints(o.Endpoints, o.tlsFiles()); err != nil {
		return o, err
	}
	if o.ListSpread == 0 {
		o.ListSpread = DefaultListSpread
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	o.Prefix = path.Clean(o.Prefix) // as flannel joins it: //a//b/ is /a/b; one without a leading slash stays so
	for _, d := range []struct {
		name  string
		value *time.Duration
		usual time.Duration
		least time.Duration
	}{
		{"lease TTL", &o.LeaseTTL, DefaultLeaseTTL, time.Second},
		{"dial timeout", &o.DialTimeout, DefaultDialTimeout, time.Millisecond},
		{"request timeout", &o.RequestTimeout, DefaultRequestTimeout, time.Millisecond},
		{"quiet interval", &o.quiet, quietInterval, time.Millisecond},
		{"longest pause", &o.retryLast, retryLast, retryFirst},
	} {
		if *d.value == 0 {
			*d.value = d.usual
		}
		if *d.value < d.least {
			return o, fmt.Errorf("etcd %s is %s, want at least %s", d.name, *d.value, d.least)
		}
	}
	return o, nil
}

// String leaves out the password, so that no log and no error can have it by accident.
func (o Options) String() string {
	return fmt.Sprintf("etcd %s, prefix %s, user %q", strings.Join(o.Endpoints, ","), o.Prefix, o.Username)
}

// GoString does the same for %#v.
func (o Options) GoString() string { return o.String() }

// tlsFiles reports whether any file for TLS is named.
func (o Options) tlsFiles() bool { return o.CAFile != "" || o.CertFile != "" }

// secure reports whether the endpoints, which are of one kind, are spoken to over TLS.
func (o Options) secure() bool { return strings.HasPrefix(o.Endpoints[0], "https://") }

// parseEndpoints returns the endpoints as URLs of a scheme, a host and a port.
func parseEndpoints(list []string, secure bool) ([]string, error) {
	var endpoints []string
	for _, text := range list {
		for part := range strings.SplitSeq(text, ",") {
			part = strings.TrimSpace(part)
			if part == "" {
				continue
			}
			e, err := parseEndpoint(part, secure)
			if err != nil {
				return nil, err
			}
			if len(endpoints) > 0 && strings.HasPrefix(e, "https:") != strings.HasPrefix(endpoints[0], "https:") {
				return nil, fmt.Errorf("etcd endpoints %s and %s: want all http or all https", endpoints[0], e)
			}
			if !slices.Contains(endpoints, e) {
				endpoints = append(endpoints, e)
			}
		}
	}
	if len(endpoints) == 0 {
		return nil, errors.New("no etcd endpoint is given: want at least one, such as http://10.0.0.1:2379")
	}
	return endpoints, nil
}

// parseEndpoint brings one endpoint into the form SCHEME://HOST:PORT.
func parseEndpoint(text string, secure bool) (string, error) {
	if strings.Contains(text, "@") {
		// Not even named: what stands before the @ may be a password.
		return "", errors.New("etcd endpoint with a user in it: give user name and password apart from the endpoints")
	}
	full := text
	if !strings.Contains(text, "://") {
		scheme := "http"
		if secure {
			scheme = "https"
		}
		full = scheme + "://" + text
	}
	u, err := url.Parse(full)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return "", fmt.Errorf("etcd endpoint %q: %w; want a URL such as http://10.0.0.1:2379", text, err)
	}
	bad := func(what string) (string, error) {
		return "", fmt.Errorf("etcd endpoint %q: %s; want a URL such as http://10.0.0.1:2379", text, what)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return bad(fmt.Sprintf("scheme %q is neither http nor https", u.Scheme))
	case u.Hostname() == "":
		return bad("has no host")
	case strings.Contains(u.Hostname(), ":") && !strings.Contains(u.Host, "["):
		return bad("an IPv6 address goes in brackets")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return bad("has something after the port")
	}
	port := u.Port()
	if port == "" {
		port = "2379"
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port), nil
}
