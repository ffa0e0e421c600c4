package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

var update = flag.Bool("update", false, "write the sessions in the documentation anew")

// sessionPage is the page that the sessions are in, in as many blocks as there are scenes: one after the other.
const sessionPage = "../../Documentation/operating.md"

// kubernetesPart is the heading in the page after which the session with the Kubernetes store begins.
const kubernetesPart = "\n## With leases in the Kubernetes API\n"

// session is what an operator types on the nodes of a lab, and sees.
type session struct {
	t      *testing.T
	l      *lab.Lab
	ctx    context.Context
	blocks []string
	second bool              // it is the session after kubernetesPart
	macs   map[string]string // what stands for each
}

// scene begins a block of the page.
func (s *session) scene() { s.blocks = append(s.blocks, "") }

func (s *session) say(format string, args ...any) {
	s.blocks[len(s.blocks)-1] += fmt.Sprintf(format, args...)
}

// run runs a command on a node until it says what it is to say, with the exit code that it is to have: what is noticed and repaired
// takes its moment. What it says the last time is what the operator sees.
func (s *session) run(node int, command string, code int, until string) {
	s.t.Helper()
	out := ""
	waitFor(s.ctx, s.t, fmt.Sprintf("%q on node%d", command, node), func() error {
		var text bytes.Buffer
		err := s.l.Nodes()[node-1].Exec(s.ctx, []string{"sh", "-c", command}, lab.Stdio{Out: &text, Err: &text})
		exit, got := (*exec.ExitError)(nil), 0
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			return err
		}
		if out = text.String(); got != code || !strings.Contains(out, until) {
			return fmt.Errorf("exit code %d, want %d, and %q in\n%s", got, code, until, out)
		}
		return nil
	})
	s.say("node%d# %s\n%s", node, command, s.normal(out))
}

// does has something done on a node that is a command of the node's own, which the lab stands in for.
func (s *session) does(node int, command string, do func(*lab.Node) error) {
	s.t.Helper()
	if err := do(s.l.Nodes()[node-1]); err != nil {
		s.t.Fatal(err)
	}
	s.say("node%d# %s\n", node, command)
}

func (s *session) stops(node int) {
	s.t.Helper()
	s.does(node, "systemctl stop selvaged", func(n *lab.Node) error { return n.Stop(s.ctx) })
}

func (s *session) starts(node int) {
	s.t.Helper()
	s.does(node, "systemctl start selvaged", func(n *lab.Node) error { return errors.Join(n.Start(), n.WaitReady(s.ctx)) })
}

// forgetNeighbour has a node forget the MAC address of another one's uplink, as it does by itself within a minute.
func (s *session) forgetNeighbour(node, other int) {
	s.t.Helper()
	err := s.l.Nodes()[node-1].Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: s.l.Nodes()[other-1].Addr(subnet.IPv4).AsSlice()})
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

var (
	macText = regexp.MustCompile(`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`)
	// moments are what differs from one time to the next, and what stands for it.
	moments = []struct{ is, becomes string }{
		{`selvaged \S+, started .* ago; Linux \S+`, "selvaged v1.2.3, started 1 d 2 h ago; Linux 6.12.1"},
		{`selvaged \S+ is ready`, "selvaged v1.2.3 is ready"},
		{`at version \d+`, "at version 57"},
		{`etcd lease [0-9a-f]+`, "etcd lease 3dc2a1b0c9d8e7f6"},
		{`for (\d+ min )?\d+ s\b`, "for 3 s"},
		{`for \d+s\b`, "for 3s"},
		{`; last (\d+ min )?\d+ s ago`, "; last 1 s ago"},
		{`last contact (\d+ min )?\d+ s ago`, "last contact 1 s ago"},
		{`expires in \d+ (h|d)( \d+ (min|h))? without`, "expires in 23 h 59 min without"},
		{`grace for \d+ s`, "grace for 29 s"},
		{`retained until \d\d:\d\d:\d\d`, "retained until 12:00:29"},
		{`revision \d+`, "revision 57"},
		{`latency [0-9.]+(ms|µs)`, "latency 1.2ms"},
		{`the slowest in [0-9.]+(ms|µs)`, "the slowest in 350µs"},
		{`by pid \d+( \(ip\)|, gone or in a container)`, "by pid 4711 (ip)"}, // ip may have ended before it was looked for
	}
)

// normal replaces in text what differs from one time to the next.
func (s *session) normal(text string) string {
	text = macText.ReplaceAllStringFunc(text, func(mac string) string {
		if strings.HasPrefix(mac, "0e:00:00:00:00:") {
			return mac
		}
		if s.macs[mac] == "" {
			s.macs[mac] = fmt.Sprintf("0e:5e:1f:00:00:%02x", len(s.macs)+1)
		}
		return s.macs[mac]
	})
	for _, m := range moments {
		text = regexp.MustCompile(m.is).ReplaceAllString(text, m.becomes)
	}
	return text
}

// consoleBlock is one of the page's.
var consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")

