package cniplugin

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
)

// main runs the whole program.
func (n *node) main(stdin string, environ ...string) int {
	n.stdout.Reset()
	n.stderr.Reset()
	n.plugin.Stdin = strings.NewReader(stdin)
	n.plugin.Environ = environ
	return n.plugin.Main(n.t.Context(), func() string { return "about" })
}

func TestMainByHand(t *testing.T) {
	n := newNode(t)
	if status := n.main("", "PATH=/bin"); status != 0 || n.stdout.Len() > 0 ||
		n.stderr.String() != "about\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n" {
		t.Errorf("status %d, printed %q and %q", status, &n.stdout, &n.stderr)
	}
	if status := n.main("", "CNI_COMMAND=VERSION"); status != 0 || !strings.Contains(n.stdout.String(), `"supportedVersions":["0.1.0",`) || n.stderr.Len() > 0 {
		t.Errorf("status %d, printed %q and %q", status, &n.stdout, &n.stderr)
	}
}

func TestMainPrintsErrors(t *testing.T) {
	n := newNode(t)
	environ := []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=/x", "CNI_IFNAME=eth0", "CNI_PATH=/nowhere"}
	const want = `{
    "cniVersion": "0.3.1",
    "code": 6,
    "msg": "decode network configuration",
    "details": "delegate is a JSON number, want an object"
}
`
	if status := n.main(`{"cniVersion":"0.3.1","name":"n","delegate":7}`, environ...); status != 1 || n.stdout.String() != want || n.stderr.Len() > 0 {
		t.Errorf("status %d, printed %s and %s\nwant %s", status, &n.stdout, &n.stderr, want)
	}
	n.plugin.Stdout = brokenPipe{}
	if status := n.main("", environ...); status != 1 || !strings.Contains(n.stderr.String(), "not a JSON object") || !strings.Contains(n.stderr.String(), "broken pipe") {
		t.Errorf("status %d, printed %s", status, &n.stderr)
	}
	if status := n.main("", "CNI_COMMAND=VERSION"); status != 1 || !strings.Contains(n.stderr.String(), "print the versions") {
		t.Errorf("status %d, printed %s", status, &n.stderr)
	}
	var b bytes.Buffer
	if err := (&Plugin{Stdout: &b}).printError(errors.New("odd")); err != nil || !strings.Contains(b.String(), `"code": 999`) {
		t.Errorf("printed %s, %v", &b, err)
	}
	n.plugin.Stdin, n.plugin.Stdout = brokenPipe{}, &n.stdout
	if err := n.plugin.run(t.Context()); err != nil {
		t.Errorf("VERSION reads: %v", err)
	}
	n.plugin.Environ = environ
	if e, ok := errors.AsType[*types.Error](n.plugin.run(t.Context())); !ok || e.Code != types.ErrIOFailure {
		t.Errorf("got %v", e)
	}
}

func (brokenPipe) Read([]byte) (int, error) { return 0, fmt.Errorf("broken pipe") }

// TestNodesOwnNamespace must find nothing done, in particular no interface of the node's deleted.
func TestNodesOwnNamespace(t *testing.T) {
	n := newNode(t)
	n.args.Netns = "/proc/self/ns/net"
	for _, verb := range []func(*args) error{n.verbs.Add, n.verbs.Check, n.verbs.Del} {
		n.fails(verb, types.ErrInvalidNetNS, "CNI_NETNS is the node's own network namespace")
	}
	n.delegated()
	for _, override := range []string{"1", "true"} {
		n.setenv("CNI_NETNS_OVERRIDE=" + override)
		n.ok(n.verbs.Del)
	}
	n.delegated("DEL", "DEL")
	n.setenv("CNI_NETNS_OVERRIDE=")
	n.args.Netns = newPod(t, 1450).Path()
	n.ok(n.verbs.Del)
}

func TestEnvironment(t *testing.T) {
	n := newNode(t)
	n.conf["cniVersion"] = "1.1.0"
	whole := n.args
	for name, spoil := range map[string]func(){
		"CNI_CONTAINERID": func() { n.args.ContainerID = "" },
		"CNI_IFNAME":      func() { n.args.IfName = "" },
		"CNI_NETNS":       func() { n.args.Netns = "" },
		"CNI_PATH":        func() { n.args.Path = "" },
	} {
		n.args = whole
		spoil()
		n.fails(n.verbs.Add, types.ErrInvalidEnvironmentVariables, "the environment lacks "+name+"; ADD needs it")
		n.fails(n.verbs.Check, types.ErrInvalidEnvironmentVariables, "the environment lacks "+name)
		if name == "CNI_NETNS" {
			n.ok(n.verbs.Del)
		} else {
			n.fails(n.verbs.Del, types.ErrInvalidEnvironmentVariables, "the environment lacks "+name)
		}
		if name == "CNI_PATH" {
			n.fails(n.verbs.Status, types.ErrInvalidEnvironmentVariables, "the environment lacks "+name)
			n.fails(n.verbs.GC, types.ErrInvalidEnvironmentVariables, "the environment lacks "+name)
		} else {
			n.ok(n.verbs.Status)
			n.ok(n.verbs.GC)
		}
	}
}

func TestVersions(t *testing.T) {
	n := newNode(t)
	for _, version := range []string{"9.0.0", "1.0", "x"} {
		n.conf["cniVersion"] = version
		n.fails(n.verbs.Add, types.ErrIncompatibleCNIVersion, "cniVersion is", "want one of 0.1.0, 0.2.0")
	}
	for version, verb := range map[string]func(*args) error{"0.3.1": n.verbs.Check, "": n.verbs.Check, "1.0.0": n.verbs.Status, "0.4.0": n.verbs.GC} {
		n.conf["cniVersion"] = version
		n.fails(verb, types.ErrIncompatibleCNIVersion, "came with")
	}
	n.delegated()
}

// TestNamesAsLibcniHasThem compares with the regular expressions that we spare ourselves.
func TestNamesAsLibcniHasThem(t *testing.T) {
	for _, name := range []string{"", "a", "A9", "_a", "-a", ".a", "a_.-", "a b", "a/b", "a:b", "a\n", "ä", "..", "0123456789abcde", "0123456789abcdef", "a\tb", "a@b"} {
		if got, want := checkNetwork(name) == nil, utils.ValidateNetworkName(name) == nil; got != want {
			t.Errorf("network %q: %t, libcni says %t", name, got, want)
		}
		if got, want := isName(name), utils.ValidateContainerID(name) == nil; got != want {
			t.Errorf("container ID %q: %t, libcni says %t", name, got, want)
		}
		if got, want := checkInterface(name) == nil, utils.ValidateInterfaceName(name) == nil; got != want {
			t.Errorf("interface %q: %t, libcni says %t", name, got, want)
		}
	}
}
