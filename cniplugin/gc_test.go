package cniplugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	records "github.com/selvage-net/selvage/subnet/attachment"
)

// collector is a delegate that frees addresses as bridge and host-local do together, and notes what it is told.
const collector = `#!/bin/sh
config=$(cat)
echo "$config" >"$FAKE/$CNI_COMMAND.json"
if [ "$CNI_COMMAND" = ADD ]; then cat "$FAKE/result"; exit; fi
if [ "$CNI_COMMAND $CNI_CONTAINERID" = "DEL stuck" ]; then echo '{"code":5,"msg":"disk is gone"}'; exit 1; fi
echo "${0##*/} $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME [$CNI_NETNS]" >>"$FAKE/verbs"
cd "$RESERVATIONS" || exit 0
[ "$CNI_COMMAND" = DEL ] || exit 0
for holder in "$CNI_CONTAINERID $CNI_IFNAME" "$CNI_CONTAINERID"; do
	for f in 10.*; do
		[ -e "$f" ] && [ "$(tr -d '\r' <"$f" | tr '\n' ' ')" = "$holder" ] || continue
		rm "$f"
		freed=1
	done
	[ -z "$freed" ] || exit 0 # only what names no interface is found by the container
done
`

func newCollected(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	for _, plugin := range []string{"bridge", "host-local"} {
		write(t, filepath.Join(n.dir, plugin), collector)
	}
	n.setenv("RESERVATIONS=" + filepath.Join(n.dir, "networks", "cbr0"))
	return n
}

// added adds an attachment with an address.
func (n *node) added(network, containerID, ifName, addr string) {
	n.t.Helper()
	n.conf["name"], n.args.ContainerID, n.args.IfName = network, containerID, ifName
	n.ok(n.verbs.Add)
	n.reserve(addr, containerID, ifName)
}

func (n *node) collect(valid any) {
	n.conf["name"], n.args.ContainerID, n.args.IfName = "cbr0", "", ""
	n.conf["cniVersion"] = "1.1.0"
	delete(n.conf, "cni.dev/valid-attachments")
	if valid != nil {
		n.conf["cni.dev/valid-attachments"] = valid
	}
}

func (n *node) did() string {
	n.t.Helper()
	path := filepath.Join(n.fake, "verbs")
	got := string(read(n.t, path))
	write(n.t, path, "")
	return got
}

type attachments []map[string]string

