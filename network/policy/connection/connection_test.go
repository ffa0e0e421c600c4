package connection_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/connection"
	"github.com/selvage-net/selvage/network/policy/manifest"
)

// cluster has pods in two namespaces, of which one has policies.
const cluster = `
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: red, labels: {app: web}},
 spec: {nodeName: n1, containers: [{ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: red, labels: {app: db}}, spec: {nodeName: n1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: blue, labels: {app: web}}, spec: {nodeName: n2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: only4, namespace: blue}, status: {podIP: 10.0.9.4}}
---
{apiVersion: v1, kind: Pod, metadata: {name: only6, namespace: blue}, status: {podIP: "fd00:9::6"}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ended, namespace: blue}, status: {phase: Succeeded, podIP: 10.0.9.4}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: blue}, spec: {nodeName: n1, hostNetwork: true}, status: {podIP: 192.0.2.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: new-agent, namespace: blue}, spec: {nodeName: n1, hostNetwork: true}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: red}, spec: {podSelector: {matchLabels: {app: web}},
 ingress: [{from: [{podSelector: {}}], ports: [{port: http}, {port: 9000, endPort: 9009}, {port: 9005, endPort: 9020}, {protocol: SCTP}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: red}, spec: {podSelector: {matchLabels: {app: db}},
 policyTypes: [Ingress, Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: "::/0"}}]}]}}
---
{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: no-9002}, spec: {tier: Admin, priority: 1,
 subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 9002}}}]}]}}
`

func world(t *testing.T) connection.World {
	t.Helper()
	c := manifest.New(manifest.Options{})
	all, err := manifest.Split("cluster.yaml", []byte(cluster))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if err := c.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Complete(netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")); err != nil {
		t.Fatal(err)
	}
	return connection.World{Source: c, Pods: c.AllPods, Policies: c.AllPolicies}
}

func TestEnds(t *testing.T) {
	w := world(t)
	for _, tt := range []struct{ texts, want string }{
		{"red/web", "red/web"}, {"only4", "blue/only4"}, {"192.0.2.1", "192.0.2.1"}, {"::ffff:192.0.2.1", "192.0.2.1"}, {"fd00::7", "fd00::7"},
		{"red/*", "red/db red/web"}, {"*/web", "blue/web red/web"}, {"*/* !blue/*", "red/db red/web"}, {"blue/agent", "blue/agent"},
		{"blue/*", "blue/only4 blue/only6 blue/web"}, {"red/web red/* 10.0.0.1", "red/web red/db 10.0.0.1"},
	} {
		ends, err := w.Ends(strings.Fields(tt.texts))
		var got []string
		for _, e := range ends {
			got = append(got, e.String())
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, %v, want %s", tt.texts, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ texts, want string }{
		{"web", "2 pods have this name"}, {"red/wbe", "did you mean red/web or red/db?"}, {"blue/x*", "no pod matches"}, {"*", "a pattern of namespace/pod"},
		{"[/*", "a pattern of namespace/pod"}, {"fe80::1%eth0", "without a zone"}, {"red/web !red/*", "names nothing"}, {"blue/ended", "has ended"},
		{"blue/new-agent", "uses the network of its node"}, {"!red/web", "names nothing"},
	} {
		if _, err := w.Ends(strings.Fields(tt.texts)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.texts, err, tt.want)
		}
	}
}

func TestParsePort(t *testing.T) {
	for text, want := range map[string]string{
		"": "any", "80": "80/TCP", "80/tcp": "80/TCP", "53/UDP": "53/UDP", "8000-8999": "8000-8999/TCP", "http": "http", "dns/UDP": "dns/UDP",
		"ICMP": "ICMP", "tcp": "TCP", "SCTP": "SCTP", "1-65535/UDP": "1-65535/UDP", "a-1": "a-1", "3com": "3com",
	} {
		if p, err := connection.ParsePort(text); err != nil || p.String() != want {
			t.Errorf("%q: %s, %v, want %s", text, p, err, want)
		}
	}
	for _, text := range []string{"0", "65536", "80-70", "80/GRE", "/TCP", "80/", "1-", "-1-2"} {
		if p, err := connection.ParsePort(text); !errors.Is(err, connection.ErrPort) && p.Name == "" {
			t.Errorf("%q: %v, %v, want ErrPort", text, p, err)
		}
	}
}

func TestSplitDestination(t *testing.T) {
	for text, want := range map[string][2]string{
		"red/web": {"red/web", ""}, "red/web:80/TCP": {"red/web", "80/TCP"}, "10.0.0.1:53/UDP": {"10.0.0.1", "53/UDP"},
		"fd00::1": {"fd00::1", ""}, "[fd00::1]:80": {"fd00::1", "80"}, "[fd00::1]": {"fd00::1", ""}, "red/web:http": {"red/web", "http"},
	} {
		if to, port := connection.SplitDestination(text); to != want[0] || port != want[1] {
			t.Errorf("%s: %q, %q, want %q", text, to, port, want)
		}
	}
}

