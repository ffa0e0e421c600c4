// Package prometheus has what monitors selvage: alert rules and an example configuration for Prometheus, and a
// dashboard for Grafana. `make alerts` checks the rules with promtool and runs the tests of this package. They parse
// each expression of the dashboard with Prometheus' own parser, hold its metrics and labels to those in
// network/node/api/testdata/metrics.txt, and evaluate it with Prometheus' own engine on these series. Grafana itself is
// not run: that it draws the panels is not tested.
//
// It is a separate module, since Prometheus is far larger than the rest of the repository. The chart has copies of the
// rules and of the dashboard: after a change, run go generate in dist/chart.
package prometheus
