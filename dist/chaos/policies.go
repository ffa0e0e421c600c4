package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// policySpec isolates the servers, which only clients reach, and the clients, which reach only servers.
const policySpec = `apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: server}}}]}]
`

// policed are the pods of a node that network policies are about. No policy selects the other one.
type policed struct{ server, client, other *lab.Pod }

func (p policed) all() []*lab.Pod { return []*lab.Pod{p.server, p.client, p.other} }

// pair is a path between two pods, as the policies of one of their nodes judge it.
type pair struct {
	from, to *lab.Pod
	as       *lab.Pod // whose address the sender borrows; nil: it uses its own
	allowed  bool
}

// pairs are those that h judges: of ingress and of egress, between its own pods and with those of another host.
func (s *Suite) pairs(h *host) []pair {
	own, far := h.policed, s.next(h).policed
	return []pair{
		{from: own.client, to: own.server, allowed: true},
		{from: far.client, to: own.server, allowed: true},
		{from: own.client, to: far.server, allowed: true},
		{from: own.other, to: far.other, allowed: true},
		{from: own.other, to: own.server},
		{from: far.other, to: own.server},
		{from: own.client, to: own.other},
		{from: own.client, to: far.other},
		{from: own.other, to: own.server, as: own.client},
		{from: own.other, to: far.server, as: own.client},
	}
}

func (s *Suite) policyDir() string { return filepath.Join(s.dir, "policies") }

// podName is the name of a pod of the suite's: the runtime's, and the one in the policies' files.
func podName(node *lab.Node, app string, i int) string {
	return fmt.Sprintf("%s-%s%d", node.Name(), app, i)
}

// writePolicies writes the files from which the daemons take policies, before there is a pod. A pod has to be known
// before it is added: the CNI plugin waits for its rules.
func (s *Suite) writePolicies() error {
	if err := os.Mkdir(s.policyDir(), 0o755); err != nil {
		return err
	}
	return s.writePolicyFile("policies", policySpec)
}

// writePolicyFile replaces a file as a whole.
func (s *Suite) writePolicyFile(name, text string) error {
	path := filepath.Join(s.policyDir(), name+".yaml")
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// writePods writes all pods that there are to be, with the addresses of those that there are.
func (s *Suite) writePods() error {
	addresses := map[string]*lab.Pod{}
	for _, p := range s.lab.Pods() {
		addresses[p.PodName()] = p
	}
	var text strings.Builder
	for _, n := range s.lab.Nodes() {
		names := map[string]string{
			podName(n, "server", 0): "server", podName(n, "client", 0): "client", podName(n, "other", 0): "other",
		}
		for i := range s.options.Pods {
			names[podName(n, "pod", i)] = "pod"
		}
		for name, app := range names {
			var ips []string
			for _, f := range s.families {
				if p := addresses[name]; p != nil {
					ips = append(ips, fmt.Sprintf("{ip: %q}", p.Addr(f)))
				}
			}
			fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Pod\n"+
				"metadata: {name: %s, namespace: default, uid: %s, labels: {app: %s}}\n"+
				"spec: {nodeName: %s}\nstatus: {podIPs: [%s]}\n", name, name, app, n.Name(), strings.Join(ips, ", "))
		}
	}
	return s.writePolicyFile("pods", text.String())
}

// trackedFor is how long what is tracked of short connections stays in the kernel, in seconds: thousands begin in a
// minute.
var trackedFor = map[string]string{"udp_timeout": "2", "tcp_timeout_close": "1", "tcp_timeout_syn_sent": "2"}

// addPoliced adds the pods that policies are about to all hosts, and what receives on them.
func (s *Suite) addPoliced(ctx context.Context) (err error) {
	for _, h := range s.hosts {
		for name, seconds := range trackedFor {
			if err := h.write("/proc/sys/net/netfilter/nf_conntrack_"+name, seconds); err != nil {
				return err
			}
		}
		for _, x := range []struct {
			app string
			pod **lab.Pod
		}{{"server", &h.policed.server}, {"client", &h.policed.client}, {"other", &h.policed.other}} {
			if *x.pod, err = s.lab.AddPod(ctx, h.Node, podName(h.Node, x.app, 0)); err != nil {
				return err
			}
		}
		for _, p := range h.policed.all() {
			sink, err := s.tracks.listen(p, s.families)
			if err != nil {
				return err
			}
			s.sinks = append(s.sinks, sink)
		}
	}
	return s.writePods()
}

// settlePolicies waits until the rules are right for the first time, and remembers how they look.
func (s *Suite) settlePolicies(ctx context.Context) error {
	problems, err := s.await(ctx, s.hosts, func(h *host) (problems []string, err error) {
		have, err := h.readPolicies()
		if err != nil {
			return nil, err
		}
		if problems = s.incomplete(h, have); problems == nil {
			h.policies = have.lines()
		}
		return problems, nil
	})
	if err != nil || problems != nil {
		return fmt.Errorf("before any fault: %q, %w", problems, err)
	}
	return nil
}

// incomplete says what is missing of a node's rules: the pods of all nodes are to be in the sets of the policies, and
// the node's own in those of their ports. Whether the rules work is found out by packets.
func (s *Suite) incomplete(h *host, have policyTables) (problems []string) {
	sets := map[string]bool{} // what sets hold, sorted
	for _, t := range have {
		for _, set := range t.sets {
			sets[strings.Join(set.keys(), " ")] = true
		}
	}
	for _, f := range s.families {
		for i, app := range []string{"server", "client"} {
			var keys []string
			for _, h := range s.hosts {
				keys = append(keys, keyOf(h.policed.all()[i], f))
			}
			slices.Sort(keys)
			if !sets[strings.Join(keys, " ")] {
				problems = append(problems,
					fmt.Sprintf("%s: no set has the %s addresses of all pods app=%s", h.Name(), f, app))
			}
		}
	}
	ports := have.set(sourceTable, portsSet)
	if ports == nil || len(ports.elements) != len(h.pods)+len(h.policed.all()) {
		problems = append(problems, h.Name()+": not all ports of pods are in the table of sources")
	}
	return problems
}

// keyOf is the address of a pod as an element of a set has it.
func keyOf(p *lab.Pod, f subnet.Family) string { return string(p.Addr(f).AsSlice()) }

// checkPolicies says what is wrong with the rules of policies, and with what makes packets pass them.
func (h *host) checkPolicies() (p problems, err error) {
	if h.policies == nil {
		return p, nil
	}
	have, err := h.readPolicies()
	if err != nil {
		return p, err
	}
	for _, difference := range compare("policies", h.policies, have.lines()) {
		p.add(0, "%s", difference)
	}
	for _, f := range h.families {
		if value, err := h.ReadFile(bridgedOf(f)); err != nil || strings.TrimSpace(string(value)) != "1" {
			p.add(f, "%s is %q, %v, want 1", bridgedOf(f), value, err)
		}
	}
	return p.of(h), nil
}

// bridgedOf is the setting by which packets between two ports of a bridge are judged like forwarded ones.
func bridgedOf(f subnet.Family) string {
	return "/proc/sys/net/bridge/bridge-nf-call-" + iptablesOf(f)
}
