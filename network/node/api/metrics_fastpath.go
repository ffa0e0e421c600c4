package api

import "github.com/selvage-net/selvage/network/node/status"

// fastPathMetrics are about the fast path. There are none if the daemon's flags turn it off.
func fastPathMetrics() []metric {
	each := func(value func(f status.FastPath) float64) func(scrape, send) {
		return func(s scrape, to send) {
			if s.FastPath != nil {
				to(value(*s.FastPath))
			}
		}
	}
	return []metric{
		gauge("fast_path_in_use", "1 if the fast path is in use, 0 if all packets take the slow path.", nil,
			each(func(f status.FastPath) float64 { return bit(f.InUse) })),
		gauge("fast_path_ports", "Ports of this node's pods, by whether they use the fast path: fast or slow.",
			labels{"path"}, func(s scrape, to send) {
				if s.FastPath != nil {
					to(float64(s.FastPath.Ports), "fast")
					to(float64(len(s.FastPath.Slow)), "slow")
				}
			}),
		gauge("fast_path_peers", "Subnets of other nodes that the fast path knows.", nil,
			each(func(f status.FastPath) float64 { return float64(f.Peers) })),
		counter("fast_path_packets_total",
			"Packets by what the fast path did with them: sent, received and received_decapsulated were fast; "+
				"the other results say why one was slow, or what was learned from it.",
			labels{"result"}, func(s scrape, to send) {
				if s.FastPath != nil {
					for result, n := range s.FastPath.Packets {
						to(float64(n), result)
					}
				}
			}),
		counter("fast_path_flushes_total", "Times that all that the fast path had learned was made void.", nil,
			each(func(f status.FastPath) float64 { return float64(f.Flushes) })),
	}
}
