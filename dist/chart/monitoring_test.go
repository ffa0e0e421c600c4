package chart

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestCopies holds the chart's copies of files to their sources.
func TestCopies(t *testing.T) {
	for path, source := range Copies() {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s differs from %s: run go generate in dist/chart", path, source)
		}
	}
}

// TestPodMonitor: it selects the daemon's pods and port, and gives them the labels that the alerts and the dashboard
// use.
func TestPodMonitor(t *testing.T) {
	list := render(t, valuesOf(t, "monitoring.yaml"))
	spec := find[monitoringv1.PodMonitor](t, list)[0].Spec
	pod := find[appsv1.DaemonSet](t, list)[0].Spec.Template
	if !reflect.DeepEqual(spec.Selector.MatchLabels, find[appsv1.DaemonSet](t, list)[0].Spec.Selector.MatchLabels) {
		t.Errorf("it selects %v", spec.Selector.MatchLabels)
	}
	if len(spec.PodMetricsEndpoints) != 1 {
		t.Fatalf("%d endpoints", len(spec.PodMetricsEndpoints))
	}
	e := spec.PodMetricsEndpoints[0]
	if port := pod.Spec.Containers[0].Ports[0].Name; e.Port == nil || *e.Port != port || e.Interval != "15s" {
		t.Errorf("the endpoint is %+v; the port is called %s", e, port)
	}
	rules, err := os.ReadFile("../prometheus/selvage.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	jobs := regexp.MustCompile(`job="(\w+)"`).FindAllStringSubmatch(string(rules), -1)
	if len(jobs) == 0 {
		t.Fatal("no alert matches a job")
	}
	for _, job := range jobs {
		if got := pod.Labels[spec.JobLabel]; got != job[1] {
			t.Errorf("the job is %q; an alert matches %q", got, job[1])
		}
	}
	if len(e.RelabelConfigs) != 2 || e.RelabelConfigs[1].TargetLabel != "instance" ||
		!regexp.MustCompile("^(?:"+e.RelabelConfigs[0].Regex+")$").MatchString("namespace") {
		t.Errorf("relabelings %+v", e.RelabelConfigs)
	}
}

// TestRules: the PrometheusRule has the rules of the file, with their templates.
func TestRules(t *testing.T) {
	text, err := os.ReadFile("../prometheus/selvage.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(text, &want); err != nil {
		t.Fatal(err)
	}
	got := find[monitoringv1.PrometheusRule](t, render(t, valuesOf(t, "monitoring.yaml")))[0]
	if len(want.Groups) == 0 || !reflect.DeepEqual(got.Spec, want) || got.Labels["release"] != "prometheus" {
		t.Errorf("labels %v, rules\n%+v", got.Labels, got.Spec)
	}
}

// TestDashboard: the ConfigMap has the dashboard as it is, and the label that Grafana's sidecar looks for.
func TestDashboard(t *testing.T) {
	want, err := os.ReadFile("../prometheus/selvage.dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	list := render(t, map[string]any{"monitoring": map[string]any{"dashboard": map[string]any{
		"enabled": true, "annotations": map[string]any{"grafana_folder": "Network"}}}})
	if got := configMap(t, list, "selvage-dashboard")["selvage.json"]; strings.TrimSpace(got) != strings.TrimSpace(string(want)) {
		t.Errorf("the dashboard is\n%s", got)
	}
	for _, m := range find[corev1.ConfigMap](t, list) {
		if m.Name == "selvage-dashboard" && (m.Labels["grafana_dashboard"] != "1" || m.Annotations["grafana_folder"] != "Network") {
			t.Errorf("labels %v, annotations %v", m.Labels, m.Annotations)
		}
	}
}

// TestMonitoringOff: without these values there is nothing of it, and a PodMonitor without a port is refused.
func TestMonitoringOff(t *testing.T) {
	for _, o := range render(t, map[string]any{"metricsPort": 9998}) {
		switch o := o.(type) {
		case *monitoringv1.PodMonitor, *monitoringv1.PrometheusRule:
			t.Errorf("there is a %T", o)
		case *corev1.ConfigMap:
			if strings.HasSuffix(o.Name, "-dashboard") {
				t.Errorf("there is %s", o.Name)
			}
		}
	}
	values := map[string]any{"monitoring": map[string]any{"podMonitor": map[string]any{"enabled": true}}}
	_, err := Render(dir, Release{Name: "selvage", Namespace: "selvage", Values: values})
	if err == nil || !strings.Contains(err.Error(), "needs metricsPort") {
		t.Errorf("a PodMonitor without a port: %v", err)
	}
}
