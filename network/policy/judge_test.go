package policy

import (
	"slices"
	"testing"
)

// scenario is one line of what policies mean, on the standard cluster.
type scenario struct {
	name     string
	policies map[string]string // spec by key: "namespace/name", or the name of a cluster policy
	change   func(*world)
	packets  [][2]string // packet, and what expect wants
}

// scenarios has one for each point of the API's text in which implementations went wrong.
func scenarios() []scenario {
	type m = map[string]string
	type p = [][2]string
	const all = `"podSelector":{}`
	return []scenario{
		{"nothing is isolated", nil, nil, p{
			{"red/web > red/db tcp 80", "not-isolated not-isolated"},
			{"blue/web > red/db tcp 80", "other-node not-isolated"},
			{"192.0.2.1 > red/db tcp 80", "no-pod not-isolated"},
		}},
		{"directions are isolated separately", m{"red/a": `{"podSelector":{"matchLabels":{"app":"db"}},"policyTypes":["Ingress"]}`}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated -isolated"},
			{"red/db > red/web tcp 80", "not-isolated not-isolated"},
			{"blue/near > red/db icmp", "not-isolated -isolated"},
		}},
		{"policies add up", m{
			"red/a": `{` + all + `,"policyTypes":["Ingress"]}`,
			"red/b": `{"podSelector":{"matchLabels":{"app":"db"}},"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":1}]},{"ports":[{"port":80}]}]}`,
		}, nil, p{
			{"blue/near > red/db tcp 80", "not-isolated +red/b[1]"},
			{"blue/near > red/db tcp 81", "not-isolated -isolated"},
			{"blue/near > red/web tcp 80", "not-isolated -isolated"},
		}},
		{"policyTypes are read, not derived", m{"red/a": `{` + all + `,"policyTypes":["Egress"],"ingress":[{}]}`}, nil, p{
			{"red/web > red/db tcp 80", "-isolated not-isolated"},
		}},
		{"policyTypes of a policy from a file have the defaults of the API server", m{
			"red/a":  `{` + all + `,"egress":[]}`,
			"blue/a": `{` + all + `,"egress":[{}]}`,
		}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated -isolated"},
			{"blue/near > blue/near tcp 80", "itself itself"},
			{"blue/near > 192.0.2.1 tcp 80", "+blue/a[0] no-pod"},
			{"192.0.2.1 > blue/near tcp 80", "no-pod -isolated"},
		}},
		{"an empty rule allows everything, also without ports", m{"red/a": `{` + all + `,"policyTypes":["Ingress","Egress"],"ingress":[{}],"egress":[]}`}, nil, p{
			{"192.0.2.1 > red/db tcp 80", "no-pod +red/a[0]"},
			{"192.0.2.1 > red/db icmp", "no-pod +red/a[0]"},
			{"red/db > 192.0.2.1 icmp", "-isolated no-pod"},
		}},
		{"empty lists in a rule are missing ones", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[],"ports":[]}]}`}, nil, p{
			{"192.0.2.1 > red/db sctp 9", "no-pod +red/a[0]"},
		}},
		{"a missing podSelector selects all pods of the namespace", m{"red/a": `{"policyTypes":["Ingress"]}`}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated -isolated"},
			{"red/web > blue/near tcp 80", "not-isolated not-isolated"},
		}},
		{"selectors of one peer are AND, peers are OR", m{
			"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"team":"blue"}},"podSelector":{"matchLabels":{"app":"web"}}}]}]}`,
			"blue/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"team":"blue"}}},{"podSelector":{"matchLabels":{"app":"db"}}}]},
				{"from":[{"namespaceSelector":{"matchLabels":{"team":"red"}},"podSelector":{"matchLabels":{"app":"db"}}}]}]}`,
		}, nil, p{
			{"blue/web > red/db tcp 80", "other-node +red/a[0]"},
			{"blue/near > red/db tcp 80", "not-isolated -isolated"},
			{"red/web > red/db tcp 80", "not-isolated -isolated"},
			{"blue/web > blue/near tcp 80", "other-node +blue/a[0]"},
			{"red/db > blue/near tcp 80", "not-isolated +blue/a[1]"},
			{"red/web > blue/near tcp 80", "not-isolated -isolated"},
		}},
		{"an empty namespaceSelector is every namespace", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{}}]}]}`}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated +red/a[0]"},
			{"blue/web > red/db tcp 80", "other-node +red/a[0]"},
			{"192.0.2.1 > red/db tcp 80", "no-pod -isolated"},
		}},
		{"matchExpressions", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[
			{"ports":[{"port":1}],"from":[{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["web","db"]}]}}]},
			{"ports":[{"port":2}],"from":[{"podSelector":{"matchExpressions":[{"key":"new","operator":"NotIn","values":["yes"]}]}}]},
			{"ports":[{"port":3}],"from":[{"podSelector":{"matchExpressions":[{"key":"new","operator":"Exists"}]}}]},
			{"ports":[{"port":4}],"from":[{"podSelector":{"matchExpressions":[{"key":"new","operator":"DoesNotExist"}]}}]},
			{"ports":[{"port":5}],"from":[{"podSelector":{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"new","operator":"Exists"}]}}]}]}`}, nil, p{
			{"red/web > red/db tcp 1", "not-isolated +red/a[0]"},
			{"red/far > red/db tcp 1", "other-node -isolated"},
			{"red/web > red/db tcp 2", "not-isolated +red/a[1]"},
			{"red/web2 > red/db tcp 2", "not-isolated -isolated"},
			{"red/web2 > red/db tcp 3", "not-isolated +red/a[2]"},
			{"red/web > red/db tcp 3", "not-isolated -isolated"},
			{"red/web > red/db tcp 4", "not-isolated +red/a[3]"},
			{"red/web2 > red/db tcp 4", "not-isolated -isolated"},
			{"red/web2 > red/db tcp 5", "not-isolated +red/a[4]"},
			{"red/web > red/db tcp 5", "not-isolated -isolated"},
		}},
		{"labels of namespaces change", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"team":"blue"}}}]}]}`},
			func(w *world) { w.namespace("blue", "team=green"); w.namespace("red", "team=blue") }, p{
				{"blue/web > red/db tcp 80", "other-node -isolated"},
				{"red/web > red/db tcp 80", "not-isolated +red/a[0]"},
			}},
		{"what is not understood does not allow", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{}]},{"ports":[{"protocol":"ICMP"}]},
			{"from":[{"podSelector":{"matchExpressions":[{"key":"app","operator":"Gt","values":["1"]}]}}]},{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/33"]}}]},
			{"ports":[{"port":80},{"port":"a","endPort":9}]}]}`}, nil, p{
			{"red/web > red/db tcp 1", "not-isolated -isolated"},
			{"red/web > red/db tcp 80", "not-isolated +red/a[4]"},
		}},
		{"a subject that is not understood isolates what it may select", m{"red/a": `{"podSelector":{"matchLabels":{"app":"db"},"matchExpressions":[{"key":"x","operator":"Gt","values":["1"]}]},
			"policyTypes":["Ingress"],"ingress":[{}]}`}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated -isolated"},
			{"red/db > red/web tcp 80", "not-isolated not-isolated"},
		}},
		{"a pod with the node's address is neither selected nor a peer", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{}}]}]}`},
			func(w *world) {
				w.pod("red/host", "n1", "app=web", "172.31.0.1").HostNetwork = true
				w.pod("red/host2", "n2", "app=web", "172.31.0.2").HostNetwork = true
			}, p{
				{"red/host2 > red/db tcp 80", "no-pod -isolated"},
				{"red/db > red/host tcp 80", "not-isolated no-pod"},
			}},
		{"traffic between a node and its pods is allowed", m{"red/a": `{` + all + `,"policyTypes":["Ingress","Egress"]}`}, nil, p{
			{"10.0.1.254 > red/db tcp 80 from-node", "node node"},
			{"red/db > 10.0.1.254 tcp 80 to-node", "node node"},
			{"10.0.1.254 > red/db tcp 80", "no-pod -isolated"},
		}},
		{"another node is not the node", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"ipBlock":{"cidr":"172.31.0.0/16"}}]}]}`}, nil, p{
			{"10.0.2.0 > red/db tcp 80", "no-pod -isolated"},
			{"172.31.0.2 > red/db tcp 80", "no-pod +red/a[0]"},
		}},
		{"ipBlock is about addresses, except about its own block", m{"red/a": `{` + all + `,"policyTypes":["Ingress","Egress"],
			"ingress":[{"from":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.2.0/24"]}},{"ipBlock":{"cidr":"10.0.2.3/32"}}]}],
			"egress":[{"to":[{"ipBlock":{"cidr":"10.0.2.77/24"}}]}]}`}, nil, p{
			{"blue/near > red/db tcp 80", "not-isolated +red/a[0]"},
			{"blue/near@6 > red/db@6 tcp 80", "not-isolated -isolated"},
			{"blue/web > red/db tcp 80", "other-node -isolated"},
			{"red/far > red/db tcp 80", "other-node +red/a[0]"},
			{"red/db > blue/web tcp 80", "+red/a[0] other-node"},
		}},
		{"all addresses of a pod count", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"web"}}}]}]}`}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated +red/a[0]"},
			{"red/web@6 > red/db@6 tcp 80", "not-isolated +red/a[0]"},
			{"red/far@6 > red/db@6 tcp 80", "other-node -isolated"},
		}},
		{"the address of a pod that has ended belongs to the next", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"web"}}}]}]}`},
			func(w *world) {
				w.pod("red/job", "n2", "app=web", "10.0.2.3").Ended = true
				w.pod("red/old", "n1", "app=web", "10.0.1.9").Deleting = true
				w.pod("red/drain", "n2", "app=web", "10.0.2.50").Deleting = true
			}, p{
				{"red/far > red/db tcp 80", "other-node -isolated"},
				{"blue/near > red/db tcp 80", "not-isolated -isolated"},
				{"red/drain > red/db tcp 80", "other-node +red/a[0]"},
			}},
		{"protocols", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":80},{"protocol":"UDP"},{"protocol":"SCTP","port":7}]}]}`}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated +red/a[0]"},
			{"red/web > red/db sctp 80", "not-isolated -isolated"},
			{"red/web > red/db sctp 7", "not-isolated +red/a[0]"},
			{"red/web > red/db tcp 7", "not-isolated -isolated"},
			{"red/web > red/db udp 5", "not-isolated +red/a[0]"},
			{"red/web > red/db icmp", "not-isolated -isolated"},
		}},
		{"a named port is the destination pod's", m{
			"red/a":  `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":"http"}]}]}`,
			"blue/a": `{` + all + `,"policyTypes":["Egress"],"egress":[{"ports":[{"port":"http"}],"to":[{"namespaceSelector":{"matchLabels":{"team":"red"}}}]},{"ports":[{"port":"dns","protocol":"UDP"}]}]}`,
		}, nil, p{
			{"192.0.2.1 > red/web tcp 8080", "no-pod +red/a[0]"},
			{"192.0.2.1 > red/web tcp 8081", "no-pod -isolated"},
			{"192.0.2.1 > red/web2 tcp 8081", "no-pod +red/a[0]"},
			{"192.0.2.1 > red/web udp 8080", "no-pod -isolated"},
			{"192.0.2.1 > red/db tcp 8080", "no-pod -isolated"},
			{"blue/near > red/far tcp 9090", "+blue/a[0] other-node"},
			{"blue/near > red/far tcp 8080", "-isolated other-node"},
			{"blue/near > blue/web tcp 8080", "-isolated other-node"},
			{"blue/near > blue/web udp 53", "+blue/a[1] other-node"},
			{"blue/near > red/db udp 53", "-isolated -isolated"},
			{"blue/near > 192.0.2.1 udp 53", "-isolated no-pod"},
		}},
		{"a named port with ipBlock", m{"blue/a": `{` + all + `,"policyTypes":["Egress"],"egress":[{"ports":[{"port":"http"}],"to":[{"ipBlock":{"cidr":"10.0.2.0/24","except":["10.0.2.1/32"]}}]}]}`}, nil, p{
			{"blue/near > red/far tcp 9090", "+blue/a[0] other-node"},
			{"blue/near > blue/web tcp 8080", "-isolated other-node"},
			{"blue/near > 10.0.2.99 tcp 8080", "-isolated no-pod"},
		}},
		{"endPort", m{"red/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":80,"endPort":82},{"port":84}]}]}`}, nil, p{
			{"red/web > red/db tcp 79", "not-isolated -isolated"},
			{"red/web > red/db tcp 80", "not-isolated +red/a[0]"},
			{"red/web > red/db tcp 82", "not-isolated +red/a[0]"},
			{"red/web > red/db tcp 83", "not-isolated -isolated"},
			{"red/web > red/db tcp 84", "not-isolated +red/a[0]"},
		}},
		{"known connections pass, and invalid packets of isolated pods do not", m{"red/a": `{"podSelector":{"matchLabels":{"app":"db"}},"policyTypes":["Ingress","Egress"],"ingress":[{}]}`}, nil, p{
			{"red/db > red/web tcp 80", "-isolated not-isolated"},
			{"red/db > red/web tcp 80 established", "established established"},
			{"red/web > red/db tcp 80 invalid", "not-isolated -invalid-state"},
			{"blue/near > red/web tcp 80 invalid", "not-isolated not-isolated"},
		}},
		{"a connection needs both ends", m{
			"red/a":  `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{}}]}]}`,
			"blue/a": `{` + all + `,"policyTypes":["Egress"],"egress":[{"ports":[{"port":80}]}]}`,
		}, nil, p{
			{"blue/near > red/db tcp 80", "+blue/a[0] +red/a[0]"},
			{"blue/near > red/db tcp 81", "-isolated +red/a[0]"},
		}},
		{"neighbour discovery passes, echo is judged", m{"red/a": `{` + all + `,"policyTypes":["Ingress","Egress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"web"}}}]}]}`}, nil, p{
			{"red/web2@6 > red/db@6 icmpv6 135", "neighbour neighbour"},
			{"blue/near@6 > red/db@6 icmpv6 136", "neighbour neighbour"},
			{"blue/near@6 > red/db@6 icmpv6 143", "neighbour neighbour"},
			{"blue/near@6 > red/db@6 icmpv6 128", "not-isolated -isolated"},
			{"fe80::1 > ff02::1 icmpv6 128", "no-pod no-pod"},
			{"red/web@6 > red/db@6 icmpv6 128", "-isolated +red/a[0]"},
			{"0.0.0.0 > 255.255.255.255 udp 67", "no-pod no-pod"},
		}},
		{"a pod reaches itself through a Service", m{"red/a": `{` + all + `,"policyTypes":["Ingress","Egress"]}`}, nil, p{
			{"red/db > red/db tcp 80", "itself itself"},
			{"red/db@6 > red/db@6 udp 80", "itself itself"},
			{"red/db > red/web tcp 80", "-isolated -isolated"},
		}},
		{"a namespace that is not known is not selected", m{
			"red/a":   `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"x","operator":"DoesNotExist"}]}}]}]}`,
			"green/a": `{` + all + `,"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{}}]}]}`,
		}, func(w *world) { w.pod("green/x", "n1", "", "10.0.1.30"); w.pod("green/y", "n1", "", "10.0.1.31") }, p{
			{"green/x > red/db tcp 80", "not-isolated -isolated"},
			{"green/x > green/y tcp 80", "not-isolated +green/a[0]"},
			{"blue/near > green/y tcp 80", "not-isolated -isolated"},
		}},
		{"tiers of cluster policies", m{
			"red/a":  `{"podSelector":{"matchLabels":{"app":"db"}},"policyTypes":["Ingress"],"ingress":[{"ports":[{"port":80},{"port":82}]}]}`,
			"admin":  `{"tier":"Admin","priority":5,"subject":{"namespaces":{}},"ingress":[{"action":"Pass","from":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"number":80}}}]},{"action":"Deny","from":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"range":{"start":80,"end":85}}}}]}]}`,
			"first":  `{"tier":"Admin","priority":4,"subject":{"namespaces":{}},"ingress":[{"action":"Accept","from":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"number":81}}}]}]}`,
			"second": `{"tier":"Admin","priority":6,"subject":{"namespaces":{}},"ingress":[{"action":"Accept","from":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"range":{"start":80,"end":90}}}}]}]}`,
			"base":   `{"tier":"Baseline","priority":0,"subject":{"namespaces":{}},"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}],"egress":[{"name":"x","action":"Accept","to":[{"networks":["10.0.1.3/32"]}]},{"action":"Deny","to":[{"networks":["0.0.0.0/0","::/0"]}]}]}`,
		}, nil, p{
			{"red/web > red/db tcp 80", "+base[0] +red/a[0]"},
			{"red/web > red/db tcp 81", "+base[0] +first[0]"},
			{"red/web > red/db tcp 82", "+base[0] -admin[1]"},
			{"red/web > red/db tcp 86", "+base[0] +second[0]"},
			{"red/web > red/db tcp 99", "+base[0] -isolated"},
			{"red/web > red/web2 tcp 80", "-base[1] -base[0]"},
			{"red/db > red/web tcp 90", "-base[1] +second[0]"},
			{"192.0.2.1 > red/web tcp 99", "no-pod not-isolated"},
			{"red/web@6 > red/web2@6 icmpv6 128", "-base[1] -base[0]"},
		}},
		{"a cluster policy judges a pod to itself through a Service", m{
			"base": `{"tier":"Baseline","priority":0,"subject":{"pods":{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"db"}}}},"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]}`,
		}, nil, p{
			{"red/db > red/db tcp 80", "not-isolated -base[0]"},
			{"red/web > red/web tcp 80", "not-isolated not-isolated"},
		}},
		{"a cluster policy's rule that is not understood is closed", m{
			"accept": `{"tier":"Admin","priority":1,"subject":{"namespaces":{"matchLabels":{"team":"blue"}}},"ingress":[{"action":"Accept","from":[{"namespaces":{}},{"nodes":{}}]}],"egress":[{"action":"Deny","to":[{"domainNames":["example.com"]}]}]}`,
			"pass":   `{"tier":"Admin","priority":2,"subject":{"namespaces":{"matchLabels":{"team":"red"}}},"ingress":[{"action":"Pass","from":[{}]}]}`,
		}, nil, p{
			{"192.0.2.1 > blue/near tcp 80", "no-pod not-isolated"},
			{"blue/near > red/web tcp 80", "-accept[0] -pass[0]"},
		}},
		{"a cluster policy that is not understood accepts and passes nothing", m{
			"a": `{"tier":"Admin","priority":1,"subject":{"namespaces":{"matchExpressions":[{"key":"team","operator":"in","values":["red"]}]}},"ingress":[
				{"action":"Accept","from":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"number":80}}}]},
				{"action":"Pass","from":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"number":81}}}]},
				{"action":"Deny","from":[{"namespaces":{}}],"protocols":[{"destinationNamedPort":"http"}]}]}`,
			"b": `{"tier":"Admin","priority":0,"subject":{"nodes":{}},"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]}`,
		}, nil, p{
			{"red/web > red/db tcp 80", "not-isolated not-isolated"},
			{"red/web > red/db tcp 81", "not-isolated -a[1]"},
			{"red/db > red/web tcp 8080", "not-isolated -a[2]"},
			{"red/db > red/web tcp 8081", "not-isolated not-isolated"},
		}},
	}
}

