package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/selvage-net/selvage/network/node/status"
)

// metrics adds /metrics. Each scrape reports one [status.Status], so metrics and status are consistent, and the number
// of series does not depend on the number of peers.
func (s *Server) metrics(mux *http.ServeMux) *http.ServeMux {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{s, slices.Concat(allMetrics(), storeMetrics())}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	options := promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, options))
	return mux
}

// scrape is what the metrics of one scrape are made of.
type scrape struct {
	status.Status
	now time.Time
}

// send reports a value of a metric; labels are the values of its labels.
type send func(value float64, labels ...string)

// metric is one metric: what it is called, and how its values follow from the status. To add one, add an entry to
// [allMetrics] and a row to Documentation/running.md, and have the test write its golden file.
type metric struct {
	desc   *prometheus.Desc
	typ    prometheus.ValueType
	values func(scrape, send)
	// histogram is set in place of typ and values.
	histogram func(scrape) (count uint64, sum float64, buckets map[float64]uint64)
}

// labels are the names of a metric's labels.
type labels []string

func desc(name, help string, l labels) *prometheus.Desc {
	return prometheus.NewDesc("selvage_"+name, help, l, nil)
}

// gauge is a metric whose values can fall.
func gauge(name, help string, l labels, values func(scrape, send)) metric {
	return metric{desc: desc(name, help, l), typ: prometheus.GaugeValue, values: values}
}

// counter is a metric whose values only rise while the daemon runs.
func counter(name, help string, l labels, values func(scrape, send)) metric {
	return metric{desc: desc(name, help, l), typ: prometheus.CounterValue, values: values}
}

// allMetrics are those of the daemon, without those of the lease store.
func allMetrics() []metric {
	return slices.Concat(nodeMetrics(), peerMetrics(), sessionMetrics(), kernelMetrics(), policyMetrics(),
		fastPathMetrics())
}

// nodeMetrics are about the node as a whole.
func nodeMetrics() []metric {
	return []metric{
		gauge("build_info", "Always 1; the label is the version of selvaged.", labels{"version"},
			func(s scrape, to send) { to(1, s.Version) }),
		gauge("state", "1 for the current state of the node, 0 for the other states.", labels{"state"},
			func(s scrape, to send) {
				for _, x := range []status.State{status.Starting, status.Ready, status.Degraded} {
					to(bit(x == s.State), string(x))
				}
			}),
		gauge("state_since_timestamp_seconds", "Time at which the current state began.", nil,
			func(s scrape, to send) { to(seconds(s.Since)) }),
		gauge("problems", "Current problems; selvaged status lists them.", nil,
			func(s scrape, to send) { to(float64(len(s.Problems))) }),
		gauge("traffic_cut",
			"1 if a problem cuts the traffic between this node's pods and other nodes, 0 if none is known.",
			labels{"family"}, func(s scrape, to send) {
				for _, family := range []string{"IPv4", "IPv6"} {
					to(bit(slices.Contains(s.Cut, family)), family)
				}
			}),
		gauge("pods", "Pods that the CNI plugin attached on this node, by bridge; without a bridge: an empty one.",
			labels{"bridge"}, eachBridge(func(b status.PodBridge) float64 { return float64(b.Pods) })),
		gauge("pods_in_sync", "1 if all that the pods of a bridge depend on is in sync, 0 if not.",
			labels{"bridge"}, eachBridge(func(b status.PodBridge) float64 { return bit(b.InSync) })),
		gauge("lease_expiry_timestamp_seconds",
			"Time at which this node's lease expires without keep-alives; absent for a reservation.", nil,
			untilExpiry(func(_ scrape, at time.Time) float64 { return seconds(at) })),
		gauge("lease_left_seconds",
			"Time until this node's lease expires without keep-alives; absent for a reservation.", nil,
			untilExpiry(func(s scrape, at time.Time) float64 { return at.Sub(s.now).Seconds() })),
		gauge("packet_filter", "1 if the packet filter rules are in force, 0 if not; the label is the mode.",
			labels{"mode"}, func(s scrape, to send) { to(bit(s.Filter.InForce), s.Filter.Mode) }),
	}
}

