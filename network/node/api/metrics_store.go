package api

import (
	"slices"

	"github.com/selvage-net/selvage/network/node/status"
)

// storeMetrics are about the lease store. They exist for every store as selvage_store_, and for etcd also under the
// names from before there were other stores, selvage_etcd_.
func storeMetrics() []metric {
	store := func(s scrape) *status.StoreConnection { return &s.Store.StoreConnection }
	etcd := func(s scrape) *status.StoreConnection { return s.Etcd }
	own := []metric{
		gauge("store_info", "Always 1; the label is the kind of the lease store.", labels{"kind"},
			func(s scrape, to send) {
				if s.Store.Kind != "" {
					to(1, s.Store.Kind)
				}
			}),
		gauge("store_last_event_timestamp_seconds",
			"Time of the last sign of life of the watch on the leases; absent if the store does not report it.", nil,
			func(s scrape, to send) {
				if !s.Store.LastEvent.IsZero() {
					to(seconds(s.Store.LastEvent))
				}
			}),
	}
	return slices.Concat(own,
		connectionMetrics("store", "the lease store", store), connectionMetrics("etcd", "etcd", etcd))
}

// connectionMetrics are those whose names begin with prefix, of the connection to a store that texts call name. of
// returns nil if it is not there.
func connectionMetrics(prefix, name string, of func(scrape) *status.StoreConnection) []metric {
	// with calls values with the connection, if it is there.
	with := func(values func(*status.StoreConnection, send)) func(scrape, send) {
		return func(s scrape, to send) {
			if c := of(s); c != nil {
				values(c, to)
			}
		}
	}
	byMethod := func(counts func(*status.StoreConnection) map[string]uint64) func(scrape, send) {
		return with(func(c *status.StoreConnection, to send) {
			for method, n := range counts(c) {
				to(float64(n), method)
			}
		})
	}
	return []metric{
		gauge(prefix+"_up", "1 if "+name+" can be used, 0 if not.", nil,
			with(func(c *status.StoreConnection, to send) { to(bit(c.Outage == nil && !c.LastContact.IsZero())) })),
		gauge(prefix+"_last_contact_timestamp_seconds", "Time of the last answer from "+name+".", nil,
			with(func(c *status.StoreConnection, to send) {
				if !c.LastContact.IsZero() {
					to(seconds(c.LastContact))
				}
			})),
		gauge(prefix+"_request_duration_seconds", "Duration of the latest request to "+name+".", nil,
			with(func(c *status.StoreConnection, to send) { to(c.Latency.Seconds()) })),
		counter(prefix+"_requests_total", "Requests to "+name+"; each start of a watch is one.", labels{"method"},
			byMethod(func(c *status.StoreConnection) map[string]uint64 { return c.Requests })),
		counter(prefix+"_request_errors_total", "Requests to "+name+" that ended in an error.", labels{"method"},
			byMethod(func(c *status.StoreConnection) map[string]uint64 { return c.Failed })),
		counter(prefix+"_watch_restarts_total", "Restarts of the watch on the leases.", nil,
			with(func(c *status.StoreConnection, to send) { to(float64(max(watches(c), 1) - 1)) })),
		counter(prefix+"_sent_bytes_total", "Bytes sent to "+name+".", nil,
			with(func(c *status.StoreConnection, to send) { to(float64(c.Sent)) })),
		counter(prefix+"_received_bytes_total", "Bytes received from "+name+".", nil,
			with(func(c *status.StoreConnection, to send) { to(float64(c.Received)) })),
	}
}

// watches counts the starts of watches, by the names that they have in etcd and in Kubernetes.
func watches(c *status.StoreConnection) uint64 { return c.Requests["Watch"] + c.Requests["WATCH"] }
