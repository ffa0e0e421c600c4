package etcdserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Options say how to run etcd. Only Dir is needed.
type Options struct {
	// Binary is the etcd to run; empty: bin/etcd in the module that the working directory is in.
	Binary string
	// Dir is an existing directory, which gets the data (Dir/<name>) and the log (Dir/<name>.log). The caller removes it.
	Dir string
	// Name is the member's name, or with several the start of it; empty: "etcd".
	Name string
	// Host is the address to listen on; empty: 127.0.0.1.
	Host string
	// ClientPort and PeerPort are the ports to listen on; 0: the kernel chooses. With several members they must be 0.
	ClientPort, PeerPort int
	// CertFile and KeyFile, both or none: clients are served over TLS.
	CertFile, KeyFile string
	// ClientCAFile: a client has to show a certificate that this authority signed.
	ClientCAFile string
	// Flags are appended to the command line, for example "--auto-compaction-retention=1".
	Flags []string
}

// addresses are where one member listens.
type addresses struct {
	name                  string
	client, peer, metrics string // host:port
}

func (a addresses) peerURL() string { return "http://" + a.peer }

// arguments returns etcd's command line.
func (o Options) arguments(self addresses, all []addresses) []string {
	scheme := "http"
	if o.CertFile != "" {
		scheme = "https"
	}
	client := scheme + "://" + self.client
	var cluster []string
	for _, a := range all {
		cluster = append(cluster, a.name+"="+a.peerURL())
	}
	args := []string{
		"--name=" + self.name,
		"--data-dir=" + filepath.Join(o.Dir, self.name),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + self.peerURL(), "--initial-advertise-peer-urls=" + self.peerURL(),
		// Health is asked for here: a plain listener works whatever TLS and passwords the clients' one wants.
		"--listen-metrics-urls=http://" + self.metrics,
		"--initial-cluster=" + strings.Join(cluster, ","),
		"--log-level=warn",
		// Tests end servers, not the machine: what is written but not synced survives a kill -9.
		"--unsafe-no-fsync",
	}
	if o.CertFile != "" {
		args = append(args, "--cert-file="+o.CertFile, "--key-file="+o.KeyFile)
	}
	if o.ClientCAFile != "" {
		args = append(args, "--client-cert-auth", "--trusted-ca-file="+o.ClientCAFile)
	}
	return append(args, o.Flags...)
}

// withDefaults checks the options and fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = "etcd"
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.Binary == "" {
		var err error
		if o.Binary, err = findBinary(); err != nil {
			return o, err
		}
	}
	if _, err := os.Stat(o.Binary); err != nil {
		return o, fmt.Errorf("no etcd to run (%w); run: make tools", err)
	}
	info, err := os.Stat(o.Dir)
	if err != nil {
		return o, fmt.Errorf("directory for etcd's data: %w", err)
	}
	if !info.IsDir() {
		return o, fmt.Errorf("directory for etcd's data: %s is not a directory", o.Dir)
	}
	// etcd wants its data to itself, and makes no directory with a relative path look right in its log.
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return o, fmt.Errorf("directory for etcd's data: %w", err)
	}
	return o, nil
}

// findBinary walks up from the working directory to the module's root.
func findBinary() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find bin/etcd: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "bin", "etcd"), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find bin/etcd: not inside a Go module; say where etcd is")
		}
		dir = parent
	}
}

// choosePorts gives every member its addresses. A port is free when it is chosen, which is not yet when etcd opens it:
// Start tries again with others if it was taken meanwhile.
func (o Options) choosePorts(members int) ([]addresses, error) {
	// All listeners stay open until the last port is known, so that no port comes twice.
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	choose := func(port int) (string, error) {
		if port != 0 {
			return net.JoinHostPort(o.Host, fmt.Sprint(port)), nil
		}
		l, err := net.Listen("tcp", net.JoinHostPort(o.Host, "0"))
		if err != nil {
			return "", fmt.Errorf("choose a port for etcd: %w", err)
		}
		open = append(open, l)
		return l.Addr().String(), nil
	}
	all := make([]addresses, members)
	for i := range all {
		a := &all[i]
		a.name = o.Name
		if members > 1 {
			a.name = fmt.Sprintf("%s-%d", o.Name, i+1)
		}
		for _, p := range []struct {
			addr *string
			port int
		}{{&a.client, o.ClientPort}, {&a.peer, o.PeerPort}, {&a.metrics, 0}} {
			var err error
			if *p.addr, err = choose(p.port); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}