// ask returns an answer in short: for each family the ranges that are allowed.
func ask(t *testing.T, w connection.World, from, destination string) (string, error) {
	t.Helper()
	to, portText := connection.SplitDestination(destination)
	port, err := connection.ParsePort(portText)
	if err != nil {
		t.Fatal(err)
	}
	source, err := w.End(from)
	if err != nil {
		t.Fatal(err)
	}
	end, err := w.End(to)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := w.Ask(source, end, port)
	var families []string
	for _, a := range answers {
		var allowed []string
		for _, r := range a.Ranges {
			if r.Allowed() {
				allowed = append(allowed, fmt.Sprintf("%s:%d-%d", r.Protocol, r.First, r.Last))
			}
		}
		families = append(families, strings.Join(allowed, " "))
	}
	return strings.Join(families, " | "), err
}

func TestAsk(t *testing.T) {
	w := world(t)
	for _, tt := range []struct{ from, to, want string }{
		{"blue/web", "blue/only4", "TCP:0-9001 TCP:9003-65535 UDP:0-65535 SCTP:0-65535 0:0-0"},
		{"red/db", "red/web", "TCP:8080-8080 TCP:9000-9001 TCP:9003-9020 SCTP:0-65535 | TCP:8080-8080 TCP:9000-9001 TCP:9003-9020 SCTP:0-65535"},
		{"red/db", "red/web:http", "TCP:8080-8080 | TCP:8080-8080"},
		{"red/db", "red/web:8079-8081", "TCP:8080-8080 | TCP:8080-8080"},
		{"red/db", "red/web:dns", " | "},
		{"red/db", "red/web:ICMP", " | "},
		{"blue/only6", "red/web", ""},
		{"red/web", "blue/only6:ICMP", "1:0-0"},
		{"red/db", "192.0.2.9", ""},
		{"red/db", "2001:db8::9:80", "TCP:0-65535 UDP:0-65535 SCTP:0-65535 0:0-0"},
		{"blue/agent", "red/web:UDP", "UDP:0-65535"}, // from the node of the pod
		{"192.0.2.1", "red/web:UDP", ""},             // the same address, which could be another node's
	} {
		if got, err := ask(t, w, tt.from, tt.to); err != nil || got != tt.want {
			t.Errorf("%s -> %s: %q, %v, want %q", tt.from, tt.to, got, err, tt.want)
		}
	}
	for _, tt := range [][2]string{{"blue/only4", "blue/only6"}, {"blue/web", "red/db:http"}, {"blue/web", "10.0.0.1:http"}} {
		if got, err := ask(t, w, tt[0], tt[1]); err == nil {
			t.Errorf("%s: %q, want an error", tt, got)
		}
	}
}

// TestRangesAreExact compares the ranges with the verdict on each single port.
func TestRangesAreExact(t *testing.T) {
	w := world(t)
	pods, err := w.Ends([]string{"red/*", "blue/web"})
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range pods {
		for _, to := range pods {
			answers, err := w.Ask(from, to, connection.Port{})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range answers {
				checkRanges(t, w, a)
			}
		}
	}
}

func checkRanges(t *testing.T, w connection.World, a connection.Answer) {
	t.Helper()
	next := map[policy.Protocol]int{}
	for _, r := range a.Ranges {
		if int(r.First) != next[r.Protocol] || r.Last < r.First {
			t.Fatalf("%s -> %s: range %s %d-%d begins elsewhere than at %d", a.Source, a.Destination, r.Protocol, r.First, r.Last, next[r.Protocol])
		}
		next[r.Protocol] = int(r.Last) + 1
		for port := int(r.First); port <= int(r.Last); port++ {
			if port > 100 && port < 8050 || port > 9050 && port < 65500 {
				continue // no rule is about ports in between
			}
			p := r.Packet
			p.Port = uint16(port)
			if got := policy.Judge(w, "", p); got[0].Allowed != r.Verdicts[0].Allowed || got[1].Allowed != r.Verdicts[1].Allowed {
				t.Fatalf("%s -> %s, %d/%s: %v, and %v in the range %d-%d", a.Source, a.Destination, port, r.Protocol, got, r.Verdicts, r.First, r.Last)
			}
		}
	}
	for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		if next[p] != 0x10000 {
			t.Errorf("%s -> %s: the ranges of %s end at %d", a.Source, a.Destination, p, next[p])
		}
	}
}

// parse reads a test with one connection.
func parse(t *testing.T, expectation string) (connection.Test, error) {
	t.Helper()
	return connection.ParseTest("test.yaml:1", []byte(`{"apiVersion":"selvage.io/v1","kind":"PolicyTest","connections":[`+expectation+`]}`))
}

