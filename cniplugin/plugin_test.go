package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	records "github.com/selvage-net/selvage/subnet/attachment"
)

// fakeDelegate is a delegate that keeps what it is told in $FAKE and fails where a file fail-VERB says how.
const fakeDelegate = `#!/bin/sh
echo "$CNI_COMMAND" >>"$FAKE/verbs"
cat >"$FAKE/$CNI_COMMAND.json"
echo "$CNI_IFNAME" >"$FAKE/ifname"
if [ -f "$FAKE/fail-$CNI_COMMAND" ]; then cat "$FAKE/fail-$CNI_COMMAND"; exit 1; fi
if [ "$CNI_COMMAND" = ADD ]; then cat "$FAKE/result"; fi
`

const testResult = `{"cniVersion":"1.0.0","ips":[{"address":"10.5.29.2/24"}]}`

// The tests make network namespaces.
func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

// node is a plugin with a fake delegate and files in directories of the test's own.
type node struct {
	t              *testing.T
	dir            string // holds what follows
	state          string // the plugin's dataDir
	fake           string // what the delegate keeps
	stdout, stderr bytes.Buffer
	plugin         *Plugin
	verbs          funcs
	conf           map[string]any
	args           args
}

// args is what the runtime puts into the environment, and the configuration as it is passed on standard input.
type args struct {
	ContainerID, Netns, IfName, Path string
	StdinData                        []byte
}

// funcs is each verb as a function.
type funcs struct{ Add, Del, Check, Status, GC func(*args) error }

