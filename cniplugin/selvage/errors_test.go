package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// obedient is a delegate that does what a file /run/VERB says, which is a script, and succeeds otherwise.
const obedient = `#!/bin/sh
if [ -e "/run/$CNI_COMMAND" ]; then . "/run/$CNI_COMMAND"; fi
if [ "$CNI_COMMAND" = ADD ]; then echo '{"cniVersion":"1.1.0","ips":[{"address":"10.5.29.2/24"}]}'; fi
`

// errorCase is one way to fail: what differs from a call that succeeds.
type errorCase struct {
	name  string
	verb  string
	env   []string       // further assignments
	conf  map[string]any // further keys; nil removes one
	stdin string         // in place of a configuration
	setup func(*failing)
}

// failing is a node whose delegates are obedient.
type failing struct {
	*node
	pod *sandbox.Net
	bin string
}

func (f *failing) write(path, content string) {
	f.Helper()
	f.do(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(content), 0o600)
	})
}

func delegateSays(verb, script string) func(*failing) {
	return func(f *failing) { f.write("/run/"+verb, script) }
}

func bridgeOf(addr string, attached bool) func(*failing) {
	return func(f *failing) {
		f.write("/run/ADD", `echo '{"code":999,"msg":"failed to set bridge addr"}'; exit 1`)
		f.do(func() error {
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
			if err := netlink.LinkAdd(bridge); err != nil {
				return err
			}
			p := netip.MustParsePrefix(addr)
			ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
			if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: ip}); err != nil || !attached {
				return err
			}
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1", MasterIndex: bridge.Attrs().Index}, PeerName: "veth2"})
		})
	}
}

func noAddressLeft(f *failing) {
	a := netip.MustParseAddr("10.5.29.2")
	for i := range 253 {
		f.write(filepath.Join(addresses, a.String()), fmt.Sprintf("x%d\r\neth0", i))
		a = a.Next()
	}
}

func noSubnetFile(f *failing) { f.do(func() error { return os.Remove(subnetFile) }) }

func status(s subnetfile.Status) func(*failing) {
	return func(f *failing) { f.do(func() error { return subnetfile.WriteStatus(subnetFile, s) }) }
}

const (
	saysFull = `echo '{"cniVersion":"1.1.0","code":11,"msg":"not now","details":"the disk is full"}'; exit 1`
	keptPath = dataDir + "/cbr0:c1:eth0"
	podArgs  = "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=db-0;K8S_POD_UID=u1"
	kept     = `{"cniVersion":"1.1.0","ipam":{"ranges":[[{"subnet":"10.5.29.0/24"}]],"type":"host-local"},"name":"cbr0","type":"bridge"}`
)

