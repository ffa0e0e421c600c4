package policy

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// problems returns "reason place" of each.
func problems(list []Problem) (all []string) {
	for _, p := range list {
		all = append(all, string(p.Reason)+" "+p.Place)
	}
	return all
}

func expectProblems(t *testing.T, spec string, got []Problem, want ...string) {
	t.Helper()
	if have := problems(got); !slices.Equal(have, want) {
		t.Errorf("%s:\n got %q\nwant %q", spec, have, want)
	}
}

// TestPolicyProblems: each part that is not understood is reported with a code and its place, and allows nothing.
func TestPolicyProblems(t *testing.T) {
	const in = "spec.ingress[0]"
	rule := func(s string) string { return `{"policyTypes":["Ingress"],"ingress":[` + s + `]}` }
	from := func(s string) string { return rule(`{"from":[` + s + `]}`) }
	port := func(s string) string { return rule(`{"ports":[` + s + `]}`) }
	for _, c := range []struct {
		spec string
		want []string
	}{
		{from(`{}`), []string{"invalid-peer " + in + ".from[0]"}},
		{from(`null`), []string{"invalid-peer " + in + ".from[0]"}},
		{from(`{"podSelector":null}`), []string{"invalid-peer " + in + ".from[0]"}},
		{from(`{"podSelector":{},"ipBlock":{"cidr":"0.0.0.0/0"}}`), []string{"invalid-peer " + in + ".from[0]"}},
		{from(`{"podSelector":{},"serviceSelector":{}}`), []string{"unknown-field " + in + ".from[0]"}},
		{from(`{"PodSelector":{}}`), []string{"unknown-field " + in + ".from[0]"}},
		{from(`7`), []string{"malformed " + in + ".from[0]"}},
		{from(`{"podSelector":[]}`), []string{"malformed " + in + ".from[0].podSelector"}},
		{from(`{"podSelector":{"matchLabels":{"a":1}}}`), []string{"malformed " + in + ".from[0].podSelector.matchLabels.a"}},
		{from(`{"podSelector":{"matchExpressions":[{"key":"a","operator":"In"}]}}`),
			[]string{"invalid-selector " + in + ".from[0].podSelector.matchExpressions[0]"}},
		{from(`{"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"Exists","values":["x"]}]}}`),
			[]string{"invalid-selector " + in + ".from[0].namespaceSelector.matchExpressions[0]"}},
		{from(`{"ipBlock":{}}`), []string{"invalid-cidr " + in + ".from[0].ipBlock.cidr"}},
		{from(`{"ipBlock":{"cidr":"010.0.0.0/8"}}`), []string{"invalid-cidr " + in + ".from[0].ipBlock.cidr"}},
		{from(`{"ipBlock":{"cidr":"::ffff:10.0.0.0/104"}}`), []string{"invalid-cidr " + in + ".from[0].ipBlock.cidr"}},
		{from(`{"ipBlock":{"cidr":"0.0.0.0/0","except":["x"]}}`), []string{"invalid-cidr " + in + ".from[0].ipBlock.except[0]"}},
		{from(`{"ipBlock":{"cidr":"0.0.0.0/0","except":"10.0.0.0/8"}}`), []string{"malformed " + in + ".from[0].ipBlock.except"}},
		{rule(`{"from":{}}`), []string{"malformed " + in + ".from"}},
		{rule(`{"ports":{}}`), []string{"malformed " + in + ".ports"}},
		{rule(`{"to":[]}`), []string{"unknown-field " + in}},
		{rule(`[]`), []string{"malformed " + in}},
		{port(`{"protocol":"tcp"}`), []string{"invalid-protocol " + in + ".ports[0].protocol"}},
		{port(`{"protocol":""}`), []string{"invalid-protocol " + in + ".ports[0].protocol"}},
		{port(`{"port":0}`), []string{"invalid-port " + in + ".ports[0].port"}},
		{port(`{"port":65536}`), []string{"invalid-port " + in + ".ports[0].port"}},
		{port(`{"port":1.5}`), []string{"invalid-port " + in + ".ports[0].port"}},
		{port(`{"port":""}`), []string{"invalid-port " + in + ".ports[0]"}},
		{port(`{"port":"http","endPort":90}`), []string{"invalid-port " + in + ".ports[0]"}},
		{port(`{"endPort":90}`), []string{"invalid-port " + in + ".ports[0].endPort"}},
		{port(`{"port":90,"endPort":89}`), []string{"invalid-port " + in + ".ports[0].endPort"}},
		{port(`{"port":90,"icmp":{}}`), []string{"unknown-field " + in + ".ports[0]"}},
		{`{"policyTypes":["ingress"],"ingress":[{}]}`, []string{"invalid-type spec.policyTypes[0]"}},
		{`{"policyTypes":"Ingress","ingress":[{}]}`, []string{"malformed spec.policyTypes"}},
		{`{"ingress":{}}`, []string{"malformed spec.ingress"}},
		{`{"podSelector":{"a":"b"},"ingress":[{}]}`, []string{"unknown-field spec.podSelector"}},
		{`{"order":1,"ingress":[{}]}`, []string{"unknown-field spec"}},
		{`"x"`, []string{"malformed spec"}},
	} {
		w := standard(t)
		p := w.policy("red/a", c.spec)
		expectProblems(t, c.spec, p.Problems, c.want...)
		for _, packet := range []string{"red/web > red/db tcp 90", "blue/near > red/db tcp 89", "192.0.2.1 > red/db sctp 90"} {
			if v := Judge(w, thisNode, w.packet(packet))[Ingress]; v.Cause != CauseIsolated {
				t.Errorf("%s: %s is %s, want it isolated", c.spec, packet, v.short())
			}
		}
	}
}

