package policy

import "testing"

// TestMaySelect: a policy of the namespace, and a cluster policy about it, may select its pods; those of others may not,
// nor one that is gone.
func TestMaySelect(t *testing.T) {
	w, c := newWorld(t), NewCompiler("n1")
	expect := func(what string, red, blue, unknown bool) {
		t.Helper()
		for namespace, want := range map[string]bool{"red": red, "blue": blue, "unknown": unknown} {
			if got := c.MaySelect(namespace); got != want {
				t.Errorf("%s: a pod of %s may be selected: %t, want %t", what, namespace, got, want)
			}
		}
	}
	c.SetNamespace(Namespace{Name: "red", Labels: MakeLabels(map[string]string{"team": "a"})})
	c.SetNamespace(Namespace{Name: "blue", Labels: MakeLabels(map[string]string{"team": "b"})})
	expect("no policy", false, false, false)

	c.SetPolicy(*w.policy("red/web", `{"podSelector":{"matchLabels":{"app":"web"}}}`))
	expect("a policy of one namespace", true, false, false)
	c.DeletePolicy("red", "web")
	expect("none again", false, false, false)

	c.SetClusterPolicy(*w.clusterPolicy("team", `{"tier":"Admin","priority":1,
		"subject":{"namespaces":{"matchLabels":{"team":"b"}}},"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]}`))
	expect("a cluster policy about one", false, true, true)
	c.SetNamespace(Namespace{Name: "red", Labels: MakeLabels(map[string]string{"team": "b"})})
	expect("the other has its labels now", true, true, true)
	c.DeleteClusterPolicy("team")
	expect("none at the end", false, false, false)

	c.SetPolicy(*w.policy("unknown/web", `{"podSelector":{}}`))
	expect("a policy of a namespace that is not known", false, false, true)
}