// worldOf returns the standard cluster with a scenario's policies and changes.
func worldOf(t *testing.T, s scenario) *world {
	w := standard(t)
	for key, spec := range s.policies {
		if slices.Contains([]byte(key), '/') {
			w.policy(key, spec)
		} else {
			w.clusterPolicy(key, spec)
		}
	}
	if s.change != nil {
		s.change(w)
	}
	return w
}

// TestJudge: verdicts and the rules that gave them.
func TestJudge(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			w := worldOf(t, s)
			for _, p := range s.packets {
				w.expect(p[0], p[1])
			}
		})
	}
}

// TestJudgeEverywhere: without a node, the pods of all nodes are judged, and a verdict names what isolates.
func TestJudgeEverywhere(t *testing.T) {
	w := standard(t)
	w.policy("blue/b", `{"podSelector":{}}`)
	w.policy("blue/a", `{"podSelector":{},"policyTypes":["Ingress","Egress"]}`)
	v := Judge(w, "", w.packet("blue/near > blue/web tcp 80"))
	if in := v[Ingress]; in.Allowed || !slices.Equal(in.Isolated, []string{"blue/a", "blue/b"}) || in.Pod.Name != "web" {
		t.Errorf("ingress: %+v", in)
	}
	if out := v[Egress]; out.Allowed || !slices.Equal(out.Isolated, []string{"blue/a"}) || out.Pod.Name != "near" {
		t.Errorf("egress: %+v", out)
	}
}

// TestPrecedes: the owner of an address does not depend on the order of reports.
func TestPrecedes(t *testing.T) {
	order := []*Pod{
		{UID: "d", Since: 9, Deleting: true}, {UID: "a", Since: 1}, {UID: "b", Since: 2}, {UID: "c", Since: 2},
	}
	for i, a := range order {
		for j, b := range order {
			if a.Precedes(b) != (i > j) {
				t.Errorf("%s before %s: %v, want %v", a.UID, b.UID, a.Precedes(b), i > j)
			}
		}
	}
}
