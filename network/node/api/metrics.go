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
	registry.MustRegister(&collector{s, describe()}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	options := promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, options))
	return mux
}

// collector is a [prometheus.Collector].
type collector struct {
	*Server
	descriptions
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("selvage_"+name, help, labels, nil)
}

// descriptions has all metrics.
type descriptions struct {
	build, state, since, peers, wanted, present, pending, repairs, failures, passes *prometheus.Desc
	leaseExpiry, pods, podsInSync, problems, cut, filter, leases, leaseLeft         *prometheus.Desc
	receiveDropped, sendDropped, receiveErrors, sendErrors                          *prometheus.Desc
	probed, probesSent, probesLost, probeTime                                       *prometheus.Desc

	storeInfo   *prometheus.Desc
	store, etcd storeDescriptions
}

func describe() descriptions {
	d := descriptions{
		build:    desc("build_info", "Always 1; the label is the version of selvaged.", "version"),
		state:    desc("state", "1 for the current state of the node, 0 for the other states.", "state"),
		since:    desc("state_since_timestamp_seconds", "Time at which the current state began."),
		problems: desc("problems", "Current problems; selvaged status lists them."),
		cut: desc("traffic_cut",
			"1 if a problem cuts the traffic between this node's pods and other nodes, 0 if none is known.", "family"),
		peers:    desc("peers", "Leases of other nodes, by state: programmed, pending, grace or quarantined.", "state"),
		wanted:   desc("entries_wanted", "Desired kernel entries.", "kind"),
		present:  desc("entries_present", "Kernel entries that are desired or managed by selvage.", "kind"),
		pending:  desc("entries_pending", "Kernel entries that are out of sync.", "kind"),
		repairs:  desc("repairs_total", "Repaired external changes to managed kernel entries.", "kind", "cause"),
		failures: desc("netlink_errors_total", "Changes that the kernel refused; they are retried.", "kind"),
		passes:   desc("pass_duration_seconds", "Duration of a pass that brings the kernel in sync."),

		pods: desc("pods", "Pods that the CNI plugin attached on this node, by bridge; without a bridge: an empty one.",
			"bridge"),
		podsInSync: desc("pods_in_sync", "1 if all that the pods of a bridge depend on is in sync, 0 if not.",
			"bridge"),

		leases: desc("leases", "Accepted leases, including this node's own."),
		leaseLeft: desc("lease_left_seconds",
			"Time until this node's lease expires without keep-alives; absent for a reservation."),
		leaseExpiry: desc("lease_expiry_timestamp_seconds",
			"Time at which this node's lease expires without keep-alives; absent for a reservation."),

		storeInfo: desc("store_info", "Always 1; the label is the kind of the lease store.", "kind"),
		store:     describeStore("store", "the lease store"),
		etcd:      describeStore("etcd", "etcd"),

		receiveDropped: desc("device_receive_dropped_packets_total",
			"Received packets that the overlay device dropped.", "device"),
		sendDropped: desc("device_transmit_dropped_packets_total",
			"Sent packets that the overlay device dropped.", "device"),
		receiveErrors: desc("device_receive_errors_total",
			"Receive errors of the overlay device.", "device"),
		sendErrors: desc("device_transmit_errors_total",
			"Transmit errors of the overlay device.", "device"),

		probed: desc("probed_peers",
			"Peers that this node probes through the overlay, by family and state: reachable, unreachable or waiting.",
			"family", "state"),
		probesSent: desc("probes_total", "Probes sent to peers.", "family"),
		probesLost: desc("probes_lost_total", "Probes that were not answered.", "family"),
		probeTime: desc("probe_round_trip_seconds",
			"Longest round-trip time of the latest answers of the probed peers.", "family"),

		filter: desc("packet_filter", "1 if the packet filter rules are in force, 0 if not; the label is the mode.",
			"mode"),
	}
	d.store.event = desc("store_last_event_timestamp_seconds",
		"Time of the last sign of life of the watch on the leases; absent if the store does not report it.")
	return d
}