func TestGC(t *testing.T) {
	n := newCollected(t)
	n.added("cbr0", "c1", "eth0", "10.5.29.2")
	n.added("cbr0", "c1", "net1", "10.5.29.3") // stale, of a container that is there
	n.added("cbr0", "c2", "eth0", "10.5.29.4") // stale
	n.added("other", "c2", "eth0", "10.5.31.2")
	n.conf["name"] = "cbr0"
	n.reserve("10.5.29.5", "c3", "eth0") // stale, nothing kept
	n.reserve("10.5.29.6", "c4", "")     // stale, from before reservations had interfaces
	n.reserve("10.5.29.7", "c1", "")     // likewise, of a container that is there
	flannel := `{"cniVersion":"1.0.0","name":"cbr0","type":"bridge","mtu":1234}`
	write(t, filepath.Join(n.state, "c5"), flannel) // stale, flannel's
	n.reserve("10.5.29.8", "c5", "eth0")
	write(t, filepath.Join(n.state, "c6"), flannel)                                    // stale, flannel's, its address is free
	write(t, filepath.Join(n.state, "c7"), strings.Replace(flannel, "cbr0", "etc", 1)) // another network's
	if err := os.Mkdir(filepath.Join(n.state, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}

	n.collect(attachments{{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c9", "ifname": "eth0"}})
	n.ok(n.verbs.GC)
	wantFiles(t, n.state, "c1", "c7", "dir", "other:c2:eth0")
	wantFiles(t, filepath.Join(n.dir, "networks", "cbr0"), "10.5.29.2", "10.5.29.7", "last_reserved_ip.0", "lock")
	const want = `bridge DEL c1 net1 []
bridge DEL c2 eth0 []
bridge DEL c3 eth0 []
bridge DEL c4 eth0 []
bridge DEL c5 eth0 []
bridge DEL c6 eth0 []
bridge GC   [/nonexistent]
host-local GC   [/nonexistent]
`
	if got := n.did(); got != want {
		t.Errorf("did:\n%swant:\n%s", got, want)
	}
	if told := n.told("GC", "cni.dev/valid-attachments"); told != `[{"containerID":"c1","ifname":"eth0"},{"containerID":"c9","ifname":"eth0"}]` {
		t.Errorf("passed on %s", told)
	}
	if n.stdout.Len() == 0 || n.stderr.Len() > 0 {
		t.Errorf("printed %s and %s", &n.stdout, &n.stderr)
	}
}

// TestGCDamaged: what a power cut left of files is freed; no container is named by it.
func TestGCDamaged(t *testing.T) {
	n := newCollected(t)
	n.added("cbr0", "c1", "eth0", "10.5.29.2")
	reserved := filepath.Join(n.dir, "networks", "cbr0")
	for addr, content := range map[string]string{
		"10.5.29.50": "", "10.5.29.51": strings.Repeat("\x00", 70), "10.5.29.53": "c2\r\ne\x00\x00",
		"10.5.29.54": "c1\r\ne\x00\x00", // of a container that is there
	} {
		write(t, filepath.Join(reserved, addr), content)
	}
	write(t, filepath.Join(reserved, "last_reserved_ip.0"), "")
	write(t, filepath.Join(n.state, "cbr0:c4:eth0"), "")
	write(t, filepath.Join(n.state, "c5"), "") // under the name that flannel's plugin gives
	write(t, filepath.Join(n.state, "c6"), `{"cniVersion":"1.0.0","na`)
	write(t, filepath.Join(n.state, "c1"), "") // of a container that is there
	write(t, filepath.Join(n.state, ".123"), "")
	write(t, filepath.Join(n.state, ".124"), "")
	old := time.Now().Add(-2 * abandonedAfter)
	attached := records.Dir(filepath.Join(n.dir, "subnet.env"))
	write(t, filepath.Join(attached, ".125"), "")
	for _, path := range []string{filepath.Join(n.state, ".124"), filepath.Join(attached, ".125")} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	n.collect(attachments{{"containerID": "c1", "ifname": "eth0"}})
	for range 2 {
		n.ok(n.verbs.GC)
		wantFiles(t, n.state, ".123", "c1")
		wantFiles(t, attached, "cbr0:c1:eth0")
		wantFiles(t, reserved, "10.5.29.2", "10.5.29.54", "last_reserved_ip.0", "lock")
	}
}

// TestGCWaitsForHostLocal: a reservation that host-local is writing is not damaged.
func TestGCWaitsForHostLocal(t *testing.T) {
	n := newCollected(t)
	n.reserve("10.5.29.2", "", "")
	reserved := filepath.Join(n.dir, "networks", "cbr0")
	unlock, err := lockReservations(t.Context(), reserved)
	if err != nil {
		t.Fatal(err)
	}
	n.collect(attachments{})
	n.fails(n.verbs.GC, types.ErrIOFailure, "free the addresses of damaged reservations", "which host-local holds")
	wantFiles(t, reserved, "10.5.29.2", "last_reserved_ip.0", "lock")
	unlock()
	n.ok(n.verbs.GC)
	wantFiles(t, reserved, "last_reserved_ip.0", "lock")
}

// TestDelRemovesADamagedFile: a file under the name that flannel's plugin gives is removed by DEL, whatever is in it.
func TestDelRemovesADamagedFile(t *testing.T) {
	n := newCollected(t)
	if err := os.MkdirAll(n.state, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(n.state, n.args.ContainerID), "")
	n.ok(n.verbs.Del)
	wantFiles(t, n.state)
}

// TestGCOfARuntimeThatSaysNothing must not end all containers.
func TestGCOfARuntimeThatSaysNothing(t *testing.T) {
	n := newCollected(t)
	n.added("cbr0", "c1", "eth0", "10.5.29.2")
	n.collect(nil)
	n.ok(n.verbs.GC)
	wantFiles(t, n.state, "c1")
	if told := n.told("GC", "cni.dev/valid-attachments"); told != "" {
		t.Errorf("passed on %s", told)
	}
	// The name that runtimes used at first.
	n.conf["cni.dev/attachments"] = attachments{}
	n.ok(n.verbs.GC)
	wantFiles(t, n.state)
	if told := n.told("GC", "cni.dev/valid-attachments"); told != "[]" {
		t.Errorf("passed on %s", told)
	}
}

// TestGCWithoutASubnetFile collects after a reboot, before the daemon is ready.
func TestGCWithoutASubnetFile(t *testing.T) {
	n := newCollected(t)
	n.reserve("10.5.29.2", "c1", "eth0")
	n.conf["subnetFile"] = "/nonexistent"
	n.collect(attachments(nil)) // null, as Go writes an empty list
	n.ok(n.verbs.GC)
	wantFiles(t, filepath.Join(n.dir, "networks", "cbr0"), "last_reserved_ip.0", "lock")
}

func TestGCGoesOnAfterAnError(t *testing.T) {
	n := newCollected(t)
	n.added("cbr0", "stuck", "eth0", "10.5.29.2")
	n.added("cbr0", "zlast", "eth0", "10.5.29.3")
	n.collect(attachments{})
	n.fails(n.verbs.GC, types.ErrIOFailure, "disk is gone", `interface "eth0" of container stuck was not collected`)
	wantFiles(t, n.state, "stuck")
	if did := n.did(); !strings.Contains(did, "bridge GC") || !strings.Contains(did, "host-local GC") {
		t.Errorf("did %s", did)
	}
	if err := os.Remove(filepath.Join(n.dir, "host-local")); err != nil {
		t.Fatal(err)
	}
	n.fails(n.verbs.GC, types.ErrIOFailure, "disk is gone", `find delegate "host-local"`)
}

func TestGCErrors(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*node)
		code  uint
		says  string
	}{
		"bad delegate":    {func(n *node) { n.conf["delegate"] = map[string]any{"name": "x"} }, types.ErrInvalidNetworkConfig, `delegate holds "name"`},
		"bad attachments": {func(n *node) { n.conf["cni.dev/valid-attachments"] = "all" }, types.ErrDecodingFailure, `cni.dev/valid-attachments is "all", want an array`},
		"bad dataDir":     {func(n *node) { n.conf["dataDir"] = filepath.Join(n.dir, "subnet.env") }, types.ErrIOFailure, "list the kept configurations"},
		"bad ipam":        {func(n *node) { n.conf["ipam"] = map[string]any{"dataDir": 7} }, types.ErrIOFailure, "list host-local's reservations"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newCollected(t)
			n.collect(attachments{})
			test.spoil(n)
			n.fails(n.verbs.GC, test.code, test.says)
		})
	}
}