// peerMetrics are about other nodes.
func peerMetrics() []metric {
	return []metric{
		gauge("leases", "Accepted leases, including this node's own.", nil,
			func(s scrape, to send) { to(float64(s.Leases)) }),
		gauge("peers", "Leases of other nodes, by state: programmed, pending, grace or quarantined.", labels{"state"},
			func(s scrape, to send) {
				to(float64(s.Peers.Programmed), string(status.Programmed))
				to(float64(s.Peers.Pending), string(status.Pending))
				to(float64(s.Peers.Grace), string(status.Grace))
				to(float64(s.Peers.Quarantined), string(status.Quarantined))
			}),
		gauge("peers_encrypted",
			"Peers to which packets are sent encrypted; absent without a backend that encrypts.", nil,
			func(s scrape, to send) {
				if s.Backend != nil && s.Backend.Encrypted != nil {
					to(float64(*s.Backend.Encrypted))
				}
			}),
		gauge("encryption_required",
			"1 if leases of nodes that do not encrypt are rejected, 0 if they will be once packets to all peers are "+
				"encrypted; absent if the network config does not require encryption.", nil,
			func(s scrape, to send) {
				if s.Backend != nil && s.Backend.Encryption != "" {
					to(bit(s.Backend.Encryption == status.EncryptionRequired))
				}
			}),
		gauge("probed_peers",
			"Peers that this node probes through the overlay, by family and state: reachable, unreachable or waiting.",
			labels{"family", "state"}, func(s scrape, to send) {
				for _, p := range s.Probes {
					to(float64(p.Reachable), p.Family, "reachable")
					to(float64(p.Unreachable), p.Family, "unreachable")
					to(float64(p.Waiting), p.Family, "waiting")
				}
			}),
		counter("probes_total", "Probes sent to peers.", labels{"family"},
			eachProbe(func(p status.Probes) (float64, bool) { return float64(p.Sent), true })),
		counter("probes_lost_total", "Probes that were not answered.", labels{"family"},
			eachProbe(func(p status.Probes) (float64, bool) { return float64(p.Lost), true })),
		gauge("probe_round_trip_seconds", "Longest round-trip time of the latest answers of the probed peers.",
			labels{"family"},
			eachProbe(func(p status.Probes) (float64, bool) { return p.MaxRTT.Seconds(), p.Reachable > 0 })),
	}
}

// sessionMetrics are about the sessions of WireGuard devices. None has a label for a peer: there may be thousands.
func sessionMetrics() []metric {
	each := func(f func(s scrape, x status.Sessions, to send)) func(scrape, send) {
		return func(s scrape, to send) {
			if s.Backend != nil {
				for _, x := range s.Backend.Sessions {
					f(s, x, to)
				}
			}
		}
	}
	return []metric{
		gauge("wireguard_peers",
			"WireGuard peers, by device and state: live (with a session), silent (it does not answer) or idle.",
			labels{"device", "state"}, each(func(_ scrape, x status.Sessions, to send) {
				to(float64(x.Live), x.Device, "live")
				to(float64(x.Silent), x.Device, "silent")
				to(float64(x.Idle), x.Device, "idle")
			})),
		gauge("wireguard_handshake_age_seconds",
			"Age of the oldest handshake of the live peers of a WireGuard device; absent without one.",
			labels{"device"}, each(func(s scrape, x status.Sessions, to send) {
				if !x.Oldest.IsZero() {
					to(s.now.Sub(x.Oldest).Seconds(), x.Device)
				}
			})),
		counter("wireguard_received_bytes_total", "Bytes received from the peers of a WireGuard device.",
			labels{"device"}, each(func(_ scrape, x status.Sessions, to send) { to(float64(x.Received), x.Device) })),
		counter("wireguard_sent_bytes_total", "Bytes sent to the peers of a WireGuard device.",
			labels{"device"}, each(func(_ scrape, x status.Sessions, to send) { to(float64(x.Sent), x.Device) })),
		counter("wireguard_processes_replaced_total",
			"Processes that served a WireGuard device in user space and were replaced, by cause: ended, hung or lost.",
			labels{"device", "cause"}, func(s scrape, to send) {
				if s.Backend == nil {
					return
				}
				for _, d := range s.Backend.Devices {
					if u := d.UserSpace; u != nil {
						to(float64(u.Ended), d.Name, "ended")
						to(float64(u.Hung), d.Name, "hung")
						to(float64(u.Lost), d.Name, "lost")
					}
				}
			}),
		gauge("key_rotation", "1 while this node changes its key, 0 if not; absent without a key.", nil,
			func(s scrape, to send) {
				if s.Backend != nil && len(s.Backend.Sessions) > 0 {
					to(bit(s.Backend.Rotation != nil && s.Backend.Rotation.Stage != ""))
				}
			}),
	}
}

// kernelMetrics are about what selvage has in the kernel.
func kernelMetrics() []metric {
	return []metric{
		gauge("entries_wanted", "Desired kernel entries.", labels{"kind"},
			eachKind(func(c status.Count) int { return c.Wanted })),
		gauge("entries_present", "Kernel entries that are desired or managed by selvage.", labels{"kind"},
			eachKind(func(c status.Count) int { return c.Present })),
		gauge("entries_pending", "Kernel entries that are out of sync.", labels{"kind"},
			eachKind(func(c status.Count) int { return c.Pending })),
		counter("repairs_total", "Repaired external changes to managed kernel entries.", labels{"kind", "cause"},
			func(s scrape, to send) {
				for _, n := range s.Repairs.Counts {
					to(float64(n.Count), n.Kind, n.What)
				}
			}),
		counter("netlink_errors_total", "Changes that the kernel refused; they are retried.", labels{"kind"},
			func(s scrape, to send) {
				for kind, n := range s.Failures {
					to(float64(n), kind)
				}
			}),
		counter("notification_overruns_total",
			"Times that the kernel dropped netlink notifications because they were not read in time; "+
				"a full resync follows each.", nil,
			func(s scrape, to send) { to(float64(s.Overruns)) }),
		{
			desc: desc("pass_duration_seconds", "Duration of a pass that brings the kernel in sync.", nil),
			histogram: func(s scrape) (uint64, float64, map[float64]uint64) {
				return s.Passes.Count, s.Passes.Seconds, s.Passes.Buckets()
			},
		},
		counter("device_receive_dropped_packets_total", "Received packets that the overlay device dropped.",
			labels{"device"}, eachDevice(func(d *status.Drops) uint64 { return d.Received })),
		counter("device_transmit_dropped_packets_total", "Sent packets that the overlay device dropped.",
			labels{"device"}, eachDevice(func(d *status.Drops) uint64 { return d.Sent })),
		counter("device_receive_errors_total", "Receive errors of the overlay device.",
			labels{"device"}, eachDevice(func(d *status.Drops) uint64 { return d.ReceiveErrors })),
		counter("device_transmit_errors_total", "Transmit errors of the overlay device.",
			labels{"device"}, eachDevice(func(d *status.Drops) uint64 { return d.SendErrors })),
	}
}