func funcsOf(ctx context.Context, p *Plugin) funcs {
	verb := func(name string) func(*args) error {
		return func(a *args) error {
			p.Stdin = bytes.NewReader(a.StdinData)
			p.Environ = assign(p.Environ, []string{"CNI_COMMAND=" + name, "CNI_CONTAINERID=" + a.ContainerID, "CNI_IFNAME=" + a.IfName,
				"CNI_NETNS=" + a.Netns, "CNI_PATH=" + a.Path})
			return p.run(ctx)
		}
	}
	return funcs{verb("ADD"), verb("DEL"), verb("CHECK"), verb("STATUS"), verb("GC")}
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, dir: dir, state: filepath.Join(dir, "state"), fake: filepath.Join(dir, "fake")}
	if err := os.Mkdir(n.fake, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, plugin := range []string{"bridge", "host-local"} {
		if err := os.WriteFile(filepath.Join(dir, plugin), []byte(fakeDelegate), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(n.fake, "result"), testResult)
	write(t, filepath.Join(dir, "subnet.env"), string(testFile().Marshal()))
	n.conf = map[string]any{"cniVersion": "1.0.0", "name": "cbr0", "type": "selvage",
		"dataDir": n.state, "subnetFile": filepath.Join(dir, "subnet.env"),
		"ipam": map[string]any{"dataDir": filepath.Join(dir, "networks")}}
	n.args = args{ContainerID: "c1", Netns: "/nonexistent", IfName: "eth0", Path: "/nowhere::" + dir}
	n.plugin = &Plugin{Stdout: &n.stdout, Stderr: &n.stderr,
		Environ: append(os.Environ(), "FAKE="+n.fake)}
	n.verbs = funcsOf(t.Context(), n.plugin)
	return n
}

func (n *node) setenv(assignments ...string) {
	n.plugin.Environ = assign(n.plugin.Environ, assignments)
}

// call runs a verb with the configuration as it now is.
func (n *node) call(verb func(*args) error) error {
	n.t.Helper()
	var err error
	if n.args.StdinData, err = json.Marshal(n.conf); err != nil {
		n.t.Fatal(err)
	}
	return verb(&n.args)
}

// ok runs a verb that must succeed.
func (n *node) ok(verb func(*args) error) {
	n.t.Helper()
	if err := n.call(verb); err != nil {
		n.t.Fatal(err)
	}
}

// fails runs a verb that must fail with a code and say something.
func (n *node) fails(verb func(*args) error, code uint, says ...string) {
	n.t.Helper()
	err := n.call(verb)
	e, ok := errors.AsType[*types.Error](err)
	if !ok {
		n.t.Fatalf("got %v, want an error with CNI code %d", err, code)
	}
	if e.Code != code {
		n.t.Errorf("got code %d (%v), want %d", e.Code, e, code)
	}
	for _, s := range says {
		if !strings.Contains(e.Error(), s) {
			n.t.Errorf("error is %q, want it to say %q", e, s)
		}
	}
}

// delegated fails unless the delegate has had these verbs since it was last asked.
func (n *node) delegated(want ...string) {
	n.t.Helper()
	path := filepath.Join(n.fake, "verbs")
	got, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	if g := strings.Join(strings.Fields(string(got)), " "); g != strings.Join(want, " ") {
		n.t.Errorf("the delegate got %q, want %q", g, want)
	}
	write(n.t, path, "")
}

// told returns a key of the configuration that the delegate got with a verb.
func (n *node) told(verb, key string) string {
	n.t.Helper()
	var config object
	if err := json.Unmarshal(read(n.t, filepath.Join(n.fake, verb+".json")), &config); err != nil {
		n.t.Fatal(err)
	}
	return string(config[key])
}

func (n *node) failDelegate(verb, output string) {
	n.t.Helper()
	write(n.t, filepath.Join(n.fake, "fail-"+verb), output)
}

func (n *node) repairDelegate(verb string) {
	n.t.Helper()
	if err := os.Remove(filepath.Join(n.fake, "fail-"+verb)); err != nil {
		n.t.Fatal(err)
	}
}

func TestAddCheckDel(t *testing.T) {
	n := newNode(t)
	n.ok(n.verbs.Add)
	n.delegated("ADD")
	wantFiles(t, n.state, "c1")
	kept := strings.Replace(string(read(t, filepath.Join(n.state, "c1"))), `"selvage.io/interface":"eth0",`, "", 1)
	if told := string(read(t, filepath.Join(n.fake, "ADD.json"))); told != kept {
		t.Errorf("the delegate was told:\n%s\nkept is:\n%s", told, kept)
	}
	if ifName := string(read(t, filepath.Join(n.fake, "ifname"))); ifName != "eth0\n" {
		t.Errorf("the delegate got CNI_IFNAME=%q", ifName)
	}
	var result map[string]any
	if err := json.Unmarshal(n.stdout.Bytes(), &result); err != nil || result["cniVersion"] != "1.0.0" || result["ips"] == nil {
		t.Errorf("printed %s, %v", n.stdout.String(), err)
	}

	// From here on the delegate is told neither what the subnet file says nor its own options.
	write(t, filepath.Join(n.dir, "subnet.env"), strings.ReplaceAll(string(testFile().Marshal()), "1450", "1300"))
	n.conf["delegate"] = map[string]any{"mtu": 1200}
	n.conf["prevResult"] = map[string]any{"cniVersion": "1.0.0"}
	n.args.Netns = newPod(t, 1450).Path()
	n.fails(n.verbs.Check, codeMismatch, "MTU is 1450, and the overlay carries 1200")
	n.conf["delegate"] = map[string]any{}
	n.fails(n.verbs.Check, codeMismatch, "MTU is 1450, and the overlay carries 1300")
	n.args.Netns = newPod(t, 1300).Path()
	n.ok(n.verbs.Check)
	n.delegated("CHECK", "CHECK", "CHECK")
	n.ok(n.verbs.Del)
	n.delegated("DEL")
	for _, verb := range []string{"CHECK", "DEL"} {
		if mtu, prev := n.told(verb, "mtu"), n.told(verb, "prevResult"); mtu != "1450" || prev != `{"cniVersion":"1.0.0"}` {
			t.Errorf("%s: the delegate was told mtu %s and prevResult %s", verb, mtu, prev)
		}
	}
	wantFiles(t, n.state)
	if n.stderr.Len() > 0 {
		t.Errorf("on stderr: %s", n.stderr.String())
	}
}

func TestAddConvertsTheResult(t *testing.T) {
	for _, test := range []struct{ conf, result, want string }{
		{"0.2.0", testResult, `"ip4"`},
		{"0.4.0", testResult, `"version": "4"`},
		{"1.1.0", testResult, `"cniVersion": "1.1.0"`},
		{"1.0.0", testResult, testResult},
		{"1.0.0", `{"cniVersion":"1.0.0","ips":[{"address":"10.5.29.2/24"}],"later":1e400}`, `"later":1e400`},
		{"1.0.0", `{"ips":[{"address":"10.5.29.2/24"}]}`, `"cniVersion":"1.0.0"`},
		{"", `{"ip4":{"ip":"10.5.29.2/24"}}`, `"cniVersion":"0.1.0"`},
		{"", `{"cniVersion":"","ip4":{"ip":"10.5.29.2/24"}}`, `"cniVersion":""`},
	} {
		n := newNode(t)
		n.conf["cniVersion"] = test.conf
		write(t, filepath.Join(n.fake, "result"), test.result)
		n.ok(n.verbs.Add)
		if !strings.Contains(n.stdout.String(), test.want) || !strings.Contains(n.stdout.String(), "10.5.29.2/24") {
			t.Errorf("%q: printed %s, want it to hold %s", test.conf, n.stdout.String(), test.want)
		}
	}
}

func TestAddUndoesABadResult(t *testing.T) {
	for _, result := range []string{"", "no JSON", "null", `{"cniVersion":7}`, `{"cniVersion":"9.0.0"}`, `{"cniVersion":"1.0.0","ips":7}`} {
		n := newNode(t)
		n.conf["cniVersion"] = "0.4.0"
		write(t, filepath.Join(n.fake, "result"), result)
		n.fails(n.verbs.Add, types.ErrDecodingFailure, "decode the delegate's result")
		n.delegated("ADD", "DEL")
		wantFiles(t, n.state)
	}
}

func TestAddErrors(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*node)
		code  uint
		says  string
	}{
		"no subnet file": {func(n *node) { n.conf["subnetFile"] = filepath.Join(n.dir, "none.env") }, types.ErrTryAgainLater, "selvaged writes it"},
		"bad subnet file": {func(n *node) { write(t, filepath.Join(n.dir, "subnet.env"), "FLANNEL_MTU=x") }, types.ErrDecodingFailure,
			`line 1: FLANNEL_MTU is "x"`},
		"unreadable subnet file": {func(n *node) { n.conf["subnetFile"] = n.dir }, types.ErrIOFailure, "read subnet file"},
		"delegate.ipam":          {func(n *node) { n.conf["delegate"] = map[string]any{"ipam": 1} }, types.ErrInvalidNetworkConfig, `delegate holds "ipam"`},
		"delegate is no object":  {func(n *node) { n.conf["delegate"] = "bridge" }, types.ErrDecodingFailure, "delegate is a JSON string, want an object"},
		"delegate not installed": {func(n *node) { n.conf["delegate"] = map[string]any{"type": "ptp"} }, types.ErrInvalidNetworkConfig,
			`find delegate "ptp"; no such program in CNI_PATH`},
		"network name": {func(n *node) { n.conf["name"] = "../x" }, types.ErrInvalidNetworkConfig, "is no network name"},
		"container ID": {func(n *node) { n.args.ContainerID = "../x" }, types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID is no container ID"},
		"interface":    {func(n *node) { n.args.IfName = "a/b" }, types.ErrInvalidEnvironmentVariables, "CNI_IFNAME is no interface name"},
		"dataDir":      {func(n *node) { n.conf["dataDir"] = filepath.Join(n.dir, "subnet.env") }, types.ErrIOFailure, "keep the rendered configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			test.spoil(n)
			n.fails(n.verbs.Add, test.code, test.says)
			n.delegated()
			if entries, err := os.ReadDir(n.state); err == nil && len(entries) > 0 {
				t.Errorf("left behind: %v", entries)
			}
			if n.stdout.Len() > 0 {
				t.Errorf("printed %s", n.stdout.String())
			}
		})
	}
}

