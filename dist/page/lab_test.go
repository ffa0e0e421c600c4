package page

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp/kb"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/certs"
	"github.com/selvage-net/selvage/dist/lab/testctx"
)

const port = "8474"

// startLab starts nodes that ask each other, and the page's server on the first one.
func startLab(t *testing.T) *lab.Lab {
	t.Helper()
	ctx, dir := testctx.New(t), t.TempDir()
	ca, err := certs.New(dir, "ca")
	if err == nil {
		err = ca.Sign(filepath.Join(dir, "node"), certs.For("172.31.0.11", "172.31.0.12", "172.31.0.13", "172.31.0.14", "172.31.0.15"))
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, lab.Options{
		Nodes: 5, Bin: "../../bin", Patience: lab.TestPatience,
		DaemonArgs: []string{"--mesh-addr=:8473", "--mesh-cafile=" + ca.File, "--mesh-certfile=" + filepath.Join(dir, "node.pem"),
			"--mesh-keyfile=" + filepath.Join(dir, "node.key"), "--peer-probe-interval=1s", "--fast-path=auto"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	selvaged, err := filepath.Abs("../../bin/selvaged")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "page.log")
	p, err := lab.StartProgram(l.Nodes()[0].Do, log, []string{selvaged, "mesh", "--serve", ":" + port, "--timeout", "1m"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	testctx.Eventually(t, func() string {
		out, err := os.ReadFile(log)
		if err != nil || !strings.Contains(string(out), "serving http://127.0.0.1:"+port) {
			return "the page is not served: " + string(out)
		}
		return ""
	})
	return l
}

// forward opens a port here that leads to one of a node's loopback interface, as kubectl port-forward does.
func forward(t *testing.T, n *lab.Node) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			var there net.Conn
			err = n.Do(func() (err error) {
				there, err = net.Dial("tcp", "127.0.0.1:"+port)
				return err
			})
			if err != nil {
				_ = here.Close()
				continue
			}
			copied := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_, _ = to.Close(), from.Close()
			}
			go copied(here, there)
			go copied(there, here)
		}
	}()
	return "http://" + l.Addr().String() + "/"
}

// run runs a command on a node.
func run(t *testing.T, n *lab.Node, argv ...string) {
	t.Helper()
	var out bytes.Buffer
	if err := n.Exec(t.Context(), argv, lab.Stdio{Out: &out, Err: &out}); err != nil {
		t.Fatal(errors.Join(err, errors.New(out.String())))
	}
}

// TestPage: what breaks in a lab is seen in the page, and what is repaired is seen to heal.
func TestPage(t *testing.T) {
	l := startLab(t)
	nodes := l.Nodes()
	b := openPage(t, forward(t, nodes[0]))
	const first, findings = "#rows tr td", "#rows tr td:last-child"
	b.await(text("#counts"), "5 ready")
	b.await(text("#live"), "live, as of")

	// A daemon that stops, and starts again.
	if err := nodes[2].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.await(text("#counts"), "1 missing")
	b.await(text(first), "node3")
	b.await(text(findings), "its daemon does not run")
	if err := nodes[2].Start(); err != nil {
		t.Fatal(err)
	}
	b.await(text("#counts"), "5 ready")

	// The matrix, by the keyboard.
	b.key("2")
	b.await("document.activeElement.id", "matrix-canvas")
	b.key(kb.Home, kb.ArrowRight)
	b.await(text("#matrix-text"), "node1 → node2\nIPv4: reachable")
	b.await(text("#matrix-text"), "path vxlan, fast path in use")
	b.await("document.querySelector('#matrix-canvas').dataset.outcome", "reachable")

	// A firewall that drops what node4 receives through the overlay.
	b.key(kb.ArrowRight, kb.ArrowRight)
	run(t, nodes[3], "nft", "add table inet cut; add chain inet cut in { type filter hook prerouting priority -400; }; "+
		"add rule inet cut in udp dport 8472 drop")
	b.await(text("#matrix-text"), "node1 → node4\nIPv4: unreachable")
	b.await("document.querySelector('#matrix-canvas').dataset.outcome", "unreachable")
	b.await(text("#counts"), "1 degraded")
	b.picture("mesh-matrix")
	b.key("3")
	b.await("document.activeElement.id", "graph-canvas")
	b.key(kb.End, kb.ArrowRight, kb.ArrowRight, kb.ArrowRight)
	b.await(text("#graph-text"), "node4: degraded")
	b.picture("mesh-graph")

	// Its detail, from the table.
	b.key("1")
	b.await(text(first), "node4")
	b.key(kb.Home, kb.Enter)
	b.await(text("#detail h2"), "node4")
	b.await("document.activeElement.id", "detail")
	b.await(text("#findings"), "traffic is cut")
	b.await(text("#doctor"), "checks passed")
	if err := nodes[3].DeleteRoutes(nodes[0], nodes[1]); err != nil {
		t.Fatal(err)
	}
	b.await(text("#repairs"), "route 10.5.")
	b.await(text("#repairs"), ", by pid ")
	b.picture("mesh-nodes")
	b.do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	b.await("getComputedStyle(document.body).backgroundColor", "rgb(20, 24, 28)")
	b.picture("mesh-dark")
	run(t, nodes[3], "nft", "delete", "table", "inet", "cut")
	b.await("document.querySelector('#detail').dataset.state", "ready")
	b.await(text("#counts"), "5 ready")
	b.key(kb.Escape)
	b.await("document.querySelector('#detail').hidden", "true")
	b.await("document.activeElement.tagName", "TR")
}
