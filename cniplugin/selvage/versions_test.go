package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// testVersions has libcni drive every verb at every version of the spec that it knows, and finds what happened in the
// documentation, row by row.
func testVersions(t *testing.T, bin string) {
	page, err := os.ReadFile("../../Documentation/cni.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range version.All.SupportedVersions() {
		t.Run(v, func(t *testing.T) {
			row := versionRow(t, bin, v)
			if !strings.Contains(string(page), row) {
				t.Errorf("Documentation/cni.md lacks this row:\n%s", row)
			}
		})
	}
}

// versionRow returns what each verb gives at a version.
func versionRow(t *testing.T, bin, specVersion string) string {
	n := newNode(t, bin, specVersion, "selvage", ipv4File())
	pod := n.pod()
	rt := attach(pod, "eth0")
	cells := []string{specVersion}
	add := func(format string, args ...any) { cells = append(cells, fmt.Sprintf(format, args...)) }

	var result types.Result
	n.do(func() (err error) { result, err = n.cni.AddNetworkList(t.Context(), n.list, rt); return err })
	add("%s", shape(t, result))
	_, addrs, _ := n.inPod(pod, "eth0")
	n.wantAll("addresses", addrs, "10.5.29.2/24")

	add("%s", n.outcome(pod, "CHECK", func() error { return n.cni.CheckNetworkList(t.Context(), n.list, rt) }))
	n.del(rt)
	n.wantAddresses()
	add("succeeds")
	add("%s", n.outcome(pod, "STATUS", func() error { return n.cni.GetStatusNetworkList(t.Context(), n.list) }))
	add("%s", n.outcome(pod, "GC", func() error { return n.cni.GCNetworkList(t.Context(), n.list, &libcni.GCArgs{}) }))

	n.do(func() error { // VERSION
		_, err := n.cni.ValidateNetworkList(t.Context(), n.list)
		return err
	})
	add("listed")
	n.quiet()
	return "| " + strings.Join(cells, " | ") + " |"
}

// shape says how a result of a version tells addresses.
func shape(t *testing.T, result types.Result) string {
	t.Helper()
	data, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CNIVersion string
		IP4        json.RawMessage
		IPs        []map[string]any
		Interfaces []any
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.CNIVersion != result.Version() {
		t.Errorf("the result names version %q, and is of %s: %s", got.CNIVersion, result.Version(), data)
	}
	switch {
	case got.IP4 != nil && got.IPs == nil:
		return "`ip4`, `routes` in it"
	case len(got.IPs) == 1 && got.IPs[0]["version"] != nil && len(got.Interfaces) == 3:
		return "`interfaces`, `ips` with `version`, `routes`"
	case len(got.IPs) == 1 && len(got.Interfaces) == 3:
		return "`interfaces`, `ips`, `routes`"
	}
	return string(data)
}

// outcome runs a verb through libcni, and by hand as well where libcni knows that the version does not have it.
func (n *node) outcome(pod *sandbox.Net, verb string, through func() error) string {
	n.Helper()
	err := n.host.Do(through)
	since := map[string]string{"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}[verb]
	has, versionErr := version.GreaterThanOrEqualTo(n.list.CNIVersion, since)
	if versionErr != nil {
		n.Fatal(versionErr)
	}
	if has {
		if err != nil {
			n.Errorf("%s: %v", verb, err)
		}
		return "succeeds"
	}
	if err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
		n.Errorf("%s: %v", verb, err)
	}
	e := n.byHand(verb, pod, string(n.list.Plugins[0].Bytes))
	if e == nil {
		n.Fatalf("%s succeeds", verb)
	}
	return fmt.Sprintf("code %d", e.Code)
}

// byHand runs the plugin on the node as a runtime would that does not use libcni. It returns the plugin's error.
func (n *node) byHand(verb string, pod *sandbox.Net, conf string) *types.Error {
	n.Helper()
	var config map[string]any
	if err := json.Unmarshal([]byte(conf), &config); err != nil {
		n.Fatal(err)
	}
	config["name"], config["cniVersion"] = n.list.Name, n.list.CNIVersion
	data, err := json.Marshal(config)
	if err != nil {
		n.Fatal(err)
	}
	var out []byte
	err = n.host.Do(func() error {
		cmd := exec.Command(filepath.Join(n.cni.Path[0], "selvage"))
		cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=" + pod.Path(), "CNI_PATH=" + strings.Join(n.cni.Path, ":")}
		cmd.Stdin = strings.NewReader(string(data))
		out, err = cmd.Output()
		return err
	})
	if err == nil {
		return nil
	}
	var e types.Error
	if jsonErr := json.Unmarshal(out, &e); jsonErr != nil {
		n.Fatalf("%s: %v, printed %q, want an error as JSON", verb, err, out)
	}
	return &e
}
