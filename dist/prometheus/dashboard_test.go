package prometheus

import (
	"os"
	"strings"
	"testing"
)

func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("selvage.dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for _, fault := range w.check(t.Context(), text) {
		t.Error(fault)
	}
	t.Run("faults", func(t *testing.T) { testFaults(t, w, string(text)) })
}

// testFaults makes sure that each fault would be found.
func testFaults(t *testing.T, w *world, text string) {
	const stat = `sum(selvage_state{job=~\"$job\", instance=~\"$instance\", state=\"ready\"})`
	for name, tt := range map[string]struct{ old, new, want string }{
		"no JSON":           {`"panels":`, `"panels"`, "invalid character"},
		"id":                {`"uid": "selvage",`, `"uid": "selvage", "id": 7,`, "no id"},
		"no uid":            {`"uid": "selvage",`, ``, "needs a uid"},
		"schema":            {`"schemaVersion": 41`, `"schemaVersion": 17`, "schema version 17"},
		"size":              {`"uid": "selvage",`, `"uid": "selvage", "x": "` + strings.Repeat("x", maxSize) + `",`, "bytes, more than"},
		"panel's id":        {`"id": 3,`, `"id": 2,`, "its id 2 is also that of"},
		"no title":          {`"title": "Nodes ready"`, `"title": ""`, `panel "": no title`},
		"no row title":      {`"title": "Overview"`, `"title": ""`, `panel "": no title`},
		"no description":    {`"description": "Nodes whose state is ready`, `"descriptio": "Nodes whose state is ready`, "no description"},
		"no unit":           {`"unit": "short"`, `"units": "short"`, `the unit "" is not`},
		"unknown unit":      {`"unit": "percentunit"`, `"unit": "share"`, `the unit "share"`},
		"unit of column":    {`"value": "dtdurations"`, `"value": "duration"`, `the unit "duration"`},
		"type":              {`"type": "table"`, `"type": "graph"`, `the type "graph"`},
		"overlap":           {`{"h": 4, "w": 3, "x": 3, "y": 1}`, `{"h": 4, "w": 3, "x": 2, "y": 1}`, "overlap"},
		"outside":           {`{"h": 4, "w": 3, "x": 21, "y": 1}`, `{"h": 4, "w": 4, "x": 21, "y": 1}`, "outside the grid"},
		"data source":       {"\"refId\": \"A\",\n          \"datasource\": {\"type\": \"prometheus\", \"uid\": \"${datasource}\"}", `"refId": "A", "datasource": {}`, `panel "Nodes ready": the data source is not the variable`},
		"variable's source": {`"uid": "${datasource}"`, `"uid": "prometheus"`, `variable "job": the data source is not the variable`},
		"refId":             {`"refId": "B"`, `"refId": "A"`, `two queries are called "A"`},
		"undefined":         {`$job`, `$cluster`, "cluster is used and not defined"},
		"unused":            {`"name": "job"`, `"name": "jobs"`, "jobs is not used"},
		"no PromQL":         {stat, `sum(selvage_state{`, "parse error"},
		"metric":            {stat, strings.Replace(stat, "_state", "_states", 1), "there is no metric selvage_states"},
		"label":             {stat, strings.Replace(stat, "state=", "stat=", 1), "selvage_state has no label stat="},
		"value":             {stat, strings.Replace(stat, "ready", "reedy", 1), `selvage_state has no label state="reedy"`},
		"group":             {`sum by (kind, cause)`, `sum by (kind, author)`, "has a label author"},
		"matching":          {`on (job, instance) group_left`, `on (job, node) group_left`, "has a label node"},
		"legend":            {`"legendFormat": "{{kind}} {{cause}}"`, `"legendFormat": "{{kind}} {{author}}"`, "no label author for the legend"},
		"not selected":      {stat, strings.Replace(stat, `instance=~\"$instance\", `, "", 1), "a selector is without instance"},
		"no result":         {stat, stat + ` > 5`, "no result"},
		"evaluation":        {stat, `selvage_state{job=~\"$job\", instance=~\"$instance\"} * on (instance) selvage_state{job=~\"$job\", instance=~\"$instance\"}`, "many-to-many"},
		"variable":          {`"query": "label_values(selvage_build_info, job)"`, `"query": "label_values(selvage_build, job)"`, "there is no metric selvage_build"},
		"variable's label":  {`"query": "label_values(selvage_build_info, job)"`, `"query": "label_values(selvage_build_info, jobs)"`, "no label jobs"},
		"variable's query":  {`"query": "label_values(selvage_build_info, job)"`, `"query": "metrics(selvage)"`, "it is not label_values"},
	} {
		changed := strings.Replace(text, tt.old, tt.new, 1)
		if changed == text {
			t.Errorf("%s: the dashboard does not have %s", name, tt.old)
			continue
		}
		if faults := strings.Join(w.check(t.Context(), []byte(changed)), "\n"); !strings.Contains(faults, tt.want) {
			t.Errorf("%s: no fault %q in:\n%s", name, tt.want, faults)
		}
	}
}
