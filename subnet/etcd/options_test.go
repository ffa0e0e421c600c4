package etcd

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEndpointsAreTakenInAllTheirSpellings(t *testing.T) {
	for _, c := range []struct {
		in     []string
		secure bool
		want   []string
	}{
		{[]string{"http://10.0.0.1:2379"}, false, []string{"http://10.0.0.1:2379"}},
		{[]string{" https://a:1/ ", "https://b:2//"}, false, []string{"https://a:1", "https://b:2"}},
		{[]string{"a:1,b:2, ,c"}, false, []string{"http://a:1", "http://b:2", "http://c:2379"}},
		{[]string{"a:1"}, true, []string{"https://a:1"}},
		{[]string{"http://a:1"}, true, []string{"http://a:1"}},
		{[]string{"[fd00::1]:2379", "http://[fd00::2]"}, false, []string{"http://[fd00::1]:2379", "http://[fd00::2]:2379"}},
		{[]string{"a:1", "http://a:1/"}, false, []string{"http://a:1"}},
	} {
		got, err := parseEndpoints(c.in, c.secure)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	good := []string{"http://127.0.0.1:1"}
	for _, c := range []struct {
		name string
		opts Options
		want string
	}{
		{"none", Options{}, "no etcd endpoint"},
		{"nothing but blanks", Options{Endpoints: []string{" ", ","}}, "no etcd endpoint"},
		{"scheme", Options{Endpoints: []string{"ftp://a:1"}}, `"ftp://a:1": scheme "ftp"`},
		{"no host", Options{Endpoints: []string{"http://:2379"}}, `"http://:2379": has no host`},
		{"port", Options{Endpoints: []string{"a:b"}}, `"a:b"`},
		{"path", Options{Endpoints: []string{"http://a:1/v2"}}, "something after the port"},
		{"IPv6", Options{Endpoints: []string{"fd00::1"}}, `"fd00::1"`},
		{"control", Options{Endpoints: []string{"http://a\x7f:1"}}, "invalid control character"},
		{"mixed", Options{Endpoints: []string{"http://a:1", "https://b:1"}}, "all http or all https"},
		{"half a certificate", Options{Endpoints: good, CertFile: "c"}, "both a certificate file and a key file"},
		{"no password", Options{Endpoints: good, Username: "u"}, "both a user name and a password"},
		{"CA", Options{Endpoints: []string{"a:1"}, CAFile: "/nonexistent/ca"}, "/nonexistent/ca"},
		{"no CA in it", Options{Endpoints: []string{"a:1"}, CAFile: "/dev/null"}, "/dev/null: holds no PEM certificate"},
		{"certificate", Options{Endpoints: []string{"a:1"}, CertFile: "/nonexistent/c", KeyFile: "/nonexistent/k"}, "/nonexistent/c"},
		{"TTL", Options{Endpoints: good, LeaseTTL: time.Millisecond}, "lease TTL is 1ms"},
		{"timeout", Options{Endpoints: good, RequestTimeout: -1}, "request timeout is -1ns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(c.opts)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
		})
	}
}

func TestSecretInAnEndpointIsNotRepeated(t *testing.T) {
	for _, e := range []string{"https://user:hunter2@a:1", "user:hunter2@a:1", "http://user:hunter2@a:b%"} {
		_, err := New(Options{Endpoints: []string{e}})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestDefaults(t *testing.T) {
	o, err := Options{Endpoints: []string{"a"}, Prefix: "/x/y//"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if o.Prefix != "/x/y" || o.LeaseTTL != 24*time.Hour || o.RequestTimeout != 5*time.Second || o.Log == nil {
		t.Errorf("%+v", o)
	}
	if o, err = (Options{Endpoints: []string{"a"}}).withDefaults(); err != nil || o.Prefix != "/coreos.com/network" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestCertificatesForAnEndpointInTheClearAreSaid(t *testing.T) {
	log, kept := logger(t)
	open(t, Options{Endpoints: []string{"http://127.0.0.1:1"}, CAFile: "/nonexistent/ca", Log: log})
	if lines := kept.lines(); len(lines) != 1 || !strings.Contains(lines[0], "without TLS") {
		t.Errorf("logged %q", lines)
	}
}
