package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/subnet"
)

// pflagFlag is one flag, as pflag has it.
type pflagFlag = pflag.Flag

func parsed(t *testing.T, args []string, environment map[string]string) (flags, error) {
	t.Helper()
	f, _, err := parsedFlags(args, environment)
	return *f, err
}

func parsedFlags(args []string, environment map[string]string) (*flags, *pflag.FlagSet, error) {
	f := &flags{}
	s := pflag.NewFlagSet("selvaged", pflag.ContinueOnError)
	f.register(s)
	args, err := flannelArgs(args, s)
	if err == nil {
		err = s.Parse(args)
	}
	if err != nil {
		return f, s, err
	}
	f.lookup = func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
	err = command.FromEnvironment(s, f.lookup)
	f.ignored, f.ignoredByStore = f.noEffect.given(s), f.store.Ignored(s, f.lookup)
	return f, s, err
}

// TestFlannelsFlags: every flag that flannel's unit files have, with one dash and with two.
func TestFlannelsFlags(t *testing.T) {
	args := []string{
		"etcd-endpoints=http://a:2379,http://b:2379", "etcd-prefix=/p", "etcd-keyfile=k", "etcd-certfile=c", "etcd-cafile=ca",
		"etcd-username=u", "etcd-password=p", "iface=eth0", "iface=192.0.2.1", "iface-regex=eth[0-9]{1,2}", "iface-can-reach=192.0.2.9",
		"public-ip=192.0.2.2", "public-ipv6=2001:db8::2", "subnet-file=/s", "subnet-lease-renew-margin=30", "ip-masq",
		"ip-masq-fully-random-disable", "iptables-resync=7", "iptables-forward-rules=false", "ip-blackhole-route", "healthz-ip=127.0.0.1",
		"healthz-port=8081", "version",
	}
	for _, dash := range []string{"-", "--"} {
		var line []string
		for _, a := range args {
			line = append(line, dash+a)
		}
		f, err := parsed(t, line, nil)
		if err != nil {
			t.Fatalf("%s: %v", dash, err)
		}
		if !slices.Equal(f.store.Etcd.Endpoints, []string{"http://a:2379", "http://b:2379"}) || f.store.Etcd.Password != "p" ||
			!slices.Equal(f.uplink.Ifaces, []string{"eth0", "192.0.2.1"}) || f.uplink.IfaceRegexes[0] != "eth[0-9]{1,2}" ||
			f.publicIP[subnet.IPv6] != "2001:db8::2" || !f.node.IPMasq || f.node.Forward || f.rulesResync != 7 || f.healthzPort != 8081 || !f.showVersion {
			t.Errorf("%s: %+v", dash, f)
		}
	}
}

func TestEnvironment(t *testing.T) {
	env := map[string]string{
		"SELVAGED_ETCD_PREFIX": "/ours", "FLANNELD_ETCD_PREFIX": "/theirs",
		"FLANNELD_IP_MASQ": "true", "FLANNELD_IFACE": "eth7", "SELVAGED_NODE_NAME": "from-env",
	}
	f, err := parsed(t, []string{"--node-name=from-flag"}, env)
	if err != nil {
		t.Fatal(err)
	}
	if f.store.Etcd.Prefix != "/ours" || !f.node.IPMasq || f.uplink.Ifaces[0] != "eth7" || f.node.NodeName != "from-flag" {
		t.Errorf("prefix %q, masq %v, ifaces %q, name %q", f.store.Etcd.Prefix, f.node.IPMasq, f.uplink.Ifaces, f.node.NodeName)
	}
	_, err = parsed(t, nil, map[string]string{"SELVAGED_IPTABLES_RESYNC": "often"})
	if err == nil || !strings.Contains(err.Error(), "environment variable SELVAGED_IPTABLES_RESYNC") {
		t.Errorf("error %v, want one that names the variable", err)
	}
}

func TestBadFlags(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--no-such-flag", "unknown flag: --no-such-flag (see selvaged --help)"},
		{"--public-ip=2001:db8::1", `--public-ip: "2001:db8::1" is not an IPv4 address`},
		{"--public-ipv6=192.0.2.1", `--public-ipv6: "192.0.2.1" is not an IPv6 address`},
		{"--iface-can-reach=here", `--iface-can-reach: "here" is not an IP address`},
		{"--log-level=loud", `--log-level: "loud", want error, warning, info or debug`},
		{"--log-format=xml", `--log-format: "xml", want text or json`},
		{"--iptables-resync=0", "--iptables-resync and --resync: want more than 0"},
		{"--peer-grace=-1s", "--peer-grace: want 0 or more"},
		{"--kube-subnet-mgr", "the name of this node's Node is unknown: set NODE_NAME, or POD_NAME and POD_NAMESPACE, in the environment " +
			"(the downward API has spec.nodeName, metadata.name and metadata.namespace)"},
		{"extra", `unknown command "extra" (see selvaged --help)`},
	} {
		if err := execute(context.Background(), []string{tt.args}); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.args, err, tt.want)
		}
	}
}
