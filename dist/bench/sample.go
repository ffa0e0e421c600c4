package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	dto "github.com/prometheus/client_model/go"
	"github.com/vishvananda/netlink/nl"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// What may grow, and by how much. What is counted in the kernel, in files and in etcd is the same in every such state, to the last
// one.
var (
	exact = bound{count: 0}
	// A goroutine, or a descriptor, can be of a connection that is just being made or closed.
	nearly = bound{count: 2}
	// Go's runtime makes a thread when all others are in the kernel, and keeps it.
	threads = bound{count: 3}
	// When Go collects is up to chance, and so is when the kernel takes back what is free.
	memoryNoise = bound{count: 0.5, share: 0.02}
	told        = bound{told: true}
)

// take notes a value of something.
func (s *soak) take(of, what, unit string, value float64, by bound) {
	for _, x := range s.series {
		if x.Of == of && x.What == what {
			x.Samples = append(x.Samples, value)
			return
		}
	}
	s.series = append(s.series, &Series{Name: fmt.Sprintf("Soak/of=%s/what=%s", of, what), Of: of, What: what, Unit: unit, Samples: []float64{value}, by: by})
}

// sample looks at everything. All is as it is to be.
func (s *soak) sample(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, soakMost)
	defer cancel()
	for _, n := range s.lab.Nodes() {
		if err := errors.Join(s.sampleDaemon(ctx, n), s.sampleKernel(ctx, n), s.sampleFiles(n)); err != nil {
			return fmt.Errorf("sample %s: %w", n.Name(), err)
		}
	}
	if err := s.sampleStore(ctx); err != nil {
		return fmt.Errorf("sample %s: %w", s.store.Name, err)
	}
	all, err := numbered("/proc")
	s.take("lab", "processes", "", float64(all), nearly)
	return err
}

// sampleDaemon looks at a node's daemon. One that is killed now and then is another each time, of which little can be said.
func (s *soak) sampleDaemon(ctx context.Context, n *lab.Node) error {
	pid := n.PID()
	before, lives := s.pids[n.Name()]
	if lives && pid != before {
		return fmt.Errorf("process %d is not there any more: see the log", before)
	}
	by := func(b bound) bound {
		b.told = !lives
		return b
	}
	return s.sampleProcess(ctx, n.Name(), pid, throughNode(n), "http://"+soakMetrics, by)
}

func (s *soak) sampleProcess(ctx context.Context, of string, pid int, client *http.Client, endpoint string, by func(bound) bound) error {
	m, err := memoryOf(pid)
	if err != nil {
		return err
	}
	all, err := metricsBy(ctx, client, endpoint)
	if err != nil {
		return err
	}
	descriptors, err := numbered(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	tasks, err := numbered(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	s.take(of, "RSS", "MB", m.Resident/1e6, by(memoryNoise))
	s.take(of, "RssAnon", "MB", m.Anon/1e6, by(memoryNoise))
	s.take(of, "heap at which Go collects", "MB", gauge(all, "go_memstats_next_gc_bytes")/1e6, by(memoryNoise))
	s.take(of, "goroutines", "", gauge(all, "go_goroutines"), by(nearly))
	s.take(of, "file descriptors", "", float64(descriptors), by(nearly))
	s.take(of, "threads", "", float64(tasks), by(threads))
	return nil
}

// throughNode is a client inside the node.
func throughNode(n *lab.Node) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = n.Do(func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}}}
}

// gauge is the value of a metric that has no labels; 0 if there is none.
func gauge(all map[string]*dto.MetricFamily, name string) float64 {
	for _, m := range all[name].GetMetric() {
		return m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
	}
	return 0
}

// numbered counts entries whose names are numbers.
func numbered(dir string) (n int, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			n++
		}
	}
	return n, err
}