func TestRun(t *testing.T) {
	w := world(t)
	for _, tt := range []struct {
		expectation string
		checked     int
		differences string
	}{
		{`{"from":"red/db","to":"red/web","ports":[8080,"http","9010-9020"],"expect":"allow","by":["red/web","red/db"]}`, 6, ""},
		{`{"from":"red/db","to":"red/web","ports":"9000-9020","expect":"allow"}`, 2, "red/db>red/web 9002-9002; red/db>red/web 9002-9002"},
		{`{"from":"red/db","to":"red/web","ports":9002,"expect":"deny","by":"no-9002"}`, 2, ""},
		{`{"from":"red/db","to":"red/web","ports":80,"expect":"deny","by":"no-9002"}`, 2, "red/db>red/web 80-80 not by no-9002; red/db>red/web 80-80 not by no-9002"},
		{`{"from":["*/*","!red/*"],"to":"red/web","expect":"deny"}`, 4, ""},
		{`{"from":"red/*","to":"red/*","ports":"SCTP","expect":"allow"}`, 4, "red/web>red/db 0-65535; red/web>red/db 0-65535"},
		{`{"from":"red/web","to":"red/web","ports":"ICMP","expect":"allow"}`, 2, ""},
		{`{"from":"red/db","to":"192.0.2.9","expect":"deny","by":"red/db"}`, 1, ""},
	} {
		test, err := parse(t, tt.expectation)
		if err != nil {
			t.Fatalf("%s: %v", tt.expectation, err)
		}
		results, err := w.Run(test)
		if err != nil {
			t.Fatalf("%s: %v", tt.expectation, err)
		}
		var got []string
		for _, d := range results[0].Differences {
			text := fmt.Sprintf("%s>%s", d.From, d.To)
			for _, r := range d.Answer.Ranges {
				text += fmt.Sprintf(" %d-%d", r.First, r.Last)
			}
			if len(d.Missing) > 0 {
				text += " not by " + strings.Join(d.Missing, ",")
			}
			got = append(got, text)
		}
		if results[0].Checked != tt.checked || strings.Join(got, "; ") != tt.differences {
			t.Errorf("%s: %d checked, differences %q; want %d, %q", tt.expectation, results[0].Checked, got, tt.checked, tt.differences)
		}
	}
	for _, expectation := range []string{
		`{"from":"red/none","to":"red/web","expect":"deny"}`, `{"from":"red/web","to":"red/w*x","expect":"deny"}`,
		`{"from":"red/web","to":"red/db","ports":"http","expect":"deny"}`, `{"from":["red/web","red/we?"],"to":["red/web","red/web"],"expect":"deny","ports":"nothing"}`,
	} {
		test, err := parse(t, expectation)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Run(test); err == nil || !strings.HasPrefix(err.Error(), "test.yaml:1: connections[0]: ") {
			t.Errorf("%s: error %v, want one that names the connection", expectation, err)
		}
	}
}

func TestParseTest(t *testing.T) {
	for _, expectation := range []string{
		"", "{}", `{"from":"a/b","to":"a/b"}`, `{"from":"a/b","to":"a/b","expect":"Deny"}`, `{"from":"a/b","expect":"deny"}`, `{"to":"a/b","expect":"deny"}`,
		`{"from":"a/b","to":"a/b","expect":"deny","port":80}`, `{"from":{"a":1},"to":"a/b","expect":"deny"}`, `{"from":"a/b","to":[["a/b"]],"expect":"deny"}`,
		`{"from":"a/b","to":"a/b","expect":"deny","ports":["80/GRE"]}`, `{"from":"a/b","to":"a/b","expect":"deny","ports":""}`,
		`{"from":null,"to":"a/b","expect":"deny"}`,
	} {
		if test, err := parse(t, expectation); !errors.Is(err, connection.ErrTest) {
			t.Errorf("%s: %v, %v, want ErrTest", expectation, test, err)
		}
	}
	for _, document := range []string{`{"apiVersion":"selvage.io/v2","kind":"PolicyTest"}`, `[]`, `{"apiVersion":"selvage.io/v1","kind":"PolicyTest","connection":[]}`} {
		if test, err := connection.ParseTest("a:1", json.RawMessage(document)); !errors.Is(err, connection.ErrTest) {
			t.Errorf("%s: %v, %v, want ErrTest", document, test, err)
		}
	}
	test, err := parse(t, `{"name":"n","from":"a/b","to":["c/d","10.0.0.1"],"ports":[80,"53/UDP"],"expect":"allow","by":["e/f"]}`)
	want := "a/b -> c/d,10.0.0.1 80/TCP,53/UDP: allow by e/f"
	if err != nil || !slices.Equal(test.Connections[0].To, []string{"c/d", "10.0.0.1"}) || test.Connections[0].String() != want {
		t.Errorf("%v, %v, want %s", test, err, want)
	}
}
