package api

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/selvage-net/selvage/network/node/status"
)

// metrics adds /metrics. What it says is one [status.Status], of the moment in which it is asked for: there is no second
// account of things that could differ from the first, and nothing grows with the number of peers.
func (s *Server) metrics(mux *http.ServeMux) *http.ServeMux {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{s, describe()}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
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

// all are the metrics there are.
type descriptions struct {
	build, state, since, peers, wanted, present, pending, repairs, failures, passes                 *prometheus.Desc
	leaseExpiry, etcdUp, etcdContact, etcdLatency, etcdRequests, etcdFailed, etcdSent, etcdReceived *prometheus.Desc
	problems, filter, leases, leaseLeft, watchRestarts                                              *prometheus.Desc
	receiveDropped, sendDropped, receiveErrors, sendErrors                                          *prometheus.Desc
}

func describe() descriptions {
	return descriptions{
		build:    desc("build_info", "1; the label is the version of selvaged.", "version"),
		state:    desc("state", "1 for the state that the node is in, 0 for the others.", "state"),
		since:    desc("state_since_timestamp_seconds", "When that state began."),
		problems: desc("problems", "How many things are not as they are to be; selvaged status names them."),
		peers:    desc("peers", "Other nodes' leases, by whether the kernel holds what leads to them.", "state"),
		wanted:   desc("entries_wanted", "Objects that are to be in the kernel.", "kind"),
		present:  desc("entries_present", "Objects in the kernel that are wanted or selvage's own.", "kind"),
		pending:  desc("entries_pending", "Objects that are to be changed, made or removed.", "kind"),
		repairs:  desc("repairs_total", "Objects that somebody else changed and that were set right.", "kind", "cause"),
		failures: desc("netlink_errors_total", "Changes that the kernel refused; they are tried again.", "kind"),
		passes:   desc("pass_duration_seconds", "How long it took to bring the kernel to what is wanted."),

		leases:      desc("leases", "Leases that are let in, this node's own among them."),
		leaseLeft:   desc("lease_left_seconds", "For how long this node's lease runs unless it is kept alive; absent for a reservation."),
		leaseExpiry: desc("lease_expiry_timestamp_seconds", "Until when this node's lease runs unless it is kept alive; absent for a reservation."),

		etcdUp:        desc("etcd_up", "Whether etcd can be used."),
		etcdContact:   desc("etcd_last_contact_timestamp_seconds", "When etcd last answered."),
		etcdLatency:   desc("etcd_request_duration_seconds", "How long etcd took for the latest request."),
		etcdRequests:  desc("etcd_requests_total", "Requests to etcd; each start of a watch is one.", "method"),
		watchRestarts: desc("etcd_watch_restarts_total", "How many times the watch on the leases had to be begun again."),
		etcdFailed:    desc("etcd_request_errors_total", "Requests to etcd that ended in an error.", "method"),
		etcdSent:      desc("etcd_sent_bytes_total", "Bytes sent to etcd."),
		etcdReceived:  desc("etcd_received_bytes_total", "Bytes received from etcd."),

		receiveDropped: desc("device_receive_dropped_packets_total", "Packets out of the tunnel that the overlay's device dropped.", "device"),
		sendDropped:    desc("device_transmit_dropped_packets_total", "Packets into the tunnel that the overlay's device dropped.", "device"),
		receiveErrors:  desc("device_receive_errors_total", "Packets out of the tunnel that were in error.", "device"),
		sendErrors:     desc("device_transmit_errors_total", "Packets into the tunnel that could not be sent.", "device"),

		filter: desc("packet_filter", "1 if the packet filter's rules are in force; the label is the kind of rules.", "mode"),
	}
}

// Describe implements prometheus.Collector. Nothing is described: which labels there are hangs on what happens.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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
	gauge(d.leases, float64(st.Leases))
	gauge(d.peers, float64(st.Peers.Programmed), string(status.Programmed))
	gauge(d.peers, float64(st.Peers.Pending), string(status.Pending))
	gauge(d.peers, float64(st.Peers.Grace), string(status.Grace))
	gauge(d.peers, float64(st.Peers.Quarantined), string(status.Quarantined))
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
	gauge(d.etcdUp, bit(st.Etcd.Outage == nil && !st.Etcd.LastContact.IsZero()))
	if !st.Etcd.LastContact.IsZero() {
		gauge(d.etcdContact, seconds(st.Etcd.LastContact))
	}
	gauge(d.etcdLatency, st.Etcd.Latency.Seconds())
	counter(d.watchRestarts, float64(max(st.Etcd.Requests["Watch"], 1)-1))
	for method, n := range st.Etcd.Requests {
		counter(d.etcdRequests, float64(n), method)
	}
	for method, n := range st.Etcd.Failed {
		counter(d.etcdFailed, float64(n), method)
	}
	counter(d.etcdSent, float64(st.Etcd.Sent))
	counter(d.etcdReceived, float64(st.Etcd.Received))
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
