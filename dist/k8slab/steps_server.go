package k8slab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// outageTime is how long the API server is gone.
const outageTime = time.Minute

// serverKilled kills the API server and starts it again a minute later. Meanwhile the kubelets start new pods, and a
// daemon.
func serverKilled(ctx context.Context, s *suite) (found []string, err error) {
	end := time.Now().Add(outageTime)
	s.kill(apiServer)
	for _, n := range s.nodes {
		if err := s.outage(ctx, n); err != nil {
			return nil, err
		}
	}
	started, err := s.static(ctx)
	if err != nil {
		return nil, err
	}
	restarted, err := s.daemonCrash(ctx, s.nodes[0])
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Until(end)): // it is this long that it is gone
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	took := time.Since(end.Add(-outageTime))
	if err := s.startServer(ctx); err != nil {
		return nil, err
	}
	seen, err := s.followed(ctx)
	if err != nil {
		return nil, err
	}
	gone := fmt.Sprintf("gone for %.0fs; each daemon reported it, and stayed ready", took.Seconds())
	return []string{gone, started, restarted, seen}, s.staticGone(ctx)
}

// outage waits until the daemon of a node reports that the API server does not answer, and wants it to be ready for
// Kubernetes all the same.
func (s *suite) outage(ctx context.Context, n *Node) error {
	return s.eventually(ctx, "the daemon of "+n.Name(), func() error {
		now, err := n.status(ctx)
		if err != nil {
			return err
		}
		if now.Store.Outage == nil {
			return errors.New("it reports no outage of its store")
		}
		if err := n.probe(ctx); err != nil {
			return fmt.Errorf("%w: %w", errStop, err)
		}
		return nil
	})
}

// probe asks as the kubelet does whether the daemon of a node is ready.
func (n *Node) probe(ctx context.Context) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return n.dial(ctx, "tcp", to)
		},
	}}
	for _, path := range []string{"/healthz", "/readyz"} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9470"+path, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", n.Name(), path, err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %s", n.Name(), path, answer.Status)
		}
	}
	return nil
}

// staticFile is the manifest of a pod that a kubelet starts by itself: no API server needs to know of it.
var staticFile = filepath.Join(staticPods, "static.json")