func errorCases() []errorCase {
	return []errorCase{
		{name: "unknown verb", verb: "FROB"},
		{name: "no container", verb: "ADD", env: []string{"CNI_CONTAINERID="}},
		{name: "container ID that is a path", verb: "DEL", env: []string{"CNI_CONTAINERID=../c1"}},
		{name: "interface name too long", verb: "ADD", env: []string{"CNI_IFNAME=eth0123456789012"}},
		{name: "the node's own namespace", verb: "DEL", env: []string{"CNI_NETNS=/proc/self/ns/net"}},
		{name: "no JSON", verb: "ADD", stdin: `{"cniVersion":"1.1.0",`},
		{name: "no network name", verb: "ADD", conf: map[string]any{"name": nil}},
		{name: "network name that is a path", verb: "STATUS", conf: map[string]any{"name": "a/b"}},
		{name: "unknown version", verb: "ADD", conf: map[string]any{"cniVersion": "9.0.0"}},
		{name: "CHECK before its version", verb: "CHECK", conf: map[string]any{"cniVersion": "0.3.1"}},
		{name: "STATUS before its version", verb: "STATUS", conf: map[string]any{"cniVersion": "1.0.0"}},
		{name: "GC before its version", verb: "GC", conf: map[string]any{"cniVersion": "1.0.0"}},
		{name: "key of another type", verb: "ADD", conf: map[string]any{"cniVersion": "0.4.0", "delegate": "bridge"}},
		{name: "wait too long", verb: "ADD", conf: map[string]any{"subnetFileWait": 3600}},

		{name: "ADD without a subnet file", verb: "ADD", setup: noSubnetFile},
		{name: "ADD without a subnet file, after waiting", verb: "ADD", conf: map[string]any{"subnetFileWait": 0.1}, setup: noSubnetFile},
		{name: "ADD with a damaged subnet file", verb: "ADD", setup: func(f *failing) { f.write(subnetFile, "FLANNEL_SUBNET=10.5.29.1\n") }},
		{name: "ADD with a subnet file that cannot be read", verb: "ADD", conf: map[string]any{"subnetFile": "/run/flannel"}},
		{name: "delegate with ipam in it", verb: "ADD", conf: map[string]any{"delegate": map[string]any{"ipam": map[string]any{}}}},
		{name: "delegate that is a path", verb: "ADD", conf: map[string]any{"delegate": map[string]any{"type": "/bin/sh"}}},
		{name: "delegate not installed", verb: "ADD", conf: map[string]any{"delegate": map[string]any{"type": "ptp"}}},
		{name: "dataDir that is a file", verb: "ADD", conf: map[string]any{"dataDir": subnetFile}},
		{name: "ADD fails in the delegate", verb: "ADD", setup: delegateSays("ADD", saysFull)},
		{name: "ADD fails in the delegate, and so does cleaning up", verb: "ADD", setup: func(f *failing) {
			f.write("/run/ADD", saysFull)
			f.write("/run/DEL", saysFull)
		}},
		{name: "ADD of what was added before", verb: "ADD", setup: func(f *failing) {
			f.write("/run/ADD", saysFull)
			f.write(keptPath, kept)
		}},
		{name: "delegate dies", verb: "ADD", setup: delegateSays("ADD", "echo it hurts; kill -SEGV $$")},
		{name: "delegate prints no result", verb: "ADD", setup: delegateSays("ADD", "exit 0")},
		{name: "delegate prints a result of an unknown version", verb: "ADD", setup: delegateSays("ADD", `echo '{"cniVersion":"9.0.0"}'; exit 0`)},
		{name: "no address left", verb: "ADD", setup: func(f *failing) {
			noAddressLeft(f)
			f.write("/run/ADD", `echo '{"code":999,"msg":"failed to allocate for range 0"}'; exit 1`)
		}},
		{name: "bridge of another subnet", verb: "ADD", setup: bridgeOf("10.5.77.1/24", true)},
		{name: "bridge of another subnet with containers, to be repaired", verb: "ADD", conf: map[string]any{"repairBridge": true}, setup: bridgeOf("10.5.77.1/24", true)},
		{name: "bridge of somebody else, to be repaired", verb: "ADD", conf: map[string]any{"repairBridge": true}, setup: bridgeOf("192.0.2.1/24", false)},

		{name: "policyWait too long", verb: "ADD", conf: map[string]any{"policyWait": 120}},
		{name: "unknown policyFailure", verb: "ADD", conf: map[string]any{"policyFailure": "open"}},
		{name: "network policies, and no daemon", verb: "ADD", env: []string{podArgs}, conf: map[string]any{"policyWait": 0.01}, setup: status(policies())},
		{name: "network policies, and a damaged status file", verb: "ADD", env: []string{podArgs}, conf: map[string]any{"policyWait": 0.01},
			setup: func(f *failing) { f.write(subnetFile+".status", "x") }},
		{name: "network policies not in force in time", verb: "ADD", env: []string{podArgs},
			conf: map[string]any{"policyWait": 0.01, "policyFailure": "fail"}, setup: func(f *failing) {
				status(policies())(f)
				e := newEngine()
				e.attach = func(ctx context.Context, _ api.Attachment) error { <-ctx.Done(); return ctx.Err() }
				enforcing(f.T, f.host, e)
			}},

		{name: "DEL fails in the delegate", verb: "DEL", setup: delegateSays("DEL", saysFull)},

		{name: "CHECK without a subnet file", verb: "CHECK", setup: func(f *failing) {
			noSubnetFile(f)
			f.write(keptPath, kept)
		}},
		{name: "CHECK fails in the delegate", verb: "CHECK", setup: delegateSays("CHECK", saysFull)},
		{name: "CHECK where the container is gone", verb: "CHECK", env: []string{"CNI_NETNS=/run/netns/gone"}},
		{name: "CHECK where the interface is gone", verb: "CHECK"},
		{name: "CHECK of a container with nothing right", verb: "CHECK", env: []string{"CNI_IFNAME=lo"}},

		{name: "STATUS without a subnet file", verb: "STATUS", setup: noSubnetFile},
		{name: "STATUS of an overlay that is not usable", verb: "STATUS", setup: status(subnetfile.Status{Reason: "etcd was not reached yet"})},
		{name: "STATUS of an overlay that does not work", verb: "STATUS", setup: status(subnetfile.Status{Limited: true, Reason: "flannel.1 cannot be made"})},
		{name: "STATUS with a damaged status file", verb: "STATUS", setup: func(f *failing) { f.write(subnetFile+".status", "x") }},
		{name: "STATUS without a delegate", verb: "STATUS", conf: map[string]any{"delegate": map[string]any{"type": "ptp"}}},
		{name: "STATUS with no address left", verb: "STATUS", setup: noAddressLeft},
		{name: "STATUS fails in the delegate", verb: "STATUS", setup: delegateSays("STATUS", saysFull)},

		{name: "GC cannot end an attachment", verb: "GC", conf: map[string]any{"cni.dev/valid-attachments": []any{}}, setup: func(f *failing) {
			f.write("/run/DEL", saysFull)
			f.write(keptPath, kept)
		}},
		{name: "GC with attachments that are none", verb: "GC", conf: map[string]any{"cni.dev/valid-attachments": "all"}},
		{name: "GC fails in the delegates", verb: "GC", setup: delegateSays("GC", saysFull)},
	}
}

