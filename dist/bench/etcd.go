package bench

import (
	"context"
	"fmt"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// metrics reads what etcd, or its gRPC proxy, tells of itself.
func metrics(ctx context.Context, endpoint string) (map[string]*dto.MetricFamily, error) {
	return metricsBy(ctx, http.DefaultClient, endpoint)
}

// metricsBy reads what a program tells of itself.
func metricsBy(ctx context.Context, client *http.Client, endpoint string) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", endpoint, err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the metrics of %s: %w", endpoint, err)
	}
	return all, nil
}

// counters sums a counter's values by one of its labels.
func counters(all map[string]*dto.MetricFamily, name, label string) map[string]float64 {
	sums := map[string]float64{}
	for _, m := range all[name].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label {
				sums[l.GetValue()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			}
		}
	}
	return sums
}

// requests are those that etcd has begun to serve, by method. A stream counts once.
func requests(ctx context.Context, server *etcdserver.Server) (map[string]float64, error) {
	all, err := metrics(ctx, server.Endpoint())
	if err != nil {
		return nil, err
	}
	return counters(all, "grpc_server_started_total", "grpc_method"), nil
}

// since is the difference between two readings, without what is 0, and its sum.
func since(before, after map[string]float64) (by map[string]float64, sum float64) {
	by = map[string]float64{}
	for method, n := range after {
		if d := n - before[method]; d != 0 {
			by[method] = d
			sum += d
		}
	}
	return by, sum
}
