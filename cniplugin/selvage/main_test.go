package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// The tests drive the program as it is installed, through libcni as a container runtime does, with the real bridge and
// host-local, on nodes that are namespaces.
func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

const (
	reference = "../../bin/cni" // the reference plugins
	maxSize   = 5 << 20         // of the program, in bytes

	// Files inside a node.
	subnetFile = "/run/flannel/subnet.env"
	dataDir    = "/var/lib/cni/flannel"
	addresses  = "/var/lib/cni/networks/cbr0" // host-local's
)

func TestProgram(t *testing.T) {
	bin := build(t)
	t.Run("static and small", func(t *testing.T) { testStaticAndSmall(t, bin) })
	t.Run("by hand", func(t *testing.T) { testByHand(t, bin) })
	t.Run("version", func(t *testing.T) { testVersion(t, bin) })
	t.Run("errors", func(t *testing.T) { testErrors(t, bin) })
	for i, v := range version.All.SupportedVersions() {
		plugin := []string{"selvage", "flannel"}[i%2]
		t.Run("spec "+v+" as "+plugin, func(t *testing.T) { testAddDel(t, bin, v, plugin) })
	}
	t.Run("dual stack", func(t *testing.T) { testDualStack(t, bin) })
	t.Run("lost state", func(t *testing.T) { testLostState(t, bin) })
	t.Run("namespace gone", func(t *testing.T) { testNamespaceGone(t, bin) })
	t.Run("two interfaces", func(t *testing.T) { testTwoInterfaces(t, bin) })
	t.Run("error table", func(t *testing.T) { testErrorTable(t, bin) })
	t.Run("versions", func(t *testing.T) { testVersions(t, bin) })
	t.Run("check", func(t *testing.T) { testCheck(t, bin) })
	t.Run("status", func(t *testing.T) { testStatus(t, bin) })
	t.Run("gc", func(t *testing.T) { testGC(t, bin) })
	t.Run("other subnet", func(t *testing.T) { testOtherSubnet(t, bin) })
	t.Run("several networks", func(t *testing.T) { testSeveralNetworks(t, bin) })
	t.Run("all lost", func(t *testing.T) { testAllLost(t, bin) })
	t.Run("chain", func(t *testing.T) { testChain(t, bin) })
	t.Run("k3s", func(t *testing.T) { testK3s(t, bin) })
	t.Run("policies", func(t *testing.T) { testPolicies(t, bin) })
	t.Run("interface in use", func(t *testing.T) { testInterfaceInUse(t, bin) })
}

