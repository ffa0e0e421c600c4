package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/selvage-net/selvage/network/node/status"
)

// storeDescriptions has the metrics of the lease store. They exist for every store as selvage_store_, and for etcd also
// under the names from before there were other stores, selvage_etcd_.
type storeDescriptions struct {
	up, contact, latency, requests, failed, restarts, sent, received *prometheus.Desc

	event *prometheus.Desc // nil: it has none
}

// describeStore returns the metrics whose names begin with prefix, of a store that texts call name.
func describeStore(prefix, name string) storeDescriptions {
	of := func(metric, help string, labels ...string) *prometheus.Desc {
		return desc(prefix+"_"+metric, help, labels...)
	}
	return storeDescriptions{
		up:       of("up", "1 if "+name+" can be used, 0 if not."),
		contact:  of("last_contact_timestamp_seconds", "Time of the last answer from "+name+"."),
		latency:  of("request_duration_seconds", "Duration of the latest request to "+name+"."),
		requests: of("requests_total", "Requests to "+name+"; each start of a watch is one.", "method"),
		failed:   of("request_errors_total", "Requests to "+name+" that ended in an error.", "method"),
		restarts: of("watch_restarts_total", "Restarts of the watch on the leases."),
		sent:     of("sent_bytes_total", "Bytes sent to "+name+"."),
		received: of("received_bytes_total", "Bytes received from "+name+"."),
	}
}

// watches counts the starts of watches, by the names that they have in etcd and in Kubernetes.
func watches(c status.StoreConnection) uint64 { return c.Requests["Watch"] + c.Requests["WATCH"] }

// send sends what a connection has counted.
func (d storeDescriptions) send(c status.StoreConnection, gauge, counter func(*prometheus.Desc, float64, ...string)) {
	gauge(d.up, bit(c.Outage == nil && !c.LastContact.IsZero()))
	if !c.LastContact.IsZero() {
		gauge(d.contact, seconds(c.LastContact))
	}
	if d.event != nil && !c.LastEvent.IsZero() {
		gauge(d.event, seconds(c.LastEvent))
	}
	gauge(d.latency, c.Latency.Seconds())
	counter(d.restarts, float64(max(watches(c), 1)-1))
	for method, n := range c.Requests {
		counter(d.requests, float64(n), method)
	}
	for method, n := range c.Failed {
		counter(d.failed, float64(n), method)
	}
	counter(d.sent, float64(c.Sent))
	counter(d.received, float64(c.Received))
}