func TestAddFailsInTheDelegate(t *testing.T) {
	n := newNode(t)
	n.failDelegate("ADD", `{"code":11,"msg":"not now","details":"no address free"}`)
	n.fails(n.verbs.Add, 11, `delegate "bridge": ADD: not now`, "no address free")
	n.delegated("ADD", "DEL")
	wantFiles(t, n.state)

	// Where cleaning up fails too, what the runtime's DEL needs is kept.
	n.failDelegate("DEL", `{"code":5,"msg":"disk is gone"}`)
	n.fails(n.verbs.Add, 11, "not now", "no address free; cleaning up failed as well", "disk is gone")
	n.delegated("ADD", "DEL")
	wantFiles(t, n.state, "c1")
	n.fails(n.verbs.Del, 5, "disk is gone")
	wantFiles(t, n.state, "c1")
	n.repairDelegate("DEL")
	n.ok(n.verbs.Del)
	wantFiles(t, n.state)
}

func TestAddCancelledIsUndone(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := &Plugin{Stdout: &n.stdout, Stderr: &n.stderr, Environ: append(os.Environ(), "FAKE="+n.fake)}
	n.fails(funcsOf(ctx, p).Add, types.ErrIOFailure, "context canceled")
	n.delegated("DEL")
	wantFiles(t, n.state)
}