// TestClusterPolicyProblems: what is not understood accepts nothing and denies otherwise.
func TestClusterPolicyProblems(t *testing.T) {
	rule := func(s string) string {
		return `{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"egress":[{"action":"ACTION",` + s + `}]}`
	}
	const place = "spec.egress[0]"
	const to = `"to":[{"namespaces":{}}]`
	for _, c := range []struct {
		spec string
		want []string
	}{
		{rule(`"to":[{}]`), []string{"invalid-peer " + place + ".to[0]"}},
		{rule(`"to":[{"services":{}}]`), []string{"unknown-field " + place + ".to[0]"}},
		{rule(`"to":[{"namespaces":{},"networks":["0.0.0.0/0"]}]`), []string{"invalid-peer " + place + ".to[0]"}},
		{rule(`"to":[{"networks":[]}]`), []string{"invalid-peer " + place + ".to[0]"}},
		{rule(`"to":[{"networks":["x"]}]`), []string{"invalid-cidr " + place + ".to[0].networks[0]"}},
		{rule(`"to":[{"nodes":{}}]`), []string{"unsupported-peer " + place + ".to[0].nodes"}},
		{rule(`"to":[{"domainNames":["a.example"]}]`), []string{"unsupported-peer " + place + ".to[0].domainNames"}},
		{rule(`"to":[]`), []string{"no-peers " + place}},
		{rule(`"name":"x"`), []string{"no-peers " + place}},
		{rule(`"to":[{"namespaces":{"matchExpressions":[{"key":"a","operator":"in","values":["b"]}]}}]`),
			[]string{"invalid-selector " + place + ".to[0].namespaces.matchExpressions[0]"}},
		{rule(`"to":[{"pods":{"podSelector":7}}]`), []string{"malformed " + place + ".to[0].pods.podSelector"}},
		{rule(to + `,"protocols":[{}]`), []string{"invalid-protocol " + place + ".protocols[0]"}},
		{rule(to + `,"protocols":[{"tcp":{},"udp":{}}]`), []string{"invalid-protocol " + place + ".protocols[0]"}},
		{rule(to + `,"protocols":[{"icmp":{}}]`), []string{"unknown-field " + place + ".protocols[0]"}},
		{rule(to + `,"protocols":[{"tcp":{}}]`), []string{"invalid-port " + place + ".protocols[0].tcp.destinationPort"}},
		{rule(to + `,"protocols":[{"tcp":{"destinationPort":{"number":0}}}]`), []string{"invalid-port " + place + ".protocols[0].tcp.destinationPort.number"}},
		{rule(to + `,"protocols":[{"tcp":{"destinationPort":{"range":{"start":5,"end":4}}}}]`),
			[]string{"invalid-port " + place + ".protocols[0].tcp.destinationPort.range.end"}},
		{rule(to + `,"protocols":[{"destinationNamedPort":""}]`), []string{"invalid-port " + place + ".protocols[0].destinationNamedPort"}},
		{rule(to + `,"protocols":{}`), []string{"malformed " + place + ".protocols"}},
		{rule(to + `,"except":[]`), []string{"unknown-field " + place}},
	} {
		for _, action := range []string{"Accept", "Deny", "Pass"} {
			w := standard(t)
			w.clusterPolicy("below", `{"tier":"Admin","priority":2,"subject":{"namespaces":{}},"egress":[{"action":"Deny","to":[{"networks":["10.0.2.0/24"]}]}]}`)
			spec := strings.ReplaceAll(c.spec, "ACTION", action)
			expectProblems(t, spec, w.clusterPolicy("a", spec).Problems, c.want...)
			want := [2]string{"-a[0]", "-a[0]"}
			if action == "Accept" {
				want = [2]string{"-below[0]", "not-isolated"}
			}
			for i, packet := range []string{"red/web > red/far tcp 80", "red/web > red/db icmp"} {
				if v := Judge(w, thisNode, w.packet(packet))[Egress]; v.short() != want[i] {
					t.Errorf("%s: %s is %s, want %s", spec, packet, v.short(), want[i])
				}
			}
		}
	}
	for spec, want := range map[string][]string{
		`{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"ingress":[{"action":"Log","from":[{"namespaces":{}}]}]}`: {"invalid-action spec.ingress[0].action"},
		`{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"ingress":{}}`:                                            {"malformed spec.ingress"},
		`{"tier":"Top","priority":1,"subject":{"namespaces":{}}}`:                                                           {"invalid-tier spec.tier"},
		`{"tier":"Admin","priority":1001,"subject":{"namespaces":{}}}`:                                                      {"invalid-priority spec.priority"},
		`{"tier":"Admin","subject":{"namespaces":{}}}`:                                                                      {"invalid-priority spec.priority"},
		`{"tier":"Admin","priority":1,"subject":{}}`:                                                                        {"invalid-subject spec.subject"},
		`{"tier":"Admin","priority":1,"subject":{"namespaces":{},"pods":{}}}`:                                               {"invalid-subject spec.subject"},
		`{"tier":"Admin","priority":1,"subject":{"nodes":{}}}`:                                                              {"unknown-field spec.subject"},
		`{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"ingress":[{"action":"Deny","from":[{"networks":["0.0.0.0/0"]}]}]}`: {
			"invalid-peer spec.ingress[0].from[0]"},
	} {
		expectProblems(t, spec, standard(t).clusterPolicy("a", spec).Problems, want...)
	}
}