// build makes the program under both its names, in a directory with nothing else in it.
func build(t testing.TB) string {
	t.Helper()
	for _, plugin := range []string{"bridge", "host-local"} {
		if _, err := os.Stat(filepath.Join(reference, plugin)); err != nil {
			t.Fatalf("run make tools: %v", err)
		}
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "selvage")
	goBuild(t, program, ".")
	if err := os.Link(program, filepath.Join(dir, "flannel")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// goBuild builds a program as make build does.
func goBuild(t testing.TB, program, source string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

func testStaticAndSmall(t *testing.T, bin string) {
	program := filepath.Join(bin, "selvage")
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", info.Size())
	if info.Size() > maxSize {
		t.Errorf("the program has %d bytes, at most %d are wanted", info.Size(), maxSize)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("needs %q, %v", libraries, err)
	}
}

// run runs the program by itself, outside of any node.
func run(bin, stdin string, env ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "selvage"))
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func testByHand(t *testing.T, bin string) {
	stdout, stderr, err := run(bin, "")
	if err != nil || stdout != "" {
		t.Errorf("printed %q, %v", stdout, err)
	}
	for _, want := range []string{"CNI plugin selvage", "container\nruntime runs it", subnetFile, "1.1.0"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("on stderr is %q, want %q in it", stderr, want)
		}
	}
}

func testVersion(t *testing.T, bin string) {
	stdout, stderr, err := run(bin, `{"cniVersion":"1.1.0"}`, "CNI_COMMAND=VERSION")
	var got struct{ SupportedVersions []string }
	if jsonErr := json.Unmarshal([]byte(stdout), &got); err != nil || jsonErr != nil || stderr != "" {
		t.Fatalf("printed %q and %q, %v", stdout, stderr, err)
	}
	if want := version.All.SupportedVersions(); !slices.Equal(got.SupportedVersions, want) {
		t.Errorf("supports %q, want %q", got.SupportedVersions, want)
	}
}

func testErrors(t *testing.T, bin string) {
	const conf = `{"cniVersion":"1.0.0","name":"cbr0","type":"selvage","subnetFile":"/nonexistent/subnet.env"}`
	for name, test := range map[string]struct {
		stdin string
		env   []string
		code  uint
	}{
		"no such command":   {conf, []string{"CNI_COMMAND=FROB"}, types.ErrInvalidEnvironmentVariables},
		"no container":      {conf, []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID="}, types.ErrInvalidEnvironmentVariables},
		"path in container": {conf, []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=../c1"}, types.ErrInvalidEnvironmentVariables},
		"version":           {`{"cniVersion":"9.0.0","name":"cbr0"}`, []string{"CNI_COMMAND=ADD"}, types.ErrIncompatibleCNIVersion},
		"malformed":         {conf[:20], []string{"CNI_COMMAND=ADD"}, types.ErrDecodingFailure},
		"bad delegate":      {`{"cniVersion":"1.0.0","name":"cbr0","delegate":7}`, []string{"CNI_COMMAND=ADD"}, types.ErrDecodingFailure},
		"no name":           {`{"cniVersion":"1.0.0"}`, []string{"CNI_COMMAND=ADD"}, types.ErrInvalidNetworkConfig},
		"no subnet file":    {conf, []string{"CNI_COMMAND=ADD"}, types.ErrTryAgainLater},
	} {
		t.Run(name, func(t *testing.T) {
			env := append([]string{"CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/x", "CNI_PATH=" + bin}, test.env...)
			stdout, stderr, err := run(bin, test.stdin, env...)
			var got types.Error
			if jsonErr := json.Unmarshal([]byte(stdout), &got); jsonErr != nil {
				t.Fatalf("printed %q, want an error as JSON", stdout)
			}
			if _, failed := errors.AsType[*exec.ExitError](err); !failed || got.Code != test.code || got.Msg == "" || stderr != "" {
				t.Errorf("%v, code %d (%v), on stderr %q; want code %d", err, got.Code, &got, stderr, test.code)
			}
		})
	}
}

func testAddDel(t *testing.T, bin, specVersion, plugin string) {
	n := newNode(t, bin, specVersion, plugin, ipv4File())
	pod := n.pod()
	rt := attach(pod, "eth0")
	address := n.add(rt)
	if !netip.MustParsePrefix("10.5.29.0/24").Contains(address) || address == netip.MustParseAddr("10.5.29.1") {
		t.Errorf("address is %s, want one of 10.5.29.0/24 that is not the gateway's", address)
	}
	mtu, addrs, routes := n.inPod(pod, "eth0")
	if mtu != 1450 {
		t.Errorf("MTU is %d, want 1450", mtu)
	}
	n.wantAll("addresses", addrs, address.String()+"/24")
	n.wantAll("routes", routes, "0.0.0.0/0 via 10.5.29.1", "10.5.0.0/16 via 10.5.29.1")
	n.wantAddresses(address)
	n.wantState("c1")
	n.wantVeths(1)

	if checks, err := version.GreaterThanOrEqualTo(specVersion, "0.4.0"); err != nil {
		t.Fatal(err)
	} else if checks {
		if err := n.check(rt); err != nil {
			t.Error(err)
		}
		breakPod(n, pod)
		if err := n.check(rt); err == nil {
			t.Error("CHECK finds nothing wrong with a pod that lost its default route")
		}
	}
	for range 2 { // DEL is repeatable
		n.del(rt)
		n.wantAddresses()
		n.wantState()
		n.wantVeths(0)
		n.wantGone(pod, "eth0")
	}
	n.quiet()
}

func breakPod(n *node, pod *sandbox.Net) {
	n.Helper()
	err := pod.Do(func() error {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
		if err != nil || len(routes) == 0 {
			return fmt.Errorf("no default route: %w", err)
		}
		return netlink.RouteDel(&routes[0])
	})
	if err != nil {
		n.Fatal(err)
	}
}

func testDualStack(t *testing.T, bin string) {
	file := ipv4File()
	file.Networks[subnet.IPv6] = []netip.Prefix{netip.MustParsePrefix("fd00:5::/56")}
	file.Subnets[subnet.IPv6] = netip.MustParsePrefix("fd00:5:0:1d::1/64")
	n := newNode(t, bin, "1.1.0", "selvage", file)
	pod := n.pod()
	rt := attach(pod, "eth0")
	n.add(rt)
	_, addrs, routes := n.inPod(pod, "eth0")
	n.wantAll("addresses", addrs, "10.5.29.2/24", "fd00:5:0:1d::2/64")
	n.wantAll("routes", routes, "0.0.0.0/0 via 10.5.29.1", "10.5.0.0/16 via 10.5.29.1",
		"::/0 via fd00:5:0:1d::1", "fd00:5::/56 via fd00:5:0:1d::1")
	n.wantAddresses(netip.MustParseAddr("10.5.29.2"), netip.MustParseAddr("fd00:5:0:1d::2"))
	n.del(rt)
	n.wantAddresses()
	n.wantVeths(0)
	n.quiet()
}

func testLostState(t *testing.T, bin string) {
	kept := filepath.Join(dataDir, "c1")
	for name, lose := range map[string]func() error{
		"removed":         func() error { return os.Remove(kept) },
		"truncated":       func() error { return os.Truncate(kept, 10) },
		"left by flannel": func() error { return moveStored(kept, kept) },
		"left by an earlier version": func() error {
			return moveStored(kept, filepath.Join(dataDir, "cbr0:c1:eth0"))
		},
		"node got another subnet": func() error {
			file := ipv4File()
			file.Subnets[subnet.IPv4] = netip.MustParsePrefix("10.5.77.1/24")
			return errors.Join(os.Remove(kept), subnetfile.Write(subnetFile, file))
		},
		"no subnet file": func() error { return os.Remove(subnetFile) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
			pod := n.pod()
			rt := attach(pod, "eth0")
			n.add(rt)
			n.do(lose)
			n.del(rt)
			n.wantAddresses()
			n.wantVeths(0)
			n.wantState()
			n.wantGone(pod, "eth0")
			n.quiet()
		})
	}
}

// moveStored moves a stored configuration, and takes the interface's name out of it, which flannel's plugin does not write.
func moveStored(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	rest := strings.Replace(string(data), `"selvage.io/interface":"eth0",`, "", 1)
	if rest == string(data) {
		return fmt.Errorf("%s names no interface: %s", from, data)
	}
	return errors.Join(os.Remove(from), os.WriteFile(to, []byte(rest), 0o600))
}

func testNamespaceGone(t *testing.T, bin string) {
	n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
	pod, err := n.host.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	rt := attach(pod, "eth0")
	n.add(rt)
	if err := pod.Close(); err != nil {
		t.Fatal(err)
	}
	n.del(rt)
	n.wantAddresses()
	n.wantState()
	n.quiet()
}

func testTwoInterfaces(t *testing.T, bin string) {
	n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
	pod := n.pod()
	first, second := attach(pod, "eth0"), attach(pod, "net1")
	a, b := n.add(first), n.add(second)
	if a == b {
		t.Errorf("both have address %s", a)
	}
	n.wantAddresses(a, b)
	n.wantState("c1", "cbr0:c1:net1")
	n.wantVeths(2)
	n.del(first)
	n.wantGone(pod, "eth0")
	_, addrs, _ := n.inPod(pod, "net1")
	n.wantAll("addresses", addrs, b.String()+"/24")
	n.wantAddresses(b)
	n.wantState("cbr0:c1:net1")
	n.del(second)
	n.wantAddresses()
	n.wantState()
	n.wantVeths(0)
	n.quiet()
}

// testInterfaceInUse attaches where an interface of that name exists already.
func testInterfaceInUse(t *testing.T, bin string) {
	n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
	pod := n.pod()
	rt := attach(pod, "eth0")
	address := n.add(rt)
	err := n.host.Do(func() error {
		_, err := n.cni.AddNetworkList(t.Context(), n.list, rt)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "was added before; DEL it first") {
		t.Errorf("a second ADD: %v", err)
	}
	_, addrs, _ := n.inPod(pod, "eth0") // and the pod has not lost its interface
	n.wantAll("addresses", addrs, address.String()+"/24")
	n.wantAddresses(address)
	n.wantVeths(1)
	n.del(rt)
	n.wantAddresses()
	n.wantVeths(0)
}