func TestAddTwice(t *testing.T) {
	n := newNode(t)
	n.ok(n.verbs.Add)
	first := read(t, filepath.Join(n.state, "c1"))

	// A running container must not lose its interface because somebody asked again.
	n.conf["delegate"] = map[string]any{"mtu": 1200}
	n.failDelegate("ADD", `{"code":999,"msg":"eth0 already exists"}`)
	n.fails(n.verbs.Add, 999, "eth0 already exists", "interface eth0 was added before; DEL it first")
	n.delegated("ADD", "ADD")
	if now := read(t, filepath.Join(n.state, "c1")); !bytes.Equal(now, first) {
		t.Errorf("kept is now:\n%s\nwant what the first ADD did:\n%s", now, first)
	}

	// A delegate that takes it decides so.
	n.repairDelegate("ADD")
	n.ok(n.verbs.Add)
	n.ok(n.verbs.Del)
	n.delegated("ADD", "DEL")
	if mtu := n.told("DEL", "mtu"); mtu != "1200" {
		t.Errorf("DEL with mtu %s, want the second ADD's 1200", mtu)
	}
}

func TestInterfacesAreKeptApart(t *testing.T) {
	n := newNode(t)
	n.ok(n.verbs.Add)
	n.args.IfName = "net1"
	n.ok(n.verbs.Add)
	n.conf["name"] = "other"
	n.ok(n.verbs.Add)
	wantFiles(t, n.state, "c1", "cbr0:c1:net1", "other:c1:net1")
	n.ok(n.verbs.Del)
	wantFiles(t, n.state, "c1", "cbr0:c1:net1")
}

func TestDelOfWhatWasNeverAdded(t *testing.T) {
	n := newNode(t)
	n.ok(n.verbs.Del) // the delegate is asked all the same: what was kept may have been lost
	n.delegated("DEL")

	// With the subnet file lost as well, host-local still finds an address by its holder. It only wants a range.
	for _, spoil := range []func(){
		func() { write(t, filepath.Join(n.dir, "subnet.env"), "x") },
		func() { n.conf["subnetFile"] = "/nonexistent/subnet.env" },
	} {
		spoil()
		n.ok(n.verbs.Del)
		n.delegated("DEL")
		if ipam := n.told("DEL", "ipam"); !strings.Contains(ipam, `"192.0.2.0/24"`) || !strings.Contains(ipam, `"2001:db8::/64"`) {
			t.Errorf("the delegate was told ipam %s", ipam)
		}
		n.fails(n.verbs.Check, n.code(n.verbs.Add))
	}

	// Nobody knows what to tell a delegate then.
	n.conf["delegate"] = map[string]any{"name": "x"}
	n.ok(n.verbs.Del)
	n.delegated()
}

// code returns the code with which a verb fails.
func (n *node) code(verb func(*args) error) uint {
	n.t.Helper()
	e, ok := errors.AsType[*types.Error](n.call(verb))
	if !ok {
		n.t.Fatal("want a CNI error")
	}
	return e.Code
}

