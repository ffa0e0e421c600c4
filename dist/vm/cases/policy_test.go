package cases

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// sctpOnly allows clients to reach the server's SCTP port 7000, and nobody anything else.
const sctpOnly = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{protocol: SCTP, port: 7000}]
`

// bridgeConntrack has the kernel track connections in the bridge itself (nf_conntrack_bridge), as the firewall of a host
// with virtual machines may. It allows everything.
const bridgeConntrack = `add table bridge other
add chain bridge other forward { type filter hook forward priority 0; policy accept; }
add rule bridge other forward ct state established,related counter accept
add rule bridge other forward ct state new counter accept`

// sctpListen listens on an SCTP port of a pod and sends a byte over each connection, until the test ends.
func sctpListen(t *testing.T, pod *lab.Pod, f subnet.Family, port uint16) {
	t.Helper()
	var fd int
	err := pod.Do(func() (err error) {
		if fd, err = unix.Socket(domain(f), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		return errors.Join(unix.Bind(fd, socketAddr(pod.Addr(f), port)), unix.Listen(fd, 8))
	})
	if err != nil {
		t.Fatalf("listen on SCTP port %d of %s: %v", port, pod.Name(), err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, _, err := unix.Accept(fd)
			if err != nil {
				return
			}
			_, _ = unix.Write(c, []byte{1}) // the client sees what it gets
			unix.Close(c)
		}
	}()
	t.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); unix.Close(fd) })
}

// sctpDial connects and reads a byte, for half a second at most, which is long here: time passes as instructions do.
func sctpDial(from *lab.Pod, to *lab.Pod, f subnet.Family, port uint16) error {
	return from.Do(func() error {
		fd, err := unix.Socket(domain(f), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		limit := unix.Timeval{Usec: 500_000}
		err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, socketAddr(to.Addr(f), port)); err != nil {
			return err
		}
		if n, err := unix.Read(fd, make([]byte, 1)); n != 1 {
			return fmt.Errorf("connected, and then read %d bytes, %w", n, err)
		}
		return nil
	})
}

// dialTCP connects to an address from a pod, for two seconds at most: time passes as instructions do.
func dialTCP(from *lab.Pod, to netip.AddrPort) error {
	return from.Do(func() error {
		conn, err := net.DialTimeout("tcp", to.String(), 2*time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func domain(f subnet.Family) int {
	return []int{subnet.IPv4: unix.AF_INET, subnet.IPv6: unix.AF_INET6}[f]
}

func socketAddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
}

// TestPolicySCTP: a policy tells SCTP ports apart, between pods of one node, which share a bridge, and of two; also on a node
// whose bridge tracks connections itself.
func TestPolicySCTP(t *testing.T) {
	dir := lab.PolicyDir(t.TempDir())
	both := families(subnet.IPv4, subnet.IPv6)
	c := newCluster(t, lab.Options{
		Nodes: 2, Families: both, Namespace: "default",
		DaemonArgs: []string{"--network-policy=on", "--policy-dir=" + string(dir)},
	})
	write := func(name, content string) {
		t.Helper()
		c.must(dir.Write(name, content))
	}
	write("namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n")
	c.configure(both, `{"Type":"vxlan"}`)
	c.must(c.WaitReady(c.ctx))
	kinds := []struct{ name, app, node string }{
		{"server", "server", "node1"}, {"near", "client", "node1"}, {"stranger", "other", "node1"},
		{"far", "client", "node2"}, {"spy", "other", "node2"},
	}
	pods := map[string]*lab.Pod{}
	publish := func() {
		text := ""
		for _, k := range kinds {
			var at *lab.Endpoint
			if p := pods[k.name]; p != nil {
				at = p.Endpoint
			}
			text += lab.PodYAML(k.name, k.app, k.node, at)
		}
		write("pods", text)
	}
	publish() // the plugin waits until a pod is known
	for _, k := range kinds {
		n := c.Nodes()[0]
		if k.node == "node2" {
			n = c.Nodes()[1]
		}
		p, err := c.AddPod(c.ctx, n, k.name)
		c.must(err)
		pods[k.name] = p
	}
	publish()
	for _, f := range both {
		for _, port := range []uint16{7000, 7001} {
			sctpListen(t, pods["server"], f, port)
		}
	}
	verdicts := func(what string, allowed func(from string, port uint16) bool) {
		t.Helper()
		for _, from := range []string{"near", "stranger", "far", "spy"} {
			for _, f := range both {
				for _, port := range []uint16{7000, 7001} {
					want := allowed(from, port)
					testctx.Eventually(t, func() string {
						if err := sctpDial(pods[from], pods["server"], f, port); (err == nil) != want {
							return fmt.Sprintf("%s: %s over %s to port %d: %v, want allowed: %t", what, from, f, port, err, want)
						}
						return ""
					})
				}
			}
		}
	}
	verdicts("without a policy", func(string, uint16) bool { return true })
	write("server", sctpOnly)
	byPolicy := func(from string, port uint16) bool { return port == 7000 && (from == "near" || from == "far") }
	verdicts("with a policy", byPolicy)
	for _, from := range []string{"near", "far"} {
		if err := dialTCP(pods[from], pods["server"].Echo(subnet.IPv4)); err == nil {
			t.Errorf("%s reaches a TCP port that no policy allows", from)
		}
	}
	for _, n := range c.Nodes() {
		c.must(n.Exec(c.ctx, []string{"nft", "-f", "-"}, lab.Stdio{In: strings.NewReader(bridgeConntrack)}))
	}
	verdicts("with conntrack in the bridge", byPolicy)
	s, err := c.Nodes()[0].Status(c.ctx)
	if err != nil || s.Enforcement == nil || !s.Enforcement.Enforcing || !s.Enforcement.Synced || len(s.Problems) > 0 {
		t.Errorf("the status of the server's node: %+v, %+v, %v", s.Enforcement, s.Problems, err)
	}
	c.must(os.Remove(filepath.Join(string(dir), "server.yaml")))
	verdicts("without the policy again", func(string, uint16) bool { return true })
}