// TestDecodePolicy: a policy with all that the API has.
func TestDecodePolicy(t *testing.T) {
	p, err := DecodePolicy([]byte(`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"a","namespace":"red","labels":{"x":"y"}},
		"spec":{"podSelector":{"matchLabels":{"app":"db"},"matchExpressions":[{"key":"tier","operator":"NotIn","values":["b","a","b"]}]},
		"policyTypes":["Ingress","Egress"],
		"ingress":[{"from":[{"podSelector":{}},{"namespaceSelector":{"matchLabels":{"team":"blue"}}},{"ipBlock":{"cidr":"10.1.2.3/16","except":["10.1.4.0/24"]}}],
		"ports":[{"port":80,"endPort":90},{"protocol":"UDP","port":"dns"},{"protocol":"SCTP"}]}],"egress":[{}]}}`))
	blue := MakeSelector(Requirement{"team", In, []string{"blue"}})
	want := Policy{
		Namespace: "red", Name: "a", Isolates: [2]bool{true, true},
		Subject: Group{Namespace: "red", Pods: MakeSelector(Requirement{"tier", NotIn, []string{"a", "b"}}, Requirement{"app", In, []string{"db"}})},
		Rules: [2][]Match{Ingress: {{
			Peers: []Peer{{Group: Group{Namespace: "red"}}, {Group: Group{Namespaces: blue}},
				{Block: netip.MustParsePrefix("10.1.0.0/16"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.4.0/24")}}},
			Ports: []Port{{TCP, "", 80, 90}, {UDP, "dns", 0, 0}, {SCTP, "", 0, 65535}},
		}}, Egress: {{AnyPeer: true, AnyPort: true}}},
	}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("got %+v, %v\nwant %+v", p, err, want)
	}
	if s := p.Subject.String(); s != "pods(app=db,tier notin (a,b)) in red" {
		t.Errorf("subject %s", s)
	}
}

// TestDecodePod: addresses, ports of containers that run all the time, and what else policies need.
func TestDecodePod(t *testing.T) {
	p, list, err := DecodePod([]byte(`{"kind":"Pod","metadata":{"name":"web","namespace":"red","uid":"u1","labels":{"app":"web"},
		"creationTimestamp":"2026-11-29T10:00:00Z","deletionTimestamp":"2026-11-29T12:00:00Z"},
		"spec":{"nodeName":"n1","containers":[{"name":"c","ports":[{"name":"http","containerPort":80},{"containerPort":81}]},{"ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}]}],
		"initContainers":[{"restartPolicy":"Always","ports":[{"name":"side","containerPort":5,"protocol":"UDP"}]},{"ports":[{"name":"once","containerPort":6}]}]},
		"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"},{"ip":"10.0.0.2"}],"startTime":"2026-11-29T10:00:05Z"}}`))
	want := Pod{
		UID: "u1", Namespace: "red", Name: "web", Node: "n1", Labels: labels("app=web"), Since: 1795946405, Deleting: true,
		Addresses: [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Ports:     MakePorts([]NamedPort{{"side", UDP, 5}, {"http", TCP, 8080}, {"http", TCP, 80}, {"http", TCP, 80}}),
	}
	if err != nil || len(list) > 0 || p != want {
		t.Errorf("got %+v, %v, %v\nwant %+v", p, list, err, want)
	}
	if have := slices.Collect(p.Ports.All()); len(have) != 3 {
		t.Errorf("ports %v", have)
	}
	for phase, ended := range map[string]bool{"Pending": false, "Running": false, "Unknown": false, "Succeeded": true, "Failed": true} {
		p, _, err := DecodePod(fmt.Appendf(nil, `{"metadata":{"name":"a","namespace":"b"},"spec":{"hostNetwork":true},"status":{"phase":%q,"podIP":"10.0.0.9"}}`, phase))
		if err != nil || p.Ended != ended || !p.HostNetwork || p.Counts() || p.UID != "b/a" || p.Addresses[0] != netip.MustParseAddr("10.0.0.9") {
			t.Errorf("%s: %+v, %v", phase, p, err)
		}
	}
	_, list, err = DecodePod([]byte(`{"metadata":{"name":"a","namespace":"b"},"spec":{"containers":[{"ports":[{"name":"x","containerPort":0},{"name":"y","containerPort":1,"protocol":"ICMP"}]}]},
		"status":{"podIPs":[{"ip":"x"},{"ip":"::ffff:10.0.0.1"}],"startTime":"now"}}`))
	if err != nil {
		t.Error(err)
	}
	expectProblems(t, "pod", list, "invalid-address status.podIPs[0]", "invalid-address status.podIPs[1]", "invalid-pod-port spec.containers[0].ports[0]",
		"invalid-protocol spec.containers[0].ports[1].protocol", "invalid-timestamp status.startTime")
	n, err := DecodeNamespace([]byte(`{"metadata":{"name":"a","labels":{"x":"y"}}}`))
	if err != nil || n != (Namespace{"a", labels("x=y")}) {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestSelectorText: equal selectors have one text, and different ones have different texts.
func TestSelectorText(t *testing.T) {
	in := func(key string, values ...string) Requirement { return Requirement{key, In, values} }
	a := MakeSelector(in("b", "2", "1"), Requirement{Key: "a", Operator: Exists}, in("b", "1", "2"))
	if b := MakeSelector(Requirement{Key: "a", Operator: Exists}, in("b", "1", "2", "1")); !reflect.DeepEqual(a, b) {
		t.Errorf("%+v, %+v", a, b)
	}
	seen := map[string]bool{}
	for _, s := range []Selector{
		{}, a, MakeSelector(in("a", "")), MakeSelector(in("a", "b,c")), MakeSelector(in("a", "b", "c")), MakeSelector(in("a", "b"), in("c", "d")),
		MakeSelector(in("a", "b,c=d")), MakeSelector(Requirement{Key: "a=b", Operator: Exists}), MakeSelector(in("a", "b")),
		MakeSelector(Requirement{Key: "!a", Operator: Exists}), MakeSelector(Requirement{Key: "a", Operator: DoesNotExist}), MakeSelector(in("a", `"b"`)),
	} {
		if seen[s.String()] {
			t.Errorf("two selectors are %s", s)
		}
		seen[s.String()] = true
	}
}

// TestLabels: labels are stored once, and read back as they were.
func TestLabels(t *testing.T) {
	long := strings.Repeat("v", 300)
	a, b := MakeLabels(map[string]string{"x": "y", "": "", "z": long}), MakeLabels(map[string]string{"z": long, "": "", "x": "y"})
	if a != b || a == MakeLabels(map[string]string{"x": "y"}) || MakeLabels(nil) != (Labels{}) {
		t.Error("labels do not compare as they should")
	}
	for key, want := range map[string]string{"x": "y", "": "", "z": long} {
		if v, ok := a.Get(key); !ok || v != want {
			t.Errorf("%q is %q", key, v)
		}
	}
	if _, ok := a.Get("y"); ok {
		t.Error("y is found")
	}
}

// FuzzDecode: nothing makes the decoders panic. A policy of which a part is not understood allows no more than that part
// left out, so with a problem at its spec it allows nothing; the decoders are deterministic.
func FuzzDecode(f *testing.F) {
	for _, s := range scenarios() {
		for _, spec := range s.policies {
			f.Add([]byte(`{"metadata":{"name":"a","namespace":"red"},"spec":` + spec + `}`))
		}
	}
	f.Add([]byte(`{"metadata":{"name":"a","namespace":"b"},"spec":{"containers":[{"ports":[{"name":"x","containerPort":1}]}]},"status":{"podIPs":[{"ip":"fd00::1"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := DecodePolicy(data)
		again, _ := DecodePolicy(data)
		if !reflect.DeepEqual(p, again) {
			t.Errorf("%s: %+v, then %+v", data, p, again)
		}
		if err == nil {
			if p.Name == "" || p.Isolates == [2]bool{} {
				t.Errorf("%s: %+v", data, p)
			}
			for _, problem := range p.Problems {
				if problem.Place != "spec" && !strings.HasPrefix(problem.Place, "spec.podSelector") && !strings.HasPrefix(problem.Place, "spec.policyTypes") {
					continue
				}
				for _, m := range append(p.Rules[Ingress], p.Rules[Egress]...) {
					if m.AnyPeer || m.AnyPort || len(m.Peers)+len(m.Ports) > 0 {
						t.Errorf("%s: %v, but a rule matches: %+v", data, problem, m)
					}
				}
			}
		}
		c, err := DecodeClusterPolicy(data)
		if again, _ := DecodeClusterPolicy(data); !reflect.DeepEqual(c, again) {
			t.Errorf("%s: %+v, then %+v", data, c, again)
		}
		for _, rules := range c.Rules {
			for _, r := range rules {
				if err == nil && r.Action != Accept && !r.AnyPeer && len(r.Peers) == 0 {
					t.Errorf("%s: a rule that denies or passes matches nothing: %+v", data, r)
				}
			}
		}
		_, _, _ = DecodePod(data)
		_, _ = DecodeNamespace(data)
	})
}