// static has each kubelet start such a pod, and calls it from a pod of each other node.
func (s *suite) static(ctx context.Context) (string, error) {
	manifest, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "static", "namespace": "default"},
		"spec": object{
			"dnsPolicy": "Default", "terminationGracePeriodSeconds": 1,
			"containers": []object{{
				"name": "agent", "image": "localhost/pod:lab", "imagePullPolicy": "Never",
				"command": []string{"/agent"},
			}},
		},
	})
	if err != nil {
		return "", err
	}
	start := time.Now()
	before := map[*Node][]netip.Addr{}
	for _, n := range s.nodes {
		if before[n], err = n.podAddrs(); err != nil {
			return "", err
		}
		if err := n.Do(func() error { return os.WriteFile(staticFile, manifest, 0o644) }); err != nil {
			return "", err
		}
	}
	for _, n := range s.nodes {
		for _, f := range s.families() {
			err := s.eventually(ctx, "a pod that starts on "+n.Name(), func() error {
				now, err := n.podAddrs()
				if err != nil {
					return err
				}
				i := slices.IndexFunc(now, func(a netip.Addr) bool {
					return subnet.FamilyOf(a) == f && !slices.Contains(before[n], a)
				})
				if i < 0 {
					return fmt.Errorf("it has no %s address", f)
				}
				for _, p := range s.streams() {
					echo, err := p.call(ctx, "tcp", netip.AddrPortFrom(now[i], agent.EchoPort))
					if err == nil && echo.By != "static-"+n.Name() {
						err = fmt.Errorf("%s answered", echo)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("meanwhile a new pod on each node, %.1fs later all of them called by pods of all nodes",
		time.Since(start).Seconds()), nil
}

// staticGone removes these pods.
func (s *suite) staticGone(ctx context.Context) error {
	for _, n := range s.nodes {
		if err := n.Do(func() error { return os.Remove(staticFile) }); err != nil {
			return err
		}
	}
	return s.eventually(ctx, "the end of the static pods", func() error {
		for _, n := range s.nodes {
			if _, err := s.kubectl(ctx, "get", "pod", "static-"+n.Name()); err == nil {
				return fmt.Errorf("there is one on %s", n.Name())
			}
		}
		return nil
	})
}

// podAddrs are the addresses that the node's pods have.
func (n *Node) podAddrs() (list []netip.Addr, err error) {
	err = n.Do(func() error {
		names, err := filepath.Glob("/var/lib/cni/networks/*/*")
		for _, name := range names {
			if a, err := netip.ParseAddr(filepath.Base(name)); err == nil { // there is a lock beside them
				list = append(list, a)
			}
		}
		return err
	})
	return list, err
}

// daemonCrash kills a node's daemon, which its kubelet starts again, and waits until it is ready with the cached
// leases.
func (s *suite) daemonCrash(ctx context.Context, n *Node) (string, error) {
	before, err := n.status(ctx)
	if err != nil {
		return "", err
	}
	if err := n.killDaemon(ctx); err != nil {
		return "", err
	}
	start := time.Now()
	err = s.eventually(ctx, "the daemon of "+n.Name(), func() error {
		now, err := n.status(ctx)
		if err != nil {
			return err
		}
		cached := has(now, status.CachedLeases) && now.Peers.Programmed == len(s.nodes)-1
		if now.Started.Equal(before.Started) || !cached {
			return fmt.Errorf("it is %s, with the peers %+v and the problems %v; want it to use its cached leases",
				now.State, now.Peers, now.Problems)
		}
		return n.probe(ctx)
	})
	return fmt.Sprintf("and the daemon of %s killed: ready %.1fs later, with its cached leases", n.Name(),
		time.Since(start).Seconds()), err
}

// has reports whether a daemon has a problem.
func has(now status.Status, code status.Reason) bool {
	return slices.ContainsFunc(now.Problems, func(p status.Problem) bool { return p.Code == code })
}

// killDaemon kills the daemon of a node as a crash would. Which process it is, its socket says.
func (n *Node) killDaemon(ctx context.Context) error {
	return n.Do(func() error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", status.DefaultSocket)
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.(*net.UnixConn).SyscallConn()
		if err != nil {
			return err
		}
		var peer *unix.Ucred
		var failed error
		err = raw.Control(func(fd uintptr) {
			peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		})
		if err := errors.Join(err, failed); err != nil {
			return err
		}
		return unix.Kill(int(peer.Pid), unix.SIGKILL)
	})
}

// ghost is a Node that no machine stands behind, with a lease as flannel writes it.
const ghost = "ghost"

// followed adds a Node with a lease and deletes it again, and waits until every daemon has noticed both. So it says
// whether the daemons see what changes, and that none of them misses a peer.
func (s *suite) followed(ctx context.Context) (string, error) {
	if err := s.peers(ctx, len(s.nodes)-1); err != nil {
		return "", err
	}
	names := [2][2]string{subnet.IPv4: {"backend-data", "public-ip"}, subnet.IPv6: {"backend-v6-data", "public-ipv6"}}
	annotations := map[string]string{prefix + "kube-subnet-manager": "true", prefix + "backend-type": "vxlan"}
	for _, f := range s.families() {
		annotations[prefix+names[f][0]] = `{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}`
		annotations[prefix+names[f][1]] = [2]string{subnet.IPv4: "172.31.0.99", subnet.IPv6: "fd00:31::99"}[f]
	}
	var podCIDRs []netip.Prefix
	for _, f := range s.families() {
		own := [2]string{subnet.IPv4: "10.5.99.0/24", subnet.IPv6: "fd00:5:0:63::/64"}[f]
		podCIDRs = append(podCIDRs, netip.MustParsePrefix(own))
	}
	if err := s.addGhost(ctx, podCIDRs, annotations); err != nil {
		return "", err
	}
	start := time.Now()
	if err := s.peers(ctx, len(s.nodes)); err != nil {
		return "", err
	}
	added := time.Since(start)
	if _, err := s.kubectl(ctx, "delete", "node", ghost); err != nil {
		return "", err
	}
	return fmt.Sprintf("a Node added: a peer of all daemons %.1fs later; deleted, and it is none", added.Seconds()),
		s.peers(ctx, len(s.nodes)-1)
}

// addGhost makes the ghost. Without the label of an operating system, it gets no pod of the DaemonSet.
func (s *suite) addGhost(ctx context.Context, podCIDRs []netip.Prefix, annotations map[string]string) error {
	node, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Node", "metadata": object{"name": ghost, "annotations": annotations},
		"spec": object{"unschedulable": true, "podCIDR": podCIDRs[0], "podCIDRs": podCIDRs},
	})
	if err != nil {
		return err
	}
	_, err = s.kubectlWith(ctx, string(node), "create", "-f", "-")
	return err
}

// prefix is that of the names of flannel's annotations.
const prefix = "flannel.alpha.coreos.com/"

// peers waits until every daemon has that many peers, no outage and no problem. A peer may be in its grace period
// only if it is the ghost.
func (s *suite) peers(ctx context.Context, want int) error { return s.peersOf(ctx, s.nodes, want) }

// peersOf is the same for the daemons of some nodes.
func (s *suite) peersOf(ctx context.Context, nodes []*Node, want int) error {
	for _, n := range nodes {
		err := s.eventually(ctx, "the daemon of "+n.Name(), func() error {
			now, err := n.status(ctx)
			if err != nil {
				return err
			}
			p := now.Peers
			if now.State != status.Ready || now.Store.Outage != nil || p.Programmed != want ||
				p.Pending+p.Quarantined > 0 || p.Grace > 1 || p.Grace+p.Programmed > len(s.nodes) {
				return fmt.Errorf("it is %s, with the peers %+v, want %d, and the problems %v",
					now.State, p, want, now.Problems)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
