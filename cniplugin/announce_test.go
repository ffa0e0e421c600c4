package cniplugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// plugged is a node in a network namespace, with a pod's interface that the fake delegate says it made. The other end
// is port, a port of the bridge cni0.
type plugged struct {
	*node
	host, pod *sandbox.Net
}

func newPlugged(t *testing.T) plugged {
	t.Helper()
	p := plugged{node: newNode(t)}
	for _, net := range []**sandbox.Net{&p.host, &p.pod} {
		n, err := sandbox.NewNet()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		*net = n
	}
	p.args.Netns = p.pod.Path()
	write(t, filepath.Join(p.fake, "result"), fmt.Sprintf(`{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},`+
		`{"name":"port"},{"name":"eth0","sandbox":%q}],"ips":[{"address":"10.5.29.2/24"}]}`, p.args.Netns))
	p.in(p.host, func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port", MasterIndex: bridge.Attrs().Index},
			PeerName: "eth0", PeerNamespace: netlink.NsFd(p.pod.Fd())}
		return netlink.LinkAdd(port)
	})
	p.in(p.pod, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return addAddress(eth0, "10.5.29.2/24", "10.5.29.1")
	})
	for _, name := range []string{"cni0", "port"} {
		p.up(name)
	}
	return p
}

func (p plugged) in(net *sandbox.Net, fn func() error) {
	p.t.Helper()
	if err := net.Do(fn); err != nil {
		p.t.Fatal(err)
	}
}

// up sets an interface of the node up.
func (p plugged) up(name string) {
	p.t.Helper()
	p.in(p.host, func() error { return netlink.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name}}) })
}

// add is ADD in the node's namespace.
func (p plugged) add(a *args) error { return p.host.Do(func() error { return p.verbs.Add(a) }) }

// setting reads one of the kernel's in the pod.
func (p plugged) setting(name string) (value string) {
	p.t.Helper()
	p.in(p.pod, func() error {
		b, err := os.ReadFile("/proc/sys/net/" + name)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value
}

// TestAnnounces: the kernel announces a pod's addresses by the MAC address that the pod has already.
func TestAnnounces(t *testing.T) {
	p := newPlugged(t)
	changes := make(chan netlink.LinkUpdate, 100)
	done := make(chan struct{})
	defer close(done)
	var before netlink.Link
	p.in(p.pod, func() (err error) {
		if before, err = netlink.LinkByName("eth0"); err != nil {
			return err
		}
		return netlink.LinkSubscribe(changes, done)
	})
	p.ok(p.add)
	for u := range changes { // a MAC address that was set is notified of, even if it is the same
		if u.Header.Type != unix.RTM_NEWLINK || u.Attrs().Name != "eth0" {
			continue
		}
		if got, want := u.Attrs().HardwareAddr.String(), before.Attrs().HardwareAddr.String(); got != want {
			t.Errorf("the MAC address is %s, was %s", got, want)
		}
		break
	}
	for _, name := range []string{"ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"} {
		if got := p.setting(name); got != "1" {
			t.Errorf("%s is %s", name, got)
		}
	}
	if p.stderr.Len() > 0 {
		t.Errorf("on stderr: %s", p.stderr.String())
	}
}

// TestCannotAnnounce: a pod that cannot be announced is added all the same, and the plugin says so.
func TestCannotAnnounce(t *testing.T) {
	for what, test := range map[string]struct {
		harm func(plugged) error // on the node
		says string
	}{
		"its bridge is down": {func(plugged) error {
			return netlink.LinkSetDown(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}})
		}, "the bridge has not forwarded what it sends for 1s"},
		"it has gone": {func(plugged) error {
			return netlink.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "port"}})
		}, "announce the interface eth0: find interface eth0: netlink: no such device"},
	} {
		p := newPlugged(t)
		p.in(p.host, func() error { return test.harm(p) })
		p.ok(p.add)
		if got := p.stderr.String(); !strings.Contains(got, test.says) {
			t.Errorf("%s: got %q on stderr, want %q in it", what, got, test.says)
		}
	}
}

// TestDoesNotAnnounce: interfaces that are not ours to announce, and one without a bridge, which is announced at once.
func TestDoesNotAnnounce(t *testing.T) {
	for what, prepare := range map[string]func(plugged) error{
		"it is of another namespace": func(p plugged) error {
			write(t, filepath.Join(p.fake, "result"), `{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}]}`)
			return nil
		},
		"it is no veth": func(p plugged) error {
			return p.pod.Do(func() error {
				eth0 := netlink.LinkAttrs{Name: "eth0"}
				if err := netlink.LinkDel(&netlink.Dummy{LinkAttrs: eth0}); err != nil {
					return err
				}
				return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: eth0}) // a dummy is not in each kernel
			})
		},
	} {
		p := newPlugged(t)
		p.in(p.host, func() error { return prepare(p) })
		p.ok(p.add)
		if got := p.setting("ipv6/conf/eth0/ndisc_notify"); got != "0" || p.stderr.Len() > 0 {
			t.Errorf("%s: ndisc_notify is %s; on stderr: %q", what, got, p.stderr.String())
		}
	}
	p := newPlugged(t) // a port of no bridge is announced at once
	p.in(p.host, func() error {
		return netlink.LinkSetNoMaster(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "port"}})
	})
	p.ok(p.add)
	if got := p.setting("ipv6/conf/eth0/ndisc_notify"); got != "1" || p.stderr.Len() > 0 {
		t.Errorf("without a bridge, ndisc_notify is %s; on stderr: %q", got, p.stderr.String())
	}
}
