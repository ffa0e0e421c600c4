package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// recorder stands in for the bandwidth plugin: it notes what it is told, and hands on the result so far.
const recorder = `#!/bin/sh
cat >"/run/$CNI_COMMAND.json"
if [ "$CNI_COMMAND" = ADD ]; then sed 's/.*"prevResult":\(.*\),"runtimeConfig".*/\1/' /run/ADD.json; fi
`

// testChain runs selvage, the real portmap and a plugin that notes what it is told, with what the runtime adds for each.
func testChain(t *testing.T, bin string) {
	if err := os.WriteFile(filepath.Join(bin, "bandwidth"), []byte(recorder), 0o700); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
	n.list = n.network(`{"cniVersion":"1.0.0","name":"cbr0","plugins":[
		{"type":"selvage","delegate":{"isDefaultGateway":true},"capabilities":{"mac":true,"portMappings":true,"bandwidth":true}},
		{"type":"portmap","capabilities":{"portMappings":true}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`)
	pod := n.pod()
	rt := attach(pod, "eth0")
	const mac = "02:11:22:33:44:55"
	rt.CapabilityArgs = map[string]any{
		"mac":          mac,
		"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
		"bandwidth":    map[string]any{"ingressRate": 1000000, "ingressBurst": 100000},
	}
	n.add(rt)
	n.do(func() error {
		kept, err := os.ReadFile(filepath.Join(dataDir, "cbr0:c1:eth0"))
		if err != nil {
			return err
		}
		var config struct{ RuntimeConfig map[string]any }
		if err := json.Unmarshal(kept, &config); err != nil {
			return err
		}
		for _, key := range []string{"mac", "portMappings", "bandwidth"} {
			if config.RuntimeConfig[key] == nil {
				t.Errorf("the delegate was not told %s: %s", key, kept)
			}
		}
		told, err := os.ReadFile("/run/ADD.json")
		if err != nil {
			return err
		}
		if !strings.Contains(string(told), "10.5.29.2/24") || !strings.Contains(string(told), `"ingressRate":1000000`) {
			t.Errorf("the last plugin was told %s", told)
		}
		return nil
	})
	if rules := n.natRules(); !strings.Contains(rules, "8080") || !strings.Contains(rules, "10.5.29.2:80") {
		t.Errorf("no port is mapped:\n%s", rules)
	}
	if err := n.check(rt); err != nil {
		t.Error(err)
	}
	n.del(rt)
	if rules := n.natRules(); strings.Contains(rules, "8080") {
		t.Errorf("the port is still mapped:\n%s", rules)
	}
	n.wantAddresses()
	n.wantState()
	n.wantVeths(0)
}

// natRules is what portmap has left in the kernel.
func (n *node) natRules() string {
	n.Helper()
	var rules []byte
	n.do(func() (err error) {
		rules, err = exec.Command("iptables-save", "-t", "nat").CombinedOutput()
		return err
	})
	return string(rules)
}