// compare compares the blocks with those of the page, or writes them.
func (s *session) compare() {
	s.t.Helper()
	page, err := os.ReadFile(sessionPage)
	if err != nil {
		s.t.Fatal(err)
	}
	before, after, found := strings.Cut(string(page), kubernetesPart)
	if !found {
		s.t.Fatalf("%s has no heading %q", sessionPage, kubernetesPart)
	}
	part := &before
	if s.second {
		part = &after
	}
	var there []string
	for _, m := range consoleBlock.FindAllStringSubmatch(*part, -1) {
		there = append(there, m[1])
	}
	if len(there) != len(s.blocks) {
		s.t.Fatalf("%s has %d blocks, and the session %d", sessionPage, len(there), len(s.blocks))
	}
	for i, want := range there {
		if s.blocks[i] != want && !*update {
			s.t.Errorf("block %d of %s (-update writes it) has\n%s\nand this was seen\n%s", i+1, sessionPage, want, s.blocks[i])
		}
	}
	if *update {
		i := -1
		*part = consoleBlock.ReplaceAllStringFunc(*part, func(string) string {
			i++
			return "```console\n" + s.blocks[i] + "```"
		})
		if err := os.WriteFile(sessionPage, []byte(before+kubernetesPart+after), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
}

// openSession makes a lab whose nodes have the subnets that their names say.
func openSession(t *testing.T) *session {
	t.Helper()
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	l := start(t, lab.Options{Nodes: 3, Config: "-", IPTables: "none"})
	ctx := testctx.New(t)
	for i, n := range l.Nodes() {
		err := errors.Join(n.Stop(ctx), n.Do(func() error { // a node asks for the subnet that it had
			content := fmt.Sprintf("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.%d.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", i+1)
			return errors.Join(os.MkdirAll("/run/flannel", 0o755), os.WriteFile("/run/flannel/subnet.env", []byte(content), 0o644))
		}), n.Start())
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.Etcd().PutConfig(ctx, lab.DefaultConfig), l.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ETCDCTL_ENDPOINTS", l.Etcd().Endpoints()[0])
	return &session{t: t, l: l, ctx: ctx, macs: map[string]string{}}
}

// TestSession is Documentation/operating.md: what status, peers, explain and doctor show of an overlay that is broken in several ways
// and repaired, on real daemons.
func TestSession(t *testing.T) {
	s := openSession(t)
	const look = "selvaged doctor --check device,entries,routes,leases,peers"

	s.scene() // all is well
	s.run(1, "selvaged status", 0, "peers     2 programmed")
	s.run(1, "selvaged peers", 0, "node3")
	s.run(1, "selvaged explain 10.5.2.7", 0, "belongs to node2")
	s.run(1, look, 0, "0 failures, 0 warnings")

	s.scene() // somebody deletes a route
	s.run(1, "ip route del 10.5.3.0/24", 0, "")
	s.run(1, "selvaged status", 0, "repairs   1: 1 route missing")

	s.scene() // a foreign route in the way
	s.run(1, "ip route add 10.5.2.0/25 via 172.31.0.1", 0, "")
	s.run(1, "selvaged status", 2, "foreign route")
	s.run(1, "selvaged explain 10.5.2.7", 2, "foreign")
	s.run(1, look, 2, "takes precedence over the overlay's")
	s.run(1, "ip route del 10.5.2.0/25 via 172.31.0.1", 0, "")
	s.run(1, "selvaged status | head -n 1", 0, "node1: ready")

	s.scene() // a peer's daemon is killed, and its lease gone
	s.does(2, "kill -9 $(pidof selvaged)", func(n *lab.Node) error { n.Kill(); return nil })
	s.run(1, "etcdctl del /coreos.com/network/subnets/10.5.2.0-24", 0, "1")
	s.run(1, "selvaged peers --bad", 0, "grace")
	s.run(1, "selvaged explain 10.5.2.7", 0, "withdrawn")
	s.starts(2)
	s.run(1, "selvaged peers", 0, "flannel.1  programmed\nnode3")

	s.scene() // the device deleted while the daemon is stopped
	s.stops(1)
	s.run(1, "ip link delete flannel.1", 0, "")
	s.run(1, "selvaged status", 4, "")
	s.run(1, "selvaged doctor --check daemon,device", 2, "VXLAN device does not exist")
	s.starts(1)
	s.run(1, look, 0, "0 failures, 0 warnings")

	s.scene() // a duplicate subnet
	s.run(1, `etcdctl put '/coreos.com/network/subnets/10.5.2.0-24&fd00:5::-64' '{"PublicIP":"172.31.0.99","PublicIPv6":"fd00:31::99",`+
		`"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:99"},"BackendV6Data":{"VNI":1,"VtepMAC":"0e:00:00:00:00:98"}}'`, 0, "OK")
	s.run(1, "selvaged status | grep -A 1 ^peers", 0, "1 quarantined")
	s.run(1, "selvaged peers --bad", 0, "overlaps")
	s.run(1, "selvaged explain 10.5.2.7 | head -n 3", 0, "rejected")
	s.run(1, "selvaged doctor --check leases", 2, "rejected")
	s.run(1, "etcdctl del '/coreos.com/network/subnets/10.5.2.0-24&fd00:5::-64'", 0, "1")
	s.run(1, "selvaged doctor --check leases", 0, "all leases accepted")

	s.scene() // a peer's underlay link is down
	s.run(3, "ip link set eth0 down", 0, "")
	s.forgetNeighbour(1, 3)
	s.run(1, "selvaged status | grep ^peers", 0, "2 programmed")
	s.run(1, "selvaged doctor --check peers", 2, "no host on the link answers")
	s.run(3, "ip link set eth0 up", 0, "")
	s.run(1, "selvaged doctor --check peers", 0, "0 warnings, 1 passed")

	s.scene() // etcd is away
	s.does(1, "systemctl stop etcd", func(*lab.Node) error { s.l.Etcd().Kill(); return nil })
	s.run(1, "selvaged status", 2, "! etcd: nothing listens")
	s.run(1, "selvaged doctor --check etcd", 2, "nothing listens")
	s.does(1, "systemctl start etcd", func(*lab.Node) error { return s.l.Etcd().Start(s.ctx) })
	s.run(1, "selvaged status | head -n 1", 0, "node1: ready")

	s.compare()
}