// TestDelWithoutRemovingTheRecord: a record that cannot be removed keeps neither DEL nor GC from ending a container.
func TestDelWithoutRemovingTheRecord(t *testing.T) {
	n := newNode(t)
	n.conf["cniVersion"] = "1.1.0"
	n.ok(n.verbs.Add)
	dir := records.Dir(filepath.Join(n.dir, "subnet.env"))
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	n.ok(n.verbs.Del)
	n.collect(attachments{})
	n.ok(n.verbs.GC)
	if got := n.stderr.String(); strings.Count(got, "read-only file system") != 2 {
		t.Errorf("standard error is %q, want it to say twice that the record stays", got)
	}
	if files, err := os.ReadDir(n.state); err != nil || len(files) > 0 {
		t.Errorf("stored configurations %v, %v, want none", files, err)
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	n.ok(n.verbs.GC)
	if left, err := records.Keys(dir, "cbr0"); err != nil || len(left) > 0 {
		t.Errorf("records %v, %v, want GC to remove them", left, err)
	}
}

func TestDelRebuildsWhatWasLost(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 20) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.ok(n.verbs.Add)
			added := read(t, filepath.Join(n.fake, "ADD.json"))
			if err := lose(filepath.Join(n.state, "c1")); err != nil {
				t.Fatal(err)
			}
			n.ok(n.verbs.Del)
			n.delegated("ADD", "DEL")
			if deleted := read(t, filepath.Join(n.fake, "DEL.json")); !bytes.Equal(added, deleted) {
				t.Errorf("ADD with:\n%s\nDEL with:\n%s", added, deleted)
			}
			wantFiles(t, n.state)
		})
	}
}

func TestDelOfWhatFlannelAdded(t *testing.T) {
	n := newNode(t)
	if err := os.Mkdir(n.state, 0o700); err != nil {
		t.Fatal(err)
	}
	left := `{"cniVersion":"1.0.0","ipMasq":false,"mtu":1234,"name":"cbr0","type":"bridge"}`
	write(t, filepath.Join(n.state, "c1"), left)
	write(t, filepath.Join(n.state, "c2"), left)
	n.failDelegate("DEL", `{"code":5,"msg":"disk is gone"}`)
	n.fails(n.verbs.Del, 5)
	wantFiles(t, n.state, "c1", "c2")
	n.repairDelegate("DEL")
	n.ok(n.verbs.Del)
	if mtu := n.told("DEL", "mtu"); mtu != "1234" {
		t.Errorf("DEL with mtu %s, want flannel's 1234", mtu)
	}
	wantFiles(t, n.state, "c2")
}

func TestUnreadableState(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"c1", "cbr0:c1:eth0"} {
		if err := os.MkdirAll(filepath.Join(n.state, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n.ok(n.verbs.Del) // what cannot be read must not keep a container from its end
	n.delegated("DEL")
	n.conf["delegate"] = 7
	n.fails(n.verbs.Del, types.ErrDecodingFailure)
	n.fails(n.verbs.Check, types.ErrDecodingFailure)
	n.delegated()
}

// TestDelWhereTheNamespaceWas deletes after a namespace ended that left a file behind, which bridge does not take.
func TestDelWhereTheNamespaceWas(t *testing.T) {
	n := newNode(t)
	write(t, filepath.Join(n.dir, "bridge"), `#!/bin/sh
echo "$CNI_COMMAND" >>"$FAKE/verbs"
if [ -n "$CNI_NETNS" ]; then echo '{"code":999,"msg":"unknown FS magic"}'; exit 1; fi
`)
	n.args.Netns = filepath.Join(n.dir, "subnet.env")
	n.ok(n.verbs.Del)
	n.delegated("DEL", "DEL")

	pod := newPod(t, 1450)
	n.args.Netns = pod.Path()
	n.fails(n.verbs.Del, types.ErrInternal, "unknown FS magic")
	n.delegated("DEL")
}

func TestDelegateDiesWithoutAWord(t *testing.T) {
	n := newNode(t)
	n.failDelegate("CHECK", "it hurts")
	n.fails(n.verbs.Check, types.ErrInternal, `delegate "bridge": CHECK; exit status 1; it printed "it hurts"`)
}

func TestDelegateErrorWhileInstalled(t *testing.T) {
	busy := &os.PathError{Op: "fork/exec", Path: "/opt/cni/bin/bridge", Err: syscall.ETXTBSY}
	e, ok := errors.AsType[*types.Error](delegateError("bridge", "ADD", busy, nil, nil))
	if !ok || e.Code != types.ErrTryAgainLater {
		t.Errorf("got %v, want code 11: try again later", e)
	}
}

func TestPrintFails(t *testing.T) {
	n := newNode(t)
	p := &Plugin{Stdout: brokenPipe{}, Stderr: &n.stderr, Environ: append(os.Environ(), "FAKE="+n.fake)}
	n.fails(funcsOf(t.Context(), p).Add, types.ErrIOFailure, "print the result")
	wantFiles(t, n.state, "c1") // for the runtime's DEL
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, fmt.Errorf("broken pipe") }
