package manifest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/policy"
)

// Options say how files are read.
type Options struct {
	Namespace string // of objects that name none; empty: "default"
	Workloads bool   // a Deployment and the like stands for a pod of its template, with its name
}

// NameLabel is the label of each namespace with its name, which the API server sets.
const NameLabel = "kubernetes.io/metadata.name"

// Reasons of a [Note] beside those of package policy. Programs compare codes.
const (
	ReasonKind      policy.Reason = "unsupported-kind"  // a kind of policy that is not known
	ReasonNamespace policy.Reason = "missing-namespace" // no file has a pod's or policy's namespace
)

// Note says what was not understood of an object, or what no file says.
type Note struct {
	Place  string // "file:line"; empty: no place
	Object string // kind and name
	policy.Problem
}

// String returns the note as a line.
func (n Note) String() string {
	text := n.Object + ": " + strings.TrimPrefix(n.Problem.String(), ": ")
	return strings.TrimPrefix(n.Place+": "+text, ": ")
}

// Cluster is what files say of a cluster. Create one with [New].
type Cluster struct {
	policy.Cluster
	Notes []Note

	options   Options
	places    map[string]string // of each object
	byAddress map[netip.Addr][]*policy.Pod
}

// New returns a cluster without objects.
func New(o Options) *Cluster {
	o.Namespace = cmp.Or(o.Namespace, "default")
	return &Cluster{
		Cluster: policy.Cluster{
			Namespaces: map[string]policy.Namespace{}, Pods: map[string]*policy.Pod{},
			Policies: map[string]*policy.Policy{}, ClusterWide: map[string]*policy.ClusterPolicy{},
		},
		options: o, places: map[string]string{},
	}
}

// PodsAt implements [policy.Source]. It does not walk over all pods, as [policy.Cluster] does, once the cluster is
// complete.
func (c *Cluster) PodsAt(a netip.Addr) iter.Seq[*policy.Pod] {
	if c.byAddress == nil {
		return c.Cluster.PodsAt(a)
	}
	return slices.Values(c.byAddress[a])
}

// AllPods yields all pods, in any order.
func (c *Cluster) AllPods() iter.Seq[*policy.Pod] { return maps.Values(c.Pods) }

// AllPolicies yields all NetworkPolicies, in any order.
func (c *Cluster) AllPolicies() iter.Seq[*policy.Policy] { return maps.Values(c.Policies) }

// ErrTwice is returned for an object that is there before, with another content.
var ErrTwice = errors.New("the object is there twice, with different contents")

// Add adds an object. It ignores objects that policies are not about.
func (c *Cluster) Add(d Document) error {
	group, _, _ := strings.Cut(d.APIVersion, "/")
	switch {
	case d.APIVersion == "v1" && d.Kind == "Namespace":
		return c.addNamespace(d)
	case d.APIVersion == "v1" && d.Kind == "Pod":
		return c.addPod(d)
	case d.APIVersion == "networking.k8s.io/v1" && d.Kind == "NetworkPolicy":
		return c.addPolicy(d)
	case d.APIVersion == "policy.networking.k8s.io/v1beta1" && d.Kind == "ClusterNetworkPolicy":
		return c.addClusterPolicy(d)
	case strings.HasSuffix(d.Kind, "NetworkPolicy"): // also AdminNetworkPolicy, CiliumNetworkPolicy and the like
		c.note(d, d.Kind+" "+nameOf(d), ReasonKind, "is of "+d.APIVersion+
			", which selvage does not know: want networking.k8s.io/v1, or policy.networking.k8s.io/v1beta1")
		return nil
	case c.options.Workloads && (group == "apps" || group == "batch" || group == "v1"):
		return c.addWorkload(d)
	}
	return nil
}

func (c *Cluster) note(d Document, object string, reason policy.Reason, text string) {
	c.Notes = append(c.Notes, Note{d.Place(), object, policy.Problem{Reason: reason, Text: text}})
}

// metadata is what identifies an object.
type metadata struct {
	Metadata struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
}

// nameOf returns "namespace/name", or what there is of it.
func nameOf(d Document) string {
	var m metadata
	_ = json.Unmarshal(d.JSON, &m) // what is not understood has no name
	return strings.TrimPrefix(m.Metadata.Namespace+"/"+m.Metadata.Name, "/")
}

// namespaced returns the JSON of an object with a namespace.
func (c *Cluster) namespaced(d Document) ([]byte, error) {
	var m metadata
	if err := json.Unmarshal(d.JSON, &m); err != nil || m.Metadata.Namespace != "" {
		return d.JSON, nil // the decoder of the kind says what is wrong
	}
	object, meta := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if json.Unmarshal(d.JSON, &object) != nil || json.Unmarshal(object["metadata"], &meta) != nil || meta == nil {
		return d.JSON, nil
	}
	var err error
	if meta["namespace"], err = json.Marshal(c.options.Namespace); err != nil {
		return nil, err
	}
	if object["metadata"], err = json.Marshal(meta); err != nil {
		return nil, err
	}
	return json.Marshal(object)
}

// put stores an object, unless another one with its name is there.
func put[T any](c *Cluster, d Document, all map[string]T, key, name string, object T) error {
	if before, ok := all[key]; ok && !reflect.DeepEqual(before, object) {
		return fmt.Errorf("%s: %s %s: %w: the other one is in %s", d.Place(), d.Kind, name, ErrTwice,
			c.places[d.Kind+" "+name])
	}
	all[key] = object
	c.places[d.Kind+" "+name] = d.Place()
	return nil
}

func (c *Cluster) addNamespace(d Document) error {
	n, err := policy.DecodeNamespace(d.JSON)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Place(), err)
	}
	labels := maps.Collect(n.Labels.All())
	labels[NameLabel] = n.Name
	n.Labels = policy.MakeLabels(labels)
	return put(c, d, c.Namespaces, n.Name, n.Name, n)
}

func (c *Cluster) addPod(d Document) error {
	raw, err := c.namespaced(d)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Place(), err)
	}
	p, problems, err := policy.DecodePod(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Place(), err)
	}
	name := p.Namespace + "/" + p.Name
	c.problems(d, name, problems)
	return put(c, d, c.Pods, p.UID, name, &p)
}

func (c *Cluster) addPolicy(d Document) error {
	raw, err := c.namespaced(d)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Place(), err)
	}
	p, err := policy.DecodePolicy(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Place(), err)
	}
	c.problems(d, p.Key(), p.Problems)
	return put(c, d, c.Policies, p.Key(), p.Key(), &p)
}

func (c *Cluster) addClusterPolicy(d Document) error {
	p, err := policy.DecodeClusterPolicy(d.JSON)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Place(), err)
	}
	c.problems(d, p.Name, p.Problems)
	return put(c, d, c.ClusterWide, p.Name, p.Name, &p)
}

func (c *Cluster) problems(d Document, name string, all []policy.Problem) {
	for _, p := range all {
		c.Notes = append(c.Notes, Note{d.Place(), d.Kind + " " + name, p})
	}
}