// sampleKernel counts what a node's kernel holds, of selvage's and of others'.
func (s *soak) sampleKernel(ctx context.Context, n *lab.Node) error {
	permanent := func(m []byte) bool { return binary.NativeEndian.Uint16(m[8:])&unix.NUD_PERMANENT != 0 }
	temporary := no(permanent)
	neighbours := []byte{unix.AF_INET, unix.AF_INET6}
	routes := neighbours
	for _, x := range []struct {
		what     string
		request  int
		families []byte
		size     int // of the header
		counts   func([]byte) bool
		by       bound
	}{
		{"links", unix.RTM_GETLINK, []byte{unix.AF_UNSPEC}, unix.SizeofIfInfomsg, nil, exact},
		// A device that a fault took away may come back with a link-local address that it had not, or without: see [linkLocal].
		{"addresses", unix.RTM_GETADDR, []byte{unix.AF_UNSPEC}, unix.SizeofIfAddrmsg, no(linkLocal(unix.SizeofIfAddrmsg, unix.IFA_ADDRESS)), exact},
		{"addresses, link-local", unix.RTM_GETADDR, []byte{unix.AF_UNSPEC}, unix.SizeofIfAddrmsg, linkLocal(unix.SizeofIfAddrmsg, unix.IFA_ADDRESS), told},
		{"routes", unix.RTM_GETROUTE, routes, unix.SizeofRtMsg, no(linkLocal(unix.SizeofRtMsg, unix.RTA_DST)), exact},
		{"routes, link-local and multicast", unix.RTM_GETROUTE, routes, unix.SizeofRtMsg, linkLocal(unix.SizeofRtMsg, unix.RTA_DST), told},
		{"policy rules", unix.RTM_GETRULE, []byte{unix.AF_INET, unix.AF_INET6}, unix.SizeofRtMsg, nil, exact},
		{"nexthop objects", unix.RTM_GETNEXTHOP, []byte{unix.AF_UNSPEC}, unix.SizeofNhmsg, nil, exact},
		{"neighbours", unix.RTM_GETNEIGH, neighbours, unix.SizeofNdMsg, permanent, exact},
		// Of pods that are gone, mostly: the kernel takes them away a minute or more after they were last used (gc_stale_time).
		{"neighbours that age", unix.RTM_GETNEIGH, neighbours, unix.SizeofNdMsg, temporary, told},
		{"FDB entries", unix.RTM_GETNEIGH, []byte{unix.AF_BRIDGE}, unix.SizeofNdMsg, permanent, exact},
		{"FDB entries that age", unix.RTM_GETNEIGH, []byte{unix.AF_BRIDGE}, unix.SizeofNdMsg, temporary, told},
	} {
		count := 0
		err := n.Do(func() error {
			for _, f := range x.families {
				all, err := dump(x.request, f, x.size)
				if err != nil {
					return fmt.Errorf("%s: %w", x.what, err)
				}
				for _, m := range all {
					if x.counts == nil || x.counts(m) {
						count++
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.take(n.Name(), x.what, "", float64(count), x.by)
	}
	rules, err := s.suite.Rules(ctx, n)
	s.take(n.Name(), "packet filter: rules, chains, set elements", "", float64(len(rules)), exact)
	return err
}

// no is the opposite.
func no(is func([]byte) bool) func([]byte) bool { return func(m []byte) bool { return !is(m) } }

// linkLocal looks for messages about what the kernel makes by itself for each device that has IPv6: a link-local address, with
// its routes, and those for multicast. What there is of it hangs on how a device was made, which is the faults' doing.
func linkLocal(header int, which uint16) func([]byte) bool {
	return func(m []byte) bool {
		a := address(attribute(m[header:], which))
		return a.Is6() && (a.IsLinkLocalUnicast() || a.IsMulticast())
	}
}

// dump reads a table of the calling thread's namespace, until nothing changes meanwhile.
func dump(request int, family byte, header int) (all [][]byte, err error) {
	const attempts = 20
	for range attempts {
		q := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
		h := make(rawData, header)
		h[0] = family
		q.AddData(h)
		all, err = q.Execute(unix.NETLINK_ROUTE, uint16(request-2)) // RTM_GETx is RTM_NEWx + 2
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// rawData is a part of a netlink request.
type rawData []byte

func (d rawData) Len() int          { return len(d) }
func (d rawData) Serialize() []byte { return d }

// sampleFiles counts what is kept on a node: of addresses given to pods, results of CNI, leases.
func (s *soak) sampleFiles(n *lab.Node) error {
	count := 0
	err := n.Do(func() error {
		for _, dir := range []string{"/run", "/var/lib"} {
			err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					count++
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	s.take(n.Name(), "files in /run and /var/lib", "", float64(count), exact)
	return err
}

// sampleStore counts what is in the store, and who watches it.
func (s *soak) sampleStore(ctx context.Context) error {
	if k := s.lab.Kube(); k != nil {
		objects, watches := k.Server().Count()
		_ = k.Server().Requests() // else the stand-in remembers them all
		s.take(s.store.Topic, "objects", "", float64(objects), exact)
		s.take(s.store.Topic, "watches", "", float64(watches), exact)
		return nil
	}
	return s.sampleEtcd(ctx, s.lab.Etcd())
}

func (s *soak) sampleEtcd(ctx context.Context, e *lab.Etcd) error {
	keys, err := e.Client().Get(ctx, "", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	leases, err := e.Client().Leases(ctx)
	if err != nil {
		return err
	}
	s.take("etcd", "keys", "", float64(keys.Count), exact)
	s.take("etcd", "leases", "", float64(len(leases.Leases)), exact)
	return e.Member(0, func(server *etcdserver.Server) error {
		all, err := metrics(ctx, server.Endpoint())
		if err != nil {
			return err
		}
		s.take("etcd", "watches", "", gauge(all, "etcd_debugging_mvcc_watcher_total"), exact)
		s.take("etcd", "file descriptors", "", gauge(all, "process_open_fds"), nearly)
		s.take("etcd", "RSS", "MB", gauge(all, "process_resident_memory_bytes")/1e6, told) // its history is kept
		return nil
	})
}
