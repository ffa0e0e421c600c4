package policy

import (
	"fmt"
	"slices"
	"testing"
)

// TestMisses: of a packet that no rule allows, the misses say of each rule what it lacks.
func TestMisses(t *testing.T) {
	w := standard(t)
	w.policy("red/a", `{"podSelector":{},"policyTypes":["Ingress","Egress"],"ingress":[
		{"from":[{"podSelector":{}}],"ports":[{"port":80}]},
		{"from":[{"namespaceSelector":{"matchLabels":{"team":"blue"}}}],"ports":[{"port":80}]},
		{"from":[{"podSelector":{}}],"ports":[{"port":"http"}]}]}`)
	w.policy("red/b", `{"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"ports":[{"port":443}]}]}`)
	w.policy("red/other", `{"podSelector":{"matchLabels":{"app":"db"}},"ingress":[{}]}`)
	p := w.packet("blue/near > red/web tcp 8080")
	if v := Judge(w, "", p)[Ingress]; v.Cause != CauseIsolated {
		t.Fatalf("verdict %+v, want one that is isolated", v)
	}
	want := []Miss{{"red/a", 0, false, false}, {"red/a", 1, true, false}, {"red/a", 2, false, true}, {"red/b", 0, true, false}}
	if got := Misses(w, p, Ingress); !slices.Equal(got, want) {
		t.Errorf("misses %+v\nwant %+v", got, want)
	}
	if got := Misses(w, p, Egress); len(got) > 0 {
		t.Errorf("egress is not isolated: %+v", got)
	}
}

// TestTexts: peers and ports are shown in kubectl's syntax.
func TestTexts(t *testing.T) {
	w := standard(t)
	p := w.policy("red/a", `{"podSelector":{},"ingress":[
		{"from":[{"podSelector":{"matchLabels":{"app":"web"}}},{"podSelector":{},"namespaceSelector":{}},
			{"namespaceSelector":{"matchExpressions":[{"key":"team","operator":"In","values":["x","y"]}]}},
			{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16","10.2.0.0/16"]}}],
		 "ports":[{"port":80},{"port":8000,"endPort":8999,"protocol":"UDP"},{"port":"http"},{"protocol":"SCTP"}]},
		{}, {"from":[{}]}]}`)
	want := `[pods(app=web) in red all pods in all namespaces all pods in namespaces(team in (x,y)) 10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16]` +
		` [80/TCP 8000-8999/UDP http/TCP SCTP]`
	peers, ports := p.Rules[Ingress][0].Texts()
	if got := fmt.Sprint(peers, " ", ports); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if peers, ports = p.Rules[Ingress][1].Texts(); peers != nil || ports != nil {
		t.Errorf("all: %q %q, want nil", peers, ports)
	}
	if peers, ports = p.Rules[Ingress][2].Texts(); peers == nil || len(peers) > 0 || ports != nil {
		t.Errorf("nothing: %q %q, want an empty list of peers", peers, ports)
	}
	cluster := w.clusterPolicy("c", `{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"ingress":[{"action":"Accept",
		"from":[{"namespaces":{}}],"protocols":[{"destinationNamedPort":"http"}]}]}`)
	if _, ports = cluster.Rules[Ingress][0].Texts(); !slices.Equal(ports, []string{"http"}) {
		t.Errorf("ports %q", ports)
	}
}

// TestAll: a compiler yields the objects that it was given.
func TestAll(t *testing.T) {
	w, c := standard(t), NewCompiler(thisNode)
	w.policy("red/a", `{"podSelector":{}}`)
	w.policy("blue/b", `{"podSelector":{}}`)
	var pods, policies, wantPods []string
	for _, p := range w.Pods {
		c.SetPod(*p)
		wantPods = append(wantPods, p.UID)
	}
	for _, p := range w.Policies {
		c.SetPolicy(*p)
	}
	for p := range c.AllPods() {
		pods = append(pods, p.UID)
	}
	for p := range c.AllPolicies() {
		policies = append(policies, p.Key())
	}
	slices.Sort(pods)
	slices.Sort(wantPods)
	slices.Sort(policies)
	if !slices.Equal(pods, wantPods) || !slices.Equal(policies, []string{"blue/b", "red/a"}) {
		t.Errorf("pods %q, want %q; policies %q", pods, wantPods, policies)
	}
}
