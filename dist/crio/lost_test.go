package crio

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
)

// crash kills a node's CRI-O, and processes of its pods.
func (c *cluster) crash(t *testing.T, r *cri.Runtime, pids []int) {
	t.Helper()
	r.Kill()
	for _, pid := range pids {
		if err := cri.KillProcess(pid); err != nil {
			t.Fatal(err)
		}
	}
}

// testCrash kills CRI-O and a pod's processes with it: nobody calls DEL then, before the kubelet has the next CRI-O remove
// the sandbox.
func testCrash(t *testing.T, c *cluster) {
	r := c.At[0]
	p, server := c.Serving(t, r, "crash")
	c.crash(t, r, c.PIDs(t, p, server))
	if left, err := r.Left(); err != nil || len(left) == 0 {
		t.Errorf("after the crash nothing is left, so there is nothing to free: %v", err)
	}
	if err := r.Start(c.Ctx); err != nil {
		t.Fatal(err)
	}
	c.Ready(t, r, true)
	c.Remove(t, p)
	c.NothingLeft(t)
}

// testReboot leaves of a node what a reboot does: nothing runs, /run and the kernel are empty, /var/lib is as it was, and so
// host-local's addresses are still given away. CRI-O sees it by its version file, forgets all pods and frees what they had.
func testReboot(t *testing.T, c *cluster) {
	r := c.At[0]
	p, server := c.Serving(t, r, "before", cri.Port{Host: 8070, Pod: 7070})
	c.crash(t, r, c.PIDs(t, p, server))
	c.tidy(t, r)
	if out, err := r.Node.Output(c.Ctx, "rm", "-r", "/run/crio", "/run/runc"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if what, err := keptOf(r, p); err != nil || len(what) == 0 {
		t.Fatalf("nothing is kept of the pod, so there is nothing to free: %v", err)
	}
	if err := r.Start(c.Ctx); err != nil {
		t.Fatal(err)
	}
	c.Ready(t, r, true) // GC comes before
	c.NothingLeft(t)
	c.Ports(t, hairpin, nil) // with the same port
}

// testLost takes from CRI-O what it knows of two pods, as a crash does that leaves empty files: nobody is left who could call
// DEL for them. CRI-O calls GC when it starts, once STATUS succeeds, and names the pods that it knows. Of one of the two
// libcni knows, and calls DEL; of the other nobody does, and it is for the plugin's GC.
func testLost(t *testing.T, c *cluster) {
	r := c.At[0]
	known, server := c.Serving(t, r, "known", cri.Port{Host: 8070, Pod: 7070})
	unknown, other := c.Serving(t, r, "unknown")
	living, _ := c.Serving(t, r, "living")
	far, asking := c.Serving(t, c.At[1], "far")
	c.crash(t, r, slices.Concat(c.PIDs(t, known, server), c.PIDs(t, unknown, other)))
	for _, p := range []*cri.Pod{known, unknown} {
		if err := r.Node.Do(func() error { return os.Truncate(filepath.Join(storage, p.ID, "userdata/config.json"), 0) }); err != nil {
			t.Fatal(err)
		}
		if what, err := keptOf(r, p); err != nil || len(what) == 0 {
			t.Fatalf("nothing is kept of pod %s, so there is nothing to free: %v", p.Name, err)
		}
	}
	if out, err := r.Node.Output(c.Ctx, "sh", "-ec", "rm /var/lib/cni/results/*"+unknown.ID+"*"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := r.Start(c.Ctx); err != nil {
		t.Fatal(err)
	}
	c.Ready(t, r, true) // GC comes before
	for _, p := range []*cri.Pod{known, unknown} {
		if what, err := keptOf(r, p); err != nil || len(what) > 0 {
			t.Errorf("GC left %q of pod %s, %v", what, p.Name, err)
		}
	}
	c.AsksPod(t, asking, living)

	// What is not CNI's stays: the file that holds the namespace, the port of the host.
	if _, err := r.RunPod(c.Ctx, "again", cri.Port{Host: 8070, Pod: 7070}); err == nil || !strings.Contains(err.Error(), "hostport") {
		t.Errorf("a pod with the port of one that was lost: %v", err)
	}
	c.Remove(t, living, far)
	c.tidy(t, r)
	c.NothingLeft(t)
	c.Ports(t, hairpin, nil)
}

// storage is where a node has what CRI-O keeps of each pod and container.
const storage = "/var/lib/containers/storage/overlay-containers"

// tidy does for a node without pods what a reboot would: of what CRI-O has forgotten, nobody else ends it.
func (c *cluster) tidy(t *testing.T, r *cri.Runtime) {
	t.Helper()
	out, err := r.Node.Output(c.Ctx, "sh", "-ec", `
		for f in $(ls /run/netns); do umount -l "/run/netns/$f"; rm "/run/netns/$f"; done
		for family in ip ip6; do nft add table $family crio-hostports; nft delete table $family crio-hostports; done`)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Eventually(t, "the end of the interfaces", func() error { // the kernel ends a namespace in its own time
		left, err := r.Left()
		for _, what := range left {
			if strings.HasPrefix(what, "port ") {
				err = errors.Join(err, errors.New(what))
			}
		}
		return err
	})
}

// testDies has CRI-O die while it makes a pod, after the plugins' ADD, or while it ends one. 1.34.0 does that by itself if it
// is to map a port and either nft or iptables is not installed.
func testDies(t *testing.T, c *cluster) {
	r := c.At[0]
	for _, names := range [][]string{{"nft"}, {"xtables-nft-multi", "xtables-legacy-multi"}} {
		show := hide(t, r.Node, names...)
		c.restart(t, "")
		p, err := r.RunPod(c.Ctx, "dies", cri.Port{Host: 8070, Pod: 7070})
		if err == nil {
			err = p.Remove(c.Ctx) // iptables is missed only now
		}
		if err == nil {
			t.Fatalf("without %s CRI-O maps a port", names)
		}
		if err := r.Ended(c.Ctx); err != nil {
			t.Fatal(err)
		}
		if left, err := r.Left(); err != nil || len(left) == 0 {
			t.Errorf("after the crash nothing is left, so there is nothing to free: %v", err)
		}
		show()
		if err := r.Start(c.Ctx); err != nil {
			t.Fatal(err)
		}
		c.Ready(t, r, true)
		c.Eventually(t, "the removal of the pods", func() error { return r.RemoveAll(c.Ctx) })
		left, err := r.Left()
		if err != nil {
			t.Fatal(err)
		}
		for _, what := range left {
			if !strings.HasPrefix(what, "/run/netns/") { // see testLost
				t.Errorf("without %s, left over: %s", names, what)
			}
		}
		c.tidy(t, r)
	}
	c.NothingLeft(t)
}

// hide makes a node do without programs until show is called.
func hide(t *testing.T, node *lab.Node, names ...string) (show func()) {
	t.Helper()
	var paths []string
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	each := func(do func(path string) error) {
		t.Helper()
		for _, path := range paths {
			if err := node.Do(func() error { return do(path) }); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
	}
	each(func(path string) error { return unix.Mount("/dev/null", path, "", unix.MS_BIND, "") })
	return func() { each(func(path string) error { return unix.Unmount(path, 0) }) }
}

// keptOf is what a node keeps of a pod's network.
func keptOf(r *cri.Runtime, p *cri.Pod) (what []string, err error) {
	left, err := r.Left()
	for _, l := range left {
		if strings.Contains(l, p.ID) {
			what = append(what, l)
		}
		for _, addr := range p.Addrs {
			if filepath.Base(l) == addr.String() {
				what = append(what, l)
			}
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", r.Node.Name(), err)
	}
	return what, err
}

// usesPortmap tells whether a pod was added with portmap: what libcni keeps of it has its network configuration.
func usesPortmap(r *cri.Runtime, p *cri.Pod, want bool) error {
	return r.Node.Do(func() error {
		files, err := filepath.Glob("/var/lib/cni/results/*" + p.ID + "*")
		if err != nil || len(files) != 1 {
			return fmt.Errorf("what libcni keeps of pod %s: %q, %v", p.Name, files, err)
		}
		data, err := os.ReadFile(files[0])
		if err != nil {
			return err
		}
		var kept struct{ Config []byte }
		if err := json.Unmarshal(data, &kept); err != nil {
			return err
		}
		if got := strings.Contains(string(kept.Config), "portmap"); got != want {
			return fmt.Errorf("pod %s was added with portmap: %t, want %t", p.Name, got, want)
		}
		return nil
	})
}