// policyMetrics are about the enforcement of network policies.
func policyMetrics() []metric {
	each := func(value func(e status.Enforcement) float64) func(scrape, send) {
		return func(s scrape, to send) {
			if s.Enforcement != nil {
				to(value(*s.Enforcement))
			}
		}
	}
	return []metric{
		gauge("policy_pods", "Pods of this node that network policies can select.", nil,
			each(func(e status.Enforcement) float64 { return float64(e.Pods) })),
		gauge("policy_chains",
			"Chains in the table of network policies; 0 if no policy selects a pod of this node.", nil,
			each(func(e status.Enforcement) float64 { return float64(e.Chains) })),
		gauge("policy_elements", "Elements in the sets of the table of network policies.", nil,
			each(func(e status.Enforcement) float64 { return float64(e.Elements) })),
		gauge("policy_pods_waiting", "New pods whose rules are not in the kernel yet.", nil,
			each(func(e status.Enforcement) float64 { return float64(e.Waiting) })),
		counter("policy_repairs_total", "Repaired external changes to the tables of network policies.", nil,
			each(func(e status.Enforcement) float64 { return float64(e.Repairs) })),
		counter("policy_drops_total",
			"Denied packets that were reported; of the packets that one rule denies, a few a second are.",
			labels{"namespace", "direction", "cause", "policy"}, func(s scrape, to send) {
				if s.Enforcement != nil {
					for _, x := range s.Enforcement.Drops {
						to(float64(x.Count), x.Namespace, x.Direction, x.Cause, x.Policy)
					}
				}
			}),
		gauge("policy_source_objects", "Known objects that network policies are about.", labels{"source"},
			func(s scrape, to send) {
				if s.Enforcement != nil {
					for _, x := range s.Enforcement.Sources {
						to(float64(x.Objects), x.Name)
					}
				}
			}),
	}
}

// eachBridge has a value for each bridge of this node's pods.
func eachBridge(value func(status.PodBridge) float64) func(scrape, send) {
	return func(s scrape, to send) {
		if s.Pods == nil {
			return
		}
		for _, b := range s.Pods.Bridges {
			to(value(b), b.Name)
		}
	}
}

// untilExpiry has a value if this node's lease expires.
func untilExpiry(value func(s scrape, at time.Time) float64) func(scrape, send) {
	return func(s scrape, to send) {
		if s.Lease != nil && !s.Lease.Expires.IsZero() {
			to(value(s, s.Lease.Expires))
		}
	}
}

// eachProbe has a value for each family that is probed, if there is one.
func eachProbe(value func(status.Probes) (v float64, ok bool)) func(scrape, send) {
	return func(s scrape, to send) {
		for _, p := range s.Probes {
			if v, ok := value(p); ok {
				to(v, p.Family)
			}
		}
	}
}

// eachKind has a value for each kind of kernel entry.
func eachKind(value func(status.Count) int) func(scrape, send) {
	return func(s scrape, to send) {
		for kind, n := range s.Entries {
			to(float64(value(n)), kind)
		}
	}
}

// eachDevice has a value for each device of the overlay whose counters are known.
func eachDevice(value func(*status.Drops) uint64) func(scrape, send) {
	return func(s scrape, to send) {
		if s.Backend == nil {
			return
		}
		for _, d := range s.Backend.Devices {
			if d.Drops != nil {
				to(float64(value(d.Drops)), d.Name)
			}
		}
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// collector is a [prometheus.Collector].
type collector struct {
	*Server
	all []metric
}

// Describe implements prometheus.Collector. It describes nothing: the label values are not known in advance.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	st, err := c.source.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.all[0].desc, err)
		return
	}
	s := scrape{st, c.now()}
	for _, m := range c.all {
		if m.histogram != nil {
			count, sum, buckets := m.histogram(s)
			out <- prometheus.MustNewConstHistogram(m.desc, count, sum, buckets)
			continue
		}
		m.values(s, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(m.desc, m.typ, value, labels...)
		})
	}
}