// testErrorTable finds what the program prints in each case, byte for byte, in a table: a heading a case, and what is on
// standard output. It prints the whole table if something differs, to be looked at and put in the old one's place.
func testErrorTable(t *testing.T, bin string) {
	want, err := os.ReadFile("testdata/errors.golden")
	if err != nil {
		t.Fatal(err)
	}
	plugins := t.TempDir()
	for _, plugin := range []string{"bridge", "host-local"} {
		if err := os.WriteFile(filepath.Join(plugins, plugin), []byte(obedient), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var table bytes.Buffer
	for _, c := range errorCases() {
		f := &failing{node: newNode(t, bin, "1.1.0", "selvage", ipv4File()), bin: plugins}
		f.pod = f.node.pod()
		if c.setup != nil {
			c.setup(f)
		}
		out := f.call(c)
		fmt.Fprintf(&table, "== %s: %s\n%s", c.verb, c.name, out)
		if !bytes.Contains(want, fmt.Appendf(nil, "== %s: %s\n%s", c.verb, c.name, out)) {
			t.Errorf("%s: %s: printed\n%s", c.verb, c.name, out)
		}
	}
	if !bytes.Equal(table.Bytes(), want) {
		t.Errorf("testdata/errors.golden should be:\n%s", &table)
	}
}

// call runs the program, which has to fail as a plugin fails.
func (f *failing) call(c errorCase) string {
	f.Helper()
	conf := map[string]any{"cniVersion": "1.1.0", "name": "cbr0", "type": "selvage"}
	for key, value := range c.conf {
		if conf[key] = value; value == nil {
			delete(conf, key)
		}
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		f.Fatal(err)
	}
	if c.stdin != "" {
		stdin = []byte(c.stdin)
	}
	var stdout, stderr bytes.Buffer
	err = f.host.Do(func() error {
		cmd := exec.Command(filepath.Join(f.cni.Path[0], "selvage"))
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + c.verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0",
			"CNI_NETNS=" + f.pod.Path(), "CNI_PATH=" + f.bin}, c.env...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
		return cmd.Run()
	})
	var e types.Error
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || stderr.Len() > 0 || json.Unmarshal(stdout.Bytes(), &e) != nil || e.Msg == "" {
		f.Errorf("%s: %v, printed %s, on stderr %s; want exit status 1, and an error as JSON alone", c.name, err, &stdout, &stderr)
	}
	out := strings.ReplaceAll(stdout.String(), f.bin, "$CNI_PATH")
	return strings.ReplaceAll(out, f.pod.Path(), "$CNI_NETNS")
}