// Describe implements prometheus.Collector. It describes nothing: the label values are not known in advance.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	st, err := c.source.Status(ctx)
	d := c.descriptions
	if err != nil {
		out <- prometheus.NewInvalidMetric(d.build, err)
		return
	}
	send := func(desc *prometheus.Desc, typ prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, typ, v, labels...)
	}
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		send(desc, prometheus.GaugeValue, v, labels...)
	}
	counter := func(desc *prometheus.Desc, v float64, labels ...string) {
		send(desc, prometheus.CounterValue, v, labels...)
	}

	gauge(d.build, 1, st.Version)
	for _, x := range []status.State{status.Starting, status.Ready, status.Degraded} {
		gauge(d.state, bit(x == st.State), string(x))
	}
	gauge(d.since, seconds(st.Since))
	gauge(d.problems, float64(len(st.Problems)))
	for _, family := range []string{"IPv4", "IPv6"} {
		gauge(d.cut, bit(slices.Contains(st.Cut, family)), family)
	}
	gauge(d.leases, float64(st.Leases))
	gauge(d.peers, float64(st.Peers.Programmed), string(status.Programmed))
	gauge(d.peers, float64(st.Peers.Pending), string(status.Pending))
	gauge(d.peers, float64(st.Peers.Grace), string(status.Grace))
	gauge(d.peers, float64(st.Peers.Quarantined), string(status.Quarantined))
	for _, p := range st.Probes {
		gauge(d.probed, float64(p.Reachable), p.Family, "reachable")
		gauge(d.probed, float64(p.Unreachable), p.Family, "unreachable")
		gauge(d.probed, float64(p.Waiting), p.Family, "waiting")
		counter(d.probesSent, float64(p.Sent), p.Family)
		counter(d.probesLost, float64(p.Lost), p.Family)
		if p.Reachable > 0 {
			gauge(d.probeTime, p.MaxRTT.Seconds(), p.Family)
		}
	}
	if st.Pods != nil {
		for _, b := range st.Pods.Bridges {
			gauge(d.pods, float64(b.Pods), b.Name)
			gauge(d.podsInSync, bit(b.InSync), b.Name)
		}
	}
	for kind, n := range st.Entries {
		gauge(d.wanted, float64(n.Wanted), kind)
		gauge(d.present, float64(n.Present), kind)
		gauge(d.pending, float64(n.Pending), kind)
	}
	for _, n := range st.Repairs.Counts {
		counter(d.repairs, float64(n.Count), n.Kind, n.What)
	}
	for kind, n := range st.Failures {
		counter(d.failures, float64(n), kind)
	}
	out <- prometheus.MustNewConstHistogram(d.passes, st.Passes.Count, st.Passes.Seconds, st.Passes.Buckets())
	if st.Lease != nil && !st.Lease.Expires.IsZero() {
		gauge(d.leaseExpiry, seconds(st.Lease.Expires))
		gauge(d.leaseLeft, st.Lease.Expires.Sub(c.now()).Seconds())
	}
	if st.Store.Kind != "" {
		gauge(d.storeInfo, 1, st.Store.Kind)
	}
	d.store.send(st.Store.StoreConnection, gauge, counter)
	if st.Etcd != nil {
		d.etcd.send(*st.Etcd, gauge, counter)
	}
	gauge(d.filter, bit(st.Filter.InForce), st.Filter.Mode)
	if st.Backend == nil {
		return
	}
	for _, x := range st.Backend.Devices {
		if x.Drops == nil {
			continue
		}
		counter(d.receiveDropped, float64(x.Drops.Received), x.Name)
		counter(d.sendDropped, float64(x.Drops.Sent), x.Name)
		counter(d.receiveErrors, float64(x.Drops.ReceiveErrors), x.Name)
		counter(d.sendErrors, float64(x.Drops.SendErrors), x.Name)
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
