package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// servedPort is where a Service leads to.
const servedPort = testPort + 2

// servicePort returns the cluster address of a Service. The first ones lead to the receiving pods.
func servicePort(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), testPort)
}

// setServices sets rules on all nodes as kube-proxy does with iptables, with one endpoint for each Service.
//
//	nat PREROUTING, OUTPUT → KUBE-SERVICES: for each Service → KUBE-SVC-… → KUBE-SEP-…: DNAT
//	nat POSTROUTING → KUBE-POSTROUTING: masquerade what has the mark
//	filter FORWARD, new connections → KUBE-SERVICES
//	filter FORWARD → KUBE-FORWARD: invalid: drop; the mark: accept; related, established: accept
func (p *dataPath) setServices(count int) error {
	rules := serviceRules(count, p.receivers)
	for _, n := range p.lab.Nodes() {
		if err := restore(n.Do, rules, "iptables-nft-restore", "--noflush"); err != nil {
			return fmt.Errorf("%s: %w", n.Name(), err)
		}
	}
	return nil
}

func serviceRules(count int, receivers []*lab.Pod) string {
	var chains, rules strings.Builder
	for i := range count {
		to := netip.AddrFrom4([4]byte{10, 5, 250, byte(i)}) // of no pod
		if i < len(receivers) {
			to = receivers[i].Addr(ipv4()[0])
		}
		a := servicePort(i)
		for _, protocol := range []string{"tcp", "udp"} {
			service, endpoint := fmt.Sprintf("KUBE-SVC-%s-%d", protocol, i), fmt.Sprintf("KUBE-SEP-%s-%d", protocol, i)
			fmt.Fprintf(&chains, ":%s - [0:0]\n:%s - [0:0]\n", service, endpoint)
			fmt.Fprintf(&rules, "-A KUBE-SERVICES -d %s/32 -p %s -m comment --comment \"service %d\" -m %s --dport %d "+
				"-j %s\n", a.Addr(), protocol, i, protocol, a.Port(), service)
			fmt.Fprintf(&rules, "-A %s -m comment --comment \"service %d\" -j %s\n", service, i, endpoint)
			fmt.Fprintf(&rules, "-A %s -s %s/32 -j KUBE-MARK-MASQ\n", endpoint, to) // a pod that calls itself
			fmt.Fprintf(&rules, "-A %s -p %s -m %s -j DNAT --to-destination %s:%d\n", endpoint, protocol, protocol, to,
				servedPort)
		}
	}
	return `*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
` + chains.String() + `-A PREROUTING -m comment --comment "service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "postrouting" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE
` + rules.String() + `COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`
}

// restore has a program read rules. do runs a function where they belong.
func restore(do func(func() error) error, rules string, argv ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules), &out, &out
	if err := do(cmd.Run); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "),
			errors.Join(err, errors.New(firstBytes(out.String(), 300))))
	}
	return nil
}

// publishedPort of a pod leads to a container in it.
const publishedPort = testPort + 1

// addNested makes a container in a pod: a namespace on a bridge of the pod's, with a published port.
func (p *dataPath) addNested(pod *lab.Pod) (inner end, err error) {
	const bridge, port, gateway, address = "docker0", "port0", "198.18.1.1", "198.18.1.2" // RFC 2544
	n, err := sandbox.NewNet()
	if err != nil {
		return inner, err
	}
	p.nets = append(p.nets, n)
	inner = end{n.Do, netip.MustParseAddr(address)}
	err = pod.Do(func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		pair := netlink.NewVeth(netlink.LinkAttrs{Name: port, MasterIndex: br.Attrs().Index})
		pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(n.Fd())
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return errors.Join(addAddress(br, gateway+"/24"), netlink.LinkSetUp(br), netlink.LinkSetUp(pair),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	})
	if err != nil {
		return inner, err
	}
	err = n.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := errors.Join(addAddress(link, address+"/24"), netlink.LinkSetUp(link)); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr(gateway).AsSlice()})
	})
	if err != nil {
		return inner, err
	}
	return inner, restore(pod.Do, fmt.Sprintf(`table ip docker {
	chain published {
		type nat hook prerouting priority dstnat
		iifname "eth0" tcp dport %d dnat to %s:%d
	}
	chain leaving {
		type nat hook postrouting priority srcnat
		ip saddr 198.18.1.0/24 oifname "eth0" masquerade
	}
}
`, publishedPort, address, testPort), "nft", "-f", "-")
}
